"""`hybridge run`: a bundle, a bare `.tflite` or a chain, on one input or on a stream of them."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from edge_runtime.access_flags import access_flags, access_settings
from edge_runtime.console import emit, format_option, say, table, usage_error
from edge_runtime.errors import HybridgeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_runtime.chain import Chain
    from edge_runtime.fallback import Fallback
    from edge_runtime.prediction import Prediction, StageTrace
    from edge_runtime.tensor_spec import Array

__all__ = ["run"]

_IMAGES = {".jpg", ".jpeg", ".png", ".bmp"}
_SINGLE = {*_IMAGES, ".npy", ".npz"}


@click.command()
@click.argument("source", type=click.Path(dir_okay=False))
@click.option(
    "--input",
    multiple=True,
    required=True,
    metavar="[NAME=]WHAT",
    help="An .npy, an image, or an .npz with all inputs by name; one input needs no name. Or a stream: a folder, "
    "'photos/*.jpg', a video, .wav, .jsonl, camera:0, picamera, mic, or - for JSON lines.",
)
@click.option(
    "--out",
    multiple=True,
    metavar="WHERE",
    help="Where a stream's results go: .jsonl, a folder/ of pictures, .mp4 or .avi; without it, standard output.",
)
@click.option(
    "--draw",
    multiple=True,
    metavar="WHAT=TENSOR",
    help="What pictures and videos show: image, boxes, quads, points or labels, each a tensor of the chain.",
)
@click.option("--overwrite", is_flag=True, help="Let --out replace files.")
@click.option(
    "--watch",
    is_flag=True,
    help="Go on until stopped: with files that come into a folder, with bundles that are replaced, and a live view.",
)
@click.option(
    "--overflow",
    type=click.Choice(["block", "drop-oldest", "drop-newest"]),
    help="When a stream is faster than the chain; by default drop-oldest for cameras and microphones, else block.",
)
@click.option(
    "--queue-size", type=click.IntRange(min=1), default=4, show_default=True, help="Frames that may wait."
)
@click.option("--workers", type=click.IntRange(min=1), help="Threads for a stream; one a core by default.")
@click.option(
    "--metrics-port", type=click.IntRange(1, 65535), help="Answer Prometheus on this port of this machine."
)
@click.option(
    "--memory-mb",
    type=click.FloatRange(min=0, min_open=True),
    help="What the models of a chain may take together.",
)
@click.option("--fallback", help="Whom to ask when unsure, such as grpc://127.0.0.1:8001/digits-large.")
@access_flags
@click.option(
    "--deadline-ms",
    type=click.FloatRange(min=0, min_open=True),
    help="How long the cloud may take, in place of the URL's deadline_ms.  [default: 200]",
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
    out: tuple[str, ...],
    draw: tuple[str, ...],
    overwrite: bool,
    watch: bool,
    overflow: str | None,
    queue_size: int,
    workers: int | None,
    metrics_port: int | None,
    memory_mb: float | None,
    fallback: str | None,
    deadline_ms: float | None,
    threshold: float | None,
    num_threads: int,
    digest: str | None,
    **access: Any,
) -> None:
    """Runs a bundle, a .tflite or a chain (.toml) on an input or a stream, and shows what it says."""
    from edge_runtime.fallback import open_fallback

    settings = access_settings(**access)
    if fallback is None and (deadline_ms is not None or threshold is not None):
        raise usage_error("--deadline-ms and --threshold say when --fallback is asked; name one")
    if fallback is None and settings:
        raise usage_error("--tls-* and --token-* are for --fallback; a chain has keys for them")
    streams = watch or bool(out) or any(_is_stream(entry) for entry in input)
    if streams and len(input) != 1:
        raise usage_error("a stream is one --input; JSON lines have several inputs in each line")
    if not streams and (draw or overflow or workers or metrics_port):
        raise usage_error("--draw, --overflow, --workers and --metrics-port are for streams")
    asked = None
    if fallback is not None:
        options: dict[str, Any] = {"settings": settings} if settings else {}
        if deadline_ms is not None:
            options["deadline_s"] = deadline_ms / 1e3
        asked = open_fallback(fallback, **options)
    with (
        _open_chain(source, asked, threshold, num_threads, digest, memory_mb) as chain,
        _saying_what_waits(chain, source),
    ):
        if streams:
            from edge_runtime.run_stream import StreamSettings, run_stream

            run_stream(
                chain,
                input[0],
                StreamSettings(
                    out=out,
                    draw=draw,
                    overwrite=overwrite,
                    watch=watch,
                    overflow=overflow,
                    queue_size=queue_size,
                    workers=workers,
                    metrics_port=metrics_port,
                ),
            )
            return
        # Nothing is drained: what is written of one input is one document, which has no place for other answers.
        prediction = chain.run(_read_inputs(input, chain))
        emit(_data(prediction), lambda: _text(prediction))


@contextmanager
def _saying_what_waits(chain: Chain, source: str) -> Iterator[None]:
    """Says at the end how many questions wait in the outboxes of a chain, and what asks them."""
    from edge_runtime.late_answers import deferring

    try:
        yield
    finally:
        outboxes = {id(each.outbox): each.outbox for each in deferring(chain)}
        try:
            count = sum(outbox.figures().left for outbox in outboxes.values() if outbox is not None)
        except HybridgeError as error:
            # The run itself is done.
            say(f"what waits is not known: {error.message}")
        else:
            if count:
                what = "question waits" if count == 1 else "questions wait"
                say(f"{count:,} {what} in the outbox; to ask: hybridge fallback drain {shlex.quote(source)}")


def _is_stream(entry: str) -> bool:
    """Whether an input is many frames, and not one file of one."""
    path = Path(entry.rpartition("=")[2])
    return path.suffix.lower() not in _SINGLE or "*" in entry or path.is_dir()


def _open_chain(
    source: str,
    fallback: Fallback | None,
    threshold: float | None,
    num_threads: int,
    digest: str | None,
    memory_mb: float | None,
) -> Chain:
    import msgspec

    from edge_runtime.bundle import Bundle
    from edge_runtime.chain import Chain, load_chain
    from edge_runtime.memory_budget import MemoryBudget
    from edge_runtime.model import Model

    budget = None if memory_mb is None else MemoryBudget(int(memory_mb * 1e6))

    suffix = Path(source).suffix
    if suffix == ".toml":
        if fallback is not None or digest is not None:
            raise usage_error(
                "a chain names its fallbacks and models itself; --fallback and --digest are for one model"
            )
        return load_chain(source, budget=budget)
    if suffix != ".edge" and digest is not None:
        raise usage_error("--digest is for a bundle")
    bundle = Bundle.open(source, digest=digest) if suffix == ".edge" else None
    model = Model(source if digest is None else bundle or source, num_threads=num_threads, budget=budget)
    confidence = bundle.manifest.confidence if bundle else None
    if confidence is not None and threshold is not None:
        confidence = msgspec.structs.replace(confidence, threshold=threshold)
    return Chain.from_bundle(model, confidence=confidence, fallback=fallback)


def _read_inputs(given: tuple[str, ...], chain: Chain) -> dict[str, Array]:
    from edge_runtime.files import read_file
    from edge_runtime.sources.file_value import read_arrays

    inputs: dict[str, Array] = {}
    for entry in given:
        name, equals, path = entry.rpartition("=")
        suffix = Path(path).suffix.lower()
        if not equals and suffix == ".npz":
            inputs.update(read_arrays(path, name=""))
            continue
        if not equals and len(chain.inputs) != 1:
            raise usage_error(f"--input {path} has no name; the inputs are {', '.join(chain.inputs)}")
        name = name or chain.inputs[0]
        if takes_bytes(chain, name):
            inputs[name] = np.frombuffer(read_file(path), np.uint8)
        elif suffix in _IMAGES:
            inputs[name] = _read_image(path, chain, name)
        else:
            inputs.update(read_arrays(path, name=name))
    return inputs


def takes_bytes(chain: Chain, tensor: str) -> bool:
    """Whether a chain takes a file's bytes for an input and decodes them itself."""
    return any(stage.inputs.get("content") == tensor for stage in chain.stages)


def _read_image(path: str, chain: Chain, name: str) -> Array:
    from edge_runtime.sources.file_value import read_image

    # A model that says how many channels and whether a batch of one it takes is given that.
    spec = chain.input_specs.get(name)
    shape = spec.shape if spec else ()
    image = read_image(path, channels=1 if shape and shape[-1] == 1 else 3)
    return image[np.newaxis] if len(shape) == 4 else image


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
        "elapsed_ms": prediction.elapsed_ms,
    }


def _text(prediction: Prediction) -> str:
    lines = []
    if prediction.confidence is not None:
        label = "" if prediction.label is None else f"{prediction.label}, "
        because = f"{prediction.reason}: {prediction.detail}" if prediction.detail else prediction.reason
        source = answered_by(prediction)
        lines += [f"{label}confidence {prediction.confidence:.4f}, from the {source} ({because})", ""]
    if prediction.request_ids:
        lines += [f"deferred as {', '.join(prediction.request_ids)}", ""]
    for name, value in prediction.outputs.items():
        if isinstance(value, list):
            lines.append(
                f"{name}: {len(value)} items" + "".join(f", {each.dtype} {each.shape}" for each in value[:3])
            )
            continue
        shown = np.array2string(value, precision=4, threshold=20, suppress_small=True)
        lines.append(f"{name}: {value.dtype} {value.shape}\n{shown}")
    rows = [row for trace in prediction.stages for row in _rows(trace, 0)]
    lines += ["", table(rows, header=("stage", "items", "device ms", "fallback ms", "answer"))]
    return "\n".join(lines)


def answered_by(prediction: Prediction) -> str:
    """Whose answer it is that stands now."""
    return "device" if prediction.source == "deferred" else prediction.source


def _rows(trace: StageTrace, depth: int) -> list[tuple[str, ...]]:
    """A row for a stage, and one for each stage of a nested chain; items are counted only."""
    nested = [part for part in trace.parts if "/" in part.stage and not part.stage.endswith("]")]
    row = (
        "  " * depth + trace.stage,
        "" if nested or not trace.parts else str(len(trace.parts)),
        "skipped" if trace.skipped else f"{trace.device_ms:.3f}",
        f"{trace.fallback_ms:.3f}",
        str(trace.source),
    )
    return [row, *(inner for part in nested for inner in _rows(part, depth + 1))]
