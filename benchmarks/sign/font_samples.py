"""Lines of text in every font class, as cameras see them, for the font model to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from benchmarks.sign.drawing.light import random_camera
from benchmarks.sign.drawing.styles import STYLES
from benchmarks.sign.fonts import FONT_CLASSES, source_faces, source_font
from benchmarks.sign.ink import sign_ink
from edge_runtime.tensor_spec import Array

__all__ = ["FontSamples", "font_samples"]

_CROP_HEIGHT = 48
# A strip shows no more letters.
_LETTERS = 14


@dataclass(frozen=True, slots=True)
class FontSamples:
    """Strips as `sign-ink` gives them, uint8 (n, 48, 160, 1), and the index of the class of each, int64 (n,)."""

    strips: Array
    labels: Array


def font_samples(count: int, texts: Sequence[str], *, seed: int = 0) -> FontSamples:
    """As many lines of each class as of any other, through the camera of the scenes and the operator of the chain.

    Args:
        count: How many.
        texts: What they say; also in capitals, and in part.
        seed: The same seed gives the same samples.
    """
    strips, labels = [], np.arange(count) % len(FONT_CLASSES)
    for index in range(count):
        random = np.random.default_rng((seed, index))
        text = _text(str(texts[int(random.integers(len(texts)))]), random)
        strips.append(sign_ink(_crop(text, FONT_CLASSES[labels[index]], random))["strip"])
    return FontSamples(np.stack(strips), labels.astype(np.int64))


def _text(text: str, random: np.random.Generator) -> str:
    chance = random.random()
    if chance < 0.35:
        text = text.upper()
    elif chance < 0.45:
        text = text.lower()
    elif chance < 0.55:
        text = text.title()
    start = int(random.integers(max(1, len(text) - _LETTERS + 1)))
    return text[start : start + _LETTERS].strip() or text[:_LETTERS]


def _crop(text: str, font_class: str, random: np.random.Generator) -> Array:
    """A line as it is cut out of a picture: of any size there, blurred and noisy, and not quite straight."""
    face = str(random.choice(source_faces(font_class)))
    # Of the letters in the picture; the camera's blur is that of a picture of 360 lines.
    size = float(np.exp(random.uniform(np.log(11), np.log(70))))
    font = source_font(face, 64)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text, anchor="ls"))
    stretch = random.uniform(0.8, 1.08)
    style = STYLES[int(random.integers(len(STYLES)))]
    paper, ink = style.colours[int(random.integers(len(style.colours)))]
    edge = 24
    board = Image.new("RGB", (right - left + 2 * edge, bottom - top + 2 * edge), paper)
    ImageDraw.Draw(board).text((edge - left, edge - top), text, fill=ink, font=font, anchor="ls")
    scale = size / 64
    small = np.asarray(board)
    seen = (max(8, round(small.shape[1] * scale * stretch)), max(8, round(small.shape[0] * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    picture = cv2.resize(small, seen, interpolation=way).astype(np.float32) * random.uniform(0.4, 1.05)
    if random.random() < 0.3:
        # A shadow across.
        picture[:, int(random.uniform(0, 1) * seen[0]) :] *= random.uniform(0.4, 0.9)
    taken = random_camera((360, 640), random).take(picture, random)
    # Glyphs in the middle, with as little or as much paper around as a detector leaves.
    across, down = scale * stretch, scale
    box = np.array([edge * across, edge * down, seen[0] - edge * across, seen[1] - edge * down])
    margin = (box[3] - box[1]) * random.uniform(0.0, 0.22, 4)
    box += margin * (-1, -1, 1, 1)
    tilt = random.normal(0, 0.03) * (box[3] - box[1])
    quad = np.array([(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])], np.float32)
    quad += np.array([(tilt, 0), (tilt, 0), (-tilt, 0), (-tilt, 0)], np.float32)
    quad += random.normal(0, 0.012, (4, 2)).astype(np.float32) * (box[3] - box[1])
    width = max(8, round((box[2] - box[0]) / (box[3] - box[1]) * _CROP_HEIGHT))
    upright = np.array([(0, 0), (width, 0), (width, _CROP_HEIGHT), (0, _CROP_HEIGHT)], np.float32)
    turn = cv2.getPerspectiveTransform(quad, upright)
    crop: Array = cv2.warpPerspective(
        taken, turn, (width, _CROP_HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return crop
