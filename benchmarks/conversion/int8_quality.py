"""What int8 does beyond rounding, part by part, on real models.

``HYBRIDGE_DATA=... python -m benchmarks.conversion.int8_quality`` converts five published models to int8 with channels
equalised or not and weights rounded to the nearest or by GPTQ, calibrated and judged on different samples.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.conversion.photographs import Crops, photographs
from benchmarks.conversion.runs import Run, hybridge
from benchmarks.conversion.spoken_digits import spoken_digits
from benchmarks.data import data_file
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, say, table
from edge_runtime.tensor_spec import Array

__all__ = ["int8_quality"]

_VARIANTS: dict[str, tuple[str, ...]] = {
    "rounded to the nearest": ("--method", "min-max", "--no-equalize"),
    "equalised": ("--method", "min-max"),
    "GPTQ": ("--no-equalize",),
    "both (int8)": (),
    "both, --calibration mse": ("--calibration", "mse"),
}


@dataclass(frozen=True)
class _Case:
    """A model, and the samples to calibrate on and to judge by, for its only input."""

    name: str
    source: str
    input: str
    calibration: Array
    judged: Array


@click.command()
@format_option
def int8_quality() -> None:
    """Converts real models to int8, with and without each part of what it does."""
    results: dict[str, dict[str, Run]] = {}
    with tempfile.TemporaryDirectory(prefix="hybridge-") as folder:
        for case in _cases():
            say(case.name)
            results[case.name] = {
                name: _converted(case, options, folder) for name, options in _VARIANTS.items()
            }
    emit(
        {"models": results},
        lambda: table(
            [
                (
                    f"{model}: {variant}",
                    f"{run['parity']['snr_db']:.1f}",
                    f"{run['parity']['label_agreement']:.2%}" if "label_agreement" in run["parity"] else "",
                    f"{run['size_bytes']:,}",
                    f"{run['seconds']:.0f}",
                )
                for model, runs in results.items()
                for variant, run in runs.items()
            ],
            header=("int8", "SNR dB", "same class", "bytes", "seconds"),
        ),
    )


def _converted(case: _Case, options: tuple[str, ...], folder: str) -> Run:
    files = [Path(folder) / f"{case.name}-{kind}.npz" for kind in ("calibration", "judged")]
    for file, array in zip(files, (case.calibration, case.judged), strict=True):
        arrays: dict[str, Any] = {case.input: array}
        np.savez(file, **arrays)
    # Without a bound, as what breaks one is what is to be seen.
    run = hybridge(
        "convert", data_file(case.source), "--recipe", "int8", *options, "--min-snr-db", 0,
        "--representative", files[0], "--eval", files[1], "-o", f"{folder}/{case.name}.edge", "--overwrite",
    )  # fmt: skip
    if run["exit_code"]:
        raise click.ClickException(f"{case.name}: {run['error']['message']}")
    return run


def _cases() -> Iterator[_Case]:
    pictures = photographs()
    face = [pictures.pop("grace_hopper.bmp")]
    first, *others = pictures.values()

    def images(size: int, seen: list[Array], unseen: list[Array], count: int) -> tuple[Array, Array]:
        smallest = 64 if size == 32 else 200
        return (
            Crops(seen, size, smallest=smallest).take(300),
            Crops(unseen, size, smallest=smallest, seed=1).take(count),
        )

    small = images(32, [first, *face], others, 2000)
    yield _Case("ResNet8", "mlperf_tiny/pretrainedResnet.h5", "input_1", *small)
    yield _Case("DS-CNN", "mlperf_tiny/kws_ref_model_savedmodel", "input_1", *spoken_digits())
    calibration, judged = images(96, [first, *face], others, 1000)
    yield _Case(
        "visual wake words", "mlperf_tiny/vww_96_float.tflite", "input_1", calibration / 255, judged / 255
    )
    calibration, judged = images(128, [first, *face, others[0]], others[1:], 300)
    yield _Case(
        "face detection",
        "face/face_detection_short_range.tflite",
        "input",
        calibration / np.float32(127.5) - 1,
        judged / np.float32(127.5) - 1,
    )
    # One face: the squares that are judged are others than those that were calibrated on.
    calibration, judged = images(192, face, face, 300)
    yield _Case("face landmarks", "face/face_landmark.tflite", "input_1", calibration / 255, judged / 255)


if __name__ == "__main__":
    run_verb(int8_quality)
