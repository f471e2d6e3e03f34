"""Models of MLPerf Tiny to int8, beside the int8 files that were published with them.

``HYBRIDGE_DATA=... python -m benchmarks.conversion.tiny_models`` converts ResNet8 from its ``.h5`` and DS-CNN from its
SavedModel with ``hybridge convert``, calibrated and judged on different natural images and spoken digits.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from benchmarks.conversion.photographs import Crops, photographs
from benchmarks.conversion.runs import Run, hybridge
from benchmarks.conversion.spoken_digits import spoken_digits
from benchmarks.data import data_file
from edge_runtime import Model
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, say, table
from edge_runtime.tensor_spec import Array

__all__ = ["tiny_models"]

_AGREEMENT = 0.99
# The source prefers a class by so much probability where its choice means something.
_SURE = 0.1
_RECIPES: dict[str, tuple[tuple[str, ...], ...]] = {
    "ResNet8": (
        ("int8",),
        ("int8", "--calibration", "mse"),
        ("qat", "--epochs", "8"),
        ("weight-only-int8", "--method", "gptq"),
    ),
    # A SavedModel cannot be trained.
    "DS-CNN": (("int8",), ("int8", "--calibration", "mse"), ("weight-only-int8", "--method", "gptq")),
}


@dataclass(frozen=True)
class _Samples:
    """Inputs to calibrate on, to judge by, and to train on."""

    calibration: Array
    judged: Array
    training: Array


@click.command()
@click.option("--work", type=click.Path(path_type=Path), help="Folder to leave bundles and data in.")
@format_option
def tiny_models(work: Path | None) -> None:
    """Converts ResNet8 and DS-CNN to int8, and compares them with the published files."""
    with tempfile.TemporaryDirectory(prefix="hybridge-") as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        results = {
            "ResNet8": _judged(
                folder, "ResNet8", "pretrainedResnet.h5", "pretrainedResnet_quant.tflite", _natural_images()
            ),
            "DS-CNN": _judged(
                folder, "DS-CNN", "kws_ref_model_savedmodel", "kws_ref_model.tflite", _speech()
            ),
        }
    emit({"models": results}, lambda: "\n\n".join(_table(name, each) for name, each in results.items()))


def _judged(folder: Path, name: str, source: str, published: str, samples: _Samples) -> Run:
    """Each recipe, and the published file, beside the float source."""
    model, files = data_file(f"mlperf_tiny/{source}"), {}
    for kind, array in asdict(samples).items():
        files[kind] = folder / f"{name}-{kind}.npz"
        np.savez(files[kind], input_1=array)
    data = ("--representative", files["calibration"], "--eval", files["judged"], "--overwrite")
    float32, _ = _converted(model, folder / f"{name}-float32.edge", "--recipe", "float32", *data)
    expected = _outputs(float32, samples.judged)
    limit = data_file(f"mlperf_tiny/{published}")
    size = limit.stat().st_size
    rows = {"published": _row(expected, _outputs(limit, samples.judged), size)}
    ways: dict[str, tuple[object, ...]] = {
        " ".join(recipe): ("--recipe", *recipe) for recipe in _RECIPES[name]
    }
    ways["--search"] = (
        "--search", "--search-minutes", 4, "--min-agreement", _AGREEMENT, "--max-size", size,
        "--cache", folder / f"{name}-cache",
    )  # fmt: skip
    for title, options in ways.items():
        say(f"{name}: {title}")
        bundle = folder / f"{name}-{len(rows)}.edge"
        path, run = _converted(model, bundle, *options, *data, "--train", files["training"])
        row = _row(expected, _outputs(path, samples.judged), run["size_bytes"])
        row["reached"] = row["size_bytes"] <= size and row["same_class"] >= _AGREEMENT
        found = f" finds {run['recipe']}" if title == "--search" else ""
        rows[title + found] = {**row, "deflated_size_bytes": run["deflated_size_bytes"]}
    top = np.sort(expected, axis=1)
    return {"rows": rows, "sure": float((top[:, -1] - top[:, -2] >= _SURE).mean()), "samples": len(expected)}


def _converted(model: Path, bundle: Path, *options: object) -> tuple[Path, Run]:
    run = hybridge("convert", model, *options, "-o", bundle)
    if run["exit_code"]:
        raise click.ClickException(f"{model.name}: {run['error']['message']}")
    return bundle, run


def _outputs(path: Path, inputs: Array) -> Array:
    """Probabilities of a bundle or a `.tflite` with one input and one output."""
    model = Model(path)
    (name,), (output,) = ((spec.name for spec in some) for some in (model.inputs, model.outputs))
    made: Array = np.concatenate([model.run({name: each[np.newaxis]})[output] for each in inputs])
    return made


def _row(expected: Array, received: Array, size: int) -> Run:
    same, top = expected.argmax(1) == received.argmax(1), np.sort(expected, axis=1)
    sure = top[:, -1] - top[:, -2] >= _SURE
    return {
        "size_bytes": size,
        "same_class": float(same.mean()),
        "same_class_where_sure": float(same[sure].mean()),
    }


def _table(name: str, result: Run) -> str:
    rows = [
        (
            recipe,
            f"{row['size_bytes']:,}",
            f"{row['same_class']:.2%}",
            f"{row['same_class_where_sure']:.2%}",
            {True: "yes", False: "NO", None: ""}[row.get("reached")],
        )
        for recipe, row in result["rows"].items()
    ]
    sure = f"same, where sure ({result['sure']:.0%} of {result['samples']:,})"
    return table(rows, header=(name, "bytes", "same class", sure, "reached"))


def _natural_images() -> _Samples:
    """Natural images for ResNet8, values 0 to 255. Judgement takes other photographs than the rest."""
    pictures = list(photographs().values())
    seen, others = Crops(pictures[:2], 32), Crops(pictures[2:], 32, seed=1)
    return _Samples(seen.take(500), others.take(2000), seen.take(10_000))


def _speech() -> _Samples:
    calibration, judged = spoken_digits()
    return _Samples(calibration, judged, calibration)


if __name__ == "__main__":
    run_verb(tiny_models)
