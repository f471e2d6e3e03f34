"""What a reader of signs reads: texts drawn small, blurred and noisy, and read by the PP-OCRv4 recogniser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks.onnx_ocr.models import MODELS, characters, fetch
from benchmarks.onnx_ocr.text import read
from edge_runtime.tensor_spec import Array

__all__ = ["ocr_readings"]

_HEIGHT = 48
_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "STIXGeneralBol",
)


def ocr_readings(texts: Sequence[str], work: Path, *, seed: int = 0) -> list[str]:
    """Each text as the recogniser reads it.

    Args:
        texts: What the signs say.
        work: Folder of the recogniser, which is downloaded there if need be.
        seed: Of how the signs look.
    """
    import onnxruntime

    model = next(each for each in MODELS if each.name == "PP-OCRv4 recognition")
    path = fetch(model, work)
    known = characters(path, model)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    random = np.random.default_rng(seed)
    return [read(session.run(None, {name: _drawn(text, random)})[0][0], known) for text in texts]


def _drawn(text: str, random: np.random.Generator) -> Array:
    """A line as the recogniser takes it, float32 of shape (1, 3, 48, width)."""
    font = _font(str(random.choice(_FONTS)))
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    paper, ink = random.integers(120, 256, 3), random.integers(0, 100, 3)
    if random.random() < 0.4:
        paper, ink = ink, paper
    line = Image.new("RGB", (right - left + 16, bottom - top + 12), tuple(paper.tolist()))
    ImageDraw.Draw(line).text((8 - left, 6 - top), text, font=font, fill=tuple(ink.tolist()))
    line = line.rotate(
        float(random.uniform(-2, 2)), Image.Resampling.BILINEAR, fillcolor=tuple(paper.tolist())
    )
    # As far away as it can just be read, and farther.
    height = int(random.integers(11, 20))
    line = line.resize((max(1, line.width * height // line.height), height), Image.Resampling.BILINEAR)
    line = line.filter(ImageFilter.GaussianBlur(float(random.uniform(0.3, 0.9))))
    pixels = np.asarray(line, np.float32)
    noisy = (
        (pixels + random.normal(0, float(random.uniform(2, 14)), pixels.shape)).clip(0, 255).astype(np.uint8)
    )
    near = Image.fromarray(noisy).resize(
        (max(1, line.width * _HEIGHT // height), _HEIGHT), Image.Resampling.BICUBIC
    )
    scaled = np.asarray(near, np.float32).transpose(2, 0, 1) / 127.5 - 1.0
    drawn: Array = np.pad(scaled, [(0, 0), (0, 0), (0, max(0, 320 - scaled.shape[2]))])[np.newaxis]
    return drawn


def _font(name: str) -> Any:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), 40)
