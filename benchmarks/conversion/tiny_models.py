"""Models of MLPerf Tiny to int8, beside the int8 files that were published with them.

``HYBRIDGE_DATA=... python -m benchmarks.conversion.tiny_models`` converts ResNet8 from its ``.h5`` and DS-CNN from its
SavedModel with ``hybridge convert``, calibrated and judged on different natural images and spoken digits.
"""

from __future__ import annotations

import io
import tempfile
import wave
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.conversion.runs import Run, hybridge
from benchmarks.data import data_file
from edge_runtime import Model
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, say, table
from edge_runtime.tensor_spec import Array

__all__ = ["tiny_models"]

_AGREEMENT = 0.99
# The source prefers a class by so much probability where its choice means something.
_SURE = 0.1
_RECIPES = {
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
                folder, "ResNet8", "pretrainedResnet.h5", "pretrainedResnet_quant.tflite", _crops()
            ),
            "DS-CNN": _judged(folder, "DS-CNN", "kws_ref_model_savedmodel", "kws_ref_model.tflite", _mfccs()),
        }
    emit({"models": results}, lambda: "\n\n".join(_table(name, each) for name, each in results.items()))


def _judged(folder: Path, name: str, source: str, published: str, samples: _Samples) -> Run:
    """Each recipe, and the published file, beside the float source."""
    model, files = data_file(f"mlperf_tiny/{source}"), {}
    for kind, array in asdict(samples).items():
        files[kind] = folder / f"{name}-{kind}.npz"
        np.savez(files[kind], input_1=array)
    data = ("--representative", files["calibration"], "--eval", files["judged"], "--overwrite")
    expected = _outputs(
        _converted(model, folder / f"{name}-float32.edge", "float32", *data)[0], samples.judged
    )
    limit = data_file(f"mlperf_tiny/{published}")
    rows = {"published": _row(expected, _outputs(limit, samples.judged), limit.stat().st_size)}
    for recipe in _RECIPES[name]:
        say(f"{name}: {' '.join(recipe)}")
        bundle = folder / f"{name}-{'-'.join(recipe).replace('--', '')}.edge"
        path, run = _converted(model, bundle, *recipe, *data, "--train", files["training"])
        row = _row(expected, _outputs(path, samples.judged), run["size_bytes"])
        reached = row["size_bytes"] <= limit.stat().st_size and row["same_class"] >= _AGREEMENT
        rows[" ".join(recipe)] = {
            **row,
            "deflated_size_bytes": run["deflated_size_bytes"],
            "reached": reached,
        }
    top = np.sort(expected, axis=1)
    return {"rows": rows, "sure": float((top[:, -1] - top[:, -2] >= _SURE).mean()), "samples": len(expected)}


def _converted(model: Path, bundle: Path, recipe: str, *options: object) -> tuple[Path, Run]:
    run = hybridge("convert", model, "--recipe", recipe, *options, "-o", bundle)
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


def _crops() -> _Samples:
    """Natural images for ResNet8: squares cut from photographs, 32 by 32, values 0 to 255.

    Judgement takes other photographs than the rest.
    """
    photographs = sorted(data_file("images").glob("*.*"))
    pictures = [_picture(path) for path in photographs if path.suffix in (".jpg", ".bmp")]
    random = np.random.default_rng(0)
    return _Samples(
        _cut(pictures[:2], 500, random), _cut(pictures[2:], 2000, random), _cut(pictures[:2], 10_000, random)
    )


def _picture(path: Path) -> Array:
    import cv2

    picture: Array = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return picture


def _cut(pictures: list[Array], count: int, random: np.random.Generator) -> Array:
    import cv2

    cut = []
    for index in range(count):
        picture = pictures[index % len(pictures)]
        side = int(random.integers(64, min(picture.shape[:2])))
        top, left = (int(random.integers(0, size - side + 1)) for size in picture.shape[:2])
        square = picture[top : top + side, left : left + side]
        cut.append(cv2.resize(square, (32, 32), interpolation=cv2.INTER_AREA))
    return np.stack(cut).astype(np.float32)


def _mfccs() -> _Samples:
    """Spoken digits for DS-CNN: two speakers to calibrate on, four to judge by."""
    features = {path.stem: _features(path) for path in sorted(data_file("fsdd").glob("*.zip"))}
    speakers = sorted(features)
    calibration = np.concatenate([features[name] for name in speakers[:2]])[::2]
    judged = np.concatenate([features[name] for name in speakers[2:]])
    return _Samples(calibration, judged, calibration)


def _features(archive: Path) -> Array:
    """49 frames of 10 mel-frequency cepstral coefficients, as the reference training script computes them."""
    with zipfile.ZipFile(archive) as files:
        signals = [_signal(files.read(name)) for name in sorted(files.namelist()) if name.endswith(".wav")]
    signal = _tensorflow().signal
    spectra = abs(signal.stft(np.stack(signals), 480, 320))
    mel = signal.linear_to_mel_weight_matrix(40, spectra.shape[-1], 16000, 20.0, 4000.0)
    logs = _tensorflow().math.log(_tensorflow().tensordot(spectra, mel, 1) + 1e-6)
    coefficients = signal.mfccs_from_log_mel_spectrograms(logs)[..., :10]
    return np.asarray(coefficients, np.float32)[..., np.newaxis]


def _signal(content: bytes) -> Array:
    """One second at 16 kHz, its loudest sample 1."""
    with wave.open(io.BytesIO(content)) as file:
        rate = file.getframerate()
        recorded = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32)
    seconds = np.arange(16000) / 16000
    signal = np.interp(seconds, np.arange(len(recorded)) / rate, recorded, right=0.0)
    scaled: Array = (signal / max(float(np.abs(signal).max()), 1.0)).astype(np.float32)
    return scaled


def _tensorflow() -> Any:
    import tensorflow

    return tensorflow


if __name__ == "__main__":
    run_verb(tiny_models)
