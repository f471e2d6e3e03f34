"""Models of MLPerf Tiny to int8, beside the int8 files that were published with them.

``HYBRIDGE_DATA=... python -m benchmarks.conversion.tiny_models`` converts ResNet8 from its ``.h5`` and DS-CNN from its
SavedModel with ``hybridge convert``, calibrated and judged on different natural images and spoken digits.
"""

from __future__ import annotations

import io
import tempfile
import wave
import zipfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.conversion.runs import Run, hybridge
from benchmarks.data import data_file
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, table
from edge_runtime.tensor_spec import Array

__all__ = ["tiny_models"]

_AGREEMENT = 0.99


@click.command()
@click.option("--work", type=click.Path(path_type=Path), help="Folder to leave bundles and data in.")
@format_option
def tiny_models(work: Path | None) -> None:
    """Converts ResNet8 and DS-CNN to int8, and compares them with the published files."""
    with tempfile.TemporaryDirectory(prefix="hybridge-") as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        results = {
            "ResNet8": _converted(
                folder, "pretrainedResnet.h5", "pretrainedResnet_quant.tflite", "input_1", _crops()
            ),
            "DS-CNN": _converted(
                folder, "kws_ref_model_savedmodel", "kws_ref_model.tflite", "input_1", _mfccs()
            ),
        }
    emit(
        {"models": results},
        lambda: table(
            [
                (
                    name,
                    f"{each['size_bytes']:,}",
                    f"{each['published_bytes']:,}",
                    f"{each['deflated_size_bytes']:,}",
                    f"{each['parity']['label_agreement']:.2%}",
                    "yes" if each["reached"] else "NO",
                )
                for name, each in results.items()
            ],
            header=("int8", "bytes", "published", "over the air", "same class", "reached"),
        ),
    )


def _converted(folder: Path, source: str, published: str, name: str, samples: tuple[Array, Array]) -> Run:
    calibration, judged = samples
    for kind, array in (("calibration", calibration), ("judged", judged)):
        arrays: dict[str, Any] = {name: array}
        np.savez(folder / f"{kind}.npz", **arrays)
    run = hybridge(
        "convert", data_file(f"mlperf_tiny/{source}"), "--recipe", "int8",
        "--representative", folder / "calibration.npz", "--eval", folder / "judged.npz",
        "-o", folder / f"{source}.edge", "--overwrite",
    )  # fmt: skip
    limit = data_file(f"mlperf_tiny/{published}").stat().st_size
    if run["exit_code"]:
        raise click.ClickException(f"{source}: {run['error']['message']}")
    reached = run["size_bytes"] <= limit and run["parity"]["label_agreement"] >= _AGREEMENT
    return {**run, "published_bytes": limit, "reached": reached}


def _crops() -> tuple[Array, Array]:
    """Natural images for ResNet8: squares cut from photographs, 32 by 32, values 0 to 255.

    Calibration and judgement take different photographs.
    """
    photographs = sorted(data_file("images").glob("*.*"))
    pictures = [_picture(path) for path in photographs if path.suffix in (".jpg", ".bmp")]
    random = np.random.default_rng(0)
    return _cut(pictures[:2], 500, random), _cut(pictures[2:], 2000, random)


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


def _mfccs() -> tuple[Array, Array]:
    """Spoken digits for DS-CNN: two speakers to calibrate on, four to judge by."""
    features = {path.stem: _features(path) for path in sorted(data_file("fsdd").glob("*.zip"))}
    speakers = sorted(features)
    calibration = np.concatenate([features[name] for name in speakers[:2]])[::2]
    judged = np.concatenate([features[name] for name in speakers[2:]])
    return calibration, judged


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
