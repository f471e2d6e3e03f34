"""Lines and pages of text, drawn, and read again from a recogniser's scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from edge_runtime.tensor_spec import Array

__all__ = ["lines", "pages", "read"]

_WORDS = [
    "Exit",
    "Platform",
    "12",
    "Departures",
    "open",
    "24h",
    "Gate",
    "B7",
    "Restaurant",
    "Museum",
    "closed",
    "Monday",
    "Ticket",
    "3.50",
    "EUR",
    "No",
    "parking",
    "Room",
    "418",
    "Hospital",
    "Emergency",
    "Railway",
    "Station",
    "Airport",
    "Terminal",
    "2",
    "Taxi",
    "Bus",
    "stop",
    "Sale",
    "30%",
    "off",
    "Fresh",
    "bread",
    "Coffee",
    "&",
    "Tea",
    "Pharmacy",
    "Push",
    "Pull",
    "Danger",
    "High",
    "voltage",
    "Keep",
    "left",
    "Speed",
    "limit",
    "80",
    "km/h",
    "Warning",
    "Wet",
    "floor",
    "Information",
    "Toilets",
    "Lift",
    "Stairs",
]


def lines(count: int, *, size: tuple[int, int] = (48, 320), seed: int = 0) -> tuple[Array, list[str]]:
    """Lines of text as a recogniser takes them, and what they say.

    As PP-OCR prepares them: cut out closely, scaled to the height, -1..1, and filled up with zeros on the right.

    Returns:
        Images of shape (count, 3, height, width), and texts.
    """
    random = np.random.default_rng(seed)
    fonts = _fonts()
    images, texts = [], []
    for _ in range(count):
        text = " ".join(random.choice(_WORDS, int(random.integers(1, 4))))[:22].strip()
        image = _line(random, fonts[int(random.integers(len(fonts)))], text, size)
        pixels = np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1.0
        images.append(np.pad(pixels, [(0, 0), (0, 0), (0, size[1] - pixels.shape[2])]))
        texts.append(text)
    return np.stack(images).astype(np.float32), texts


def pages(count: int, *, size: tuple[int, int] = (320, 320), seed: int = 1) -> Array:
    """Signs with several lines as a detector takes them, (count, 3, height, width), normalised as its authors do."""
    random = np.random.default_rng(seed)
    fonts = _fonts()
    images = []
    for _ in range(count):
        page = Image.new("RGB", size[::-1], tuple(random.integers(120, 256, 3).tolist()))
        for top in range(20, size[0] - 60, 70):
            text = " ".join(random.choice(_WORDS, 2))
            width = int(random.integers(160, size[1] - 30))
            line = _line(random, fonts[int(random.integers(len(fonts)))], text, (40, width))
            page.paste(line, (int(random.integers(0, size[1] - line.width)), top))
        pixels = np.asarray(page, np.float32) / 255.0
        scaled = (pixels - np.array([0.485, 0.456, 0.406], np.float32)) / np.array(
            [0.229, 0.224, 0.225], np.float32
        )
        images.append(scaled.transpose(2, 0, 1))
    return np.stack(images).astype(np.float32)


def read(scores: Array, characters: Sequence[str]) -> str:
    """The text of one line: the best class of each step, repetitions and blanks left out (CTC, Graves et al. 2006)."""
    best = scores.argmax(-1)
    kept = [each for index, each in enumerate(best) if each and (index == 0 or each != best[index - 1])]
    return "".join(characters[each] for each in kept).strip()


def _fonts() -> list[ImageFont.FreeTypeFont]:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    names = (
        "DejaVuSans",
        "DejaVuSans-Bold",
        "DejaVuSerif",
        "DejaVuSansMono",
        "STIXGeneral",
        "DejaVuSans-Oblique",
    )
    return [ImageFont.truetype(str(folder / f"{name}.ttf"), 30) for name in names]


def _line(
    random: np.random.Generator, font: ImageFont.FreeTypeFont, text: str, size: tuple[int, int]
) -> Image.Image:
    """Dark on light or light on dark, a little turned, blurred, noisy; as wide as its text, at most of that size."""
    left, top, right, bottom = font.getbbox(text)
    height, width = size
    drawn_width, drawn_height = int(right - left) + 12, int(bottom - top) + 12
    paper, ink = random.integers(150, 256, 3), random.integers(0, 90, 3)
    if random.random() < 0.3:
        paper, ink = ink, paper
    image = Image.new("RGB", (drawn_width, drawn_height), tuple(paper.tolist()))
    ImageDraw.Draw(image).text((6 - left, 6 - top), text, font=font, fill=tuple(ink.tolist()))
    image = image.rotate(float(random.uniform(-1.5, 1.5)), fillcolor=tuple(paper.tolist()))
    scaled = image.resize(
        (min(width, max(1, drawn_width * height // drawn_height)), height), Image.Resampling.BILINEAR
    )
    scaled = scaled.filter(ImageFilter.GaussianBlur(float(random.uniform(0, 0.8))))
    pixels = np.asarray(scaled, np.float32)
    noisy = pixels + random.normal(0, float(random.uniform(0, 8)), pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
