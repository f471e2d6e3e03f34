"""`hybridge run`: a bundle, a bare `.tflite` or a chain on one input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from edge_runtime.console import emit, format_option, table, usage_error
from edge_runtime.errors import ErrorCode, HybridgeError

if TYPE_CHECKING:
    from edge_runtime.chain import Chain
    from edge_runtime.fallback import Fallback
    from edge_runtime.prediction import Prediction
    from edge_runtime.tensor_spec import Array

__all__ = ["run"]

_IMAGES = {".jpg", ".jpeg", ".png", ".bmp"}


@click.command()
@click.argument("source", type=click.Path(dir_okay=False))
@click.option(
    "--input",
    multiple=True,
    required=True,
    metavar="[NAME=]FILE",
    help="An input: .npy, an image, or an .npz with all inputs by name. One input needs no name.",
)
@click.option("--fallback", help="Whom to ask when unsure, such as grpc://127.0.0.1:8001/digits-large.")
@click.option(
    "--deadline-ms", type=click.FloatRange(min=0, min_open=True), help="How long the cloud may take."
)
@click.option(
    "--threshold", type=click.FloatRange(0, 1), help="Ask below this confidence, in place of the bundle's."
)
@click.option("--num-threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--digest", help="The digest that the bundle must have.")
@format_option
def run(
    source: str,
    input: tuple[str, ...],  # noqa: A002 - a flag's name is also its key in the environment and in a file
    fallback: str | None,
    deadline_ms: float | None,
    threshold: float | None,
    num_threads: int,
    digest: str | None,
) -> None:
    """Runs a bundle, a .tflite or a chain (.toml) once and shows the prediction."""
    from edge_runtime.fallback import open_fallback

    if fallback is None and (deadline_ms is not None or threshold is not None):
        raise usage_error("--deadline-ms and --threshold say when --fallback is asked; name one")
    asked = None
    if fallback is not None:
        options = {} if deadline_ms is None else {"deadline_s": deadline_ms / 1e3}
        asked = open_fallback(fallback, **options)
    with _open_chain(source, asked, threshold, num_threads, digest) as chain:
        prediction = chain.run(_read_inputs(input, chain))
    emit(_data(prediction), lambda: _text(prediction))


def _open_chain(
    source: str, fallback: Fallback | None, threshold: float | None, num_threads: int, digest: str | None
) -> Chain:
    import msgspec

    from edge_runtime.bundle import Bundle
    from edge_runtime.chain import Chain, load_chain
    from edge_runtime.model import Model

    suffix = Path(source).suffix
    if suffix == ".toml":
        if fallback is not None or digest is not None:
            raise usage_error(
                "a chain names its fallbacks and models itself; --fallback and --digest are for one model"
            )
        return load_chain(source)
    if suffix != ".edge" and digest is not None:
        raise usage_error("--digest is for a bundle")
    bundle = Bundle.open(source, digest=digest) if suffix == ".edge" else None
    model = Model(bundle or source, num_threads=num_threads)
    confidence = bundle.manifest.confidence if bundle else None
    if confidence is not None and threshold is not None:
        confidence = msgspec.structs.replace(confidence, threshold=threshold)
    return Chain.from_bundle(model, confidence=confidence, fallback=fallback)


def _read_inputs(given: tuple[str, ...], chain: Chain) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    for entry in given:
        name, equals, path = entry.rpartition("=")
        if not equals and Path(path).suffix == ".npz":
            inputs.update(_read_npz(path))
            continue
        if not equals and len(chain.inputs) != 1:
            raise usage_error(f"--input {path} has no name; the inputs are {', '.join(chain.inputs)}")
        name = name or chain.inputs[0]
        inputs[name] = _read_bytes(path) if _takes_bytes(chain, name) else _read_array(path, chain)
    return inputs


def _takes_bytes(chain: Chain, tensor: str) -> bool:
    # An operator's tensor `content` is a file's bytes, as `decode` takes them.
    return any(stage.inputs.get("content") == tensor for stage in chain.stages)


def _read_bytes(path: str) -> Array:
    from edge_runtime.files import read_file

    return np.frombuffer(read_file(path), np.uint8)


def _read_npz(path: str) -> Mapping[str, Array]:
    from edge_runtime.files import read_file

    read_file(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(path, error, "an .npz archive of arrays") from error


def _read_array(path: str, chain: Chain) -> Array:
    from edge_runtime.files import read_file

    content = read_file(path)
    if Path(path).suffix.lower() in _IMAGES:
        return _decode(content, chain)
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error, "an .npy array or an image") from error
    return array


def _decode(content: bytes, chain: Chain) -> Array:
    from edge_runtime.operators import find_operator

    # A model that says how many channels and whether a batch of one it takes is given that.
    specs = chain.stages[0].input_specs  # of a chain of one model; operators take an image as it is
    shape = specs[0].shape if specs else ()
    channels = 1 if shape and shape[-1] == 1 else 3
    decoded = find_operator("decode").run(
        {"content": np.frombuffer(content, np.uint8)}, {"channels": channels}
    )
    image: Array = decoded["image"]
    return image[np.newaxis] if len(shape) == 4 else image


def _unreadable(path: str, error: Exception, expected: str) -> HybridgeError:
    return HybridgeError(ErrorCode.INPUT_INVALID, f"file '{path}'", received=str(error), expected=expected)


def _data(prediction: Prediction) -> dict[str, Any]:
    return {
        "label": prediction.label,
        "confidence": prediction.confidence,
        "source": prediction.source,
        "reason": prediction.reason,
        "detail": prediction.detail,
        "outputs": dict(prediction.outputs),
        "stages": prediction.stages,
        "total_ms": prediction.total_ms,
    }


def _text(prediction: Prediction) -> str:
    lines = []
    if prediction.confidence is not None:
        label = "" if prediction.label is None else f"{prediction.label}, "
        because = f"{prediction.reason}: {prediction.detail}" if prediction.detail else prediction.reason
        lines += [
            f"{label}confidence {prediction.confidence:.4f}, from the {prediction.source} ({because})",
            "",
        ]
    for name, array in prediction.outputs.items():
        shown = np.array2string(array, precision=4, threshold=20, suppress_small=True)
        lines.append(f"{name}: {array.dtype} {array.shape}\n{shown}")
    rows = [
        (trace.stage, f"{trace.device_ms:.3f}", f"{trace.fallback_ms:.3f}", str(trace.source))
        for trace in prediction.stages
    ]
    lines += ["", table(rows, header=("stage", "device ms", "fallback ms", "answer"))]
    return "\n".join(lines)
