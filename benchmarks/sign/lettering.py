"""Translations drawn where the text was, so that they look printed there."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw

from benchmarks.sign.fonts import font_of
from benchmarks.sign.layout import Block, LineFrame, ink_share, laid_out, neighbours_of
from benchmarks.sign.quads import check_lines, side_lengths
from edge_runtime import operator
from edge_runtime.tensor_spec import Array

__all__ = ["sign_letter"]

# Blur that drawing and turning a letter bring with them, pixels.
_OWN_BLUR = 0.45
# Colours darker than this, 0..255, say little of the light.
_DARK = 10.0


@operator(
    "sign-letter",
    takes={
        "image": "uint8[height, width, 3]",
        "quads": "float32[n, 4, 2]",
        "texts": "text[n]",
        "sources": "text[n]",
        "fonts": "text[n]",
        "inks": "uint8[n, 3]",
        "papers": "uint8[n, 3]",
        "extents": "float32[n, 4]",
        "softness": "float32[n]",
        "weights": "float32[n]",
    },
    gives={"image": "uint8[height, width, 3]"},
)
def sign_letter(
    image: Array,
    quads: Array,
    texts: Array,
    sources: Array,
    fonts: Array,
    inks: Array,
    papers: Array,
    extents: Array,
    softness: Array,
    weights: Array,
) -> Array:
    """The image with text on it.

    The font is fitted to where the source's ink was: its size, its width and its baseline; the text has the same as
    far as it fits. Text that is longer grows into free paper on both sides, then it is condensed by a fifth at most,
    then it is smaller, or set in two lines where there is room. The ink is as bright as the paper is there, as
    soft as the source was, and has the paper's grain.

    Args:
        image: RGB, with the sources erased. It is left as it is.
        quads: Corners of each line, clockwise from the top left of its text, points (x, y) in pixels.
        texts: What to draw; an empty text leaves its place empty.
        sources: What was there.
        fonts: Class of each line's font, one of `FONT_CLASSES`.
        inks: Colour of each line's ink.
        papers: Colour of each line's paper.
        extents: Box of each source's ink, as shares of its line's height and width, as `sign-ink` gives it.
        softness: Standard deviation of the blur of each source's edges, as a share of its line's height.
        weights: Share of each source's box that was ink, at the strength of `inks`.

    Raises:
        HybridgeError: `input-shape` when there are not as many quadrilaterals as of anything else; `input-invalid`
            for a class that is none.
    """
    each = {"texts": texts, "sources": sources, "fonts": fonts, "inks": inks, "papers": papers}
    check_lines(image, quads, **each, extents=extents, softness=softness, weights=weights)
    frames = [LineFrame.of(quad, extent) for quad, extent in zip(quads, extents, strict=True)]
    drawn = image.copy()
    for index, frame in enumerate(frames):
        text, source = str(texts[index]).strip(), str(sources[index]).strip()
        if frame is None or not text:
            continue
        font_class, soft = str(fonts[index]), float(np.clip(softness[index], 0, 0.2))
        paper = papers[index].astype(np.float32)
        # Strokes thinner than their blur look paler than their ink is; how much of it there is has not changed.
        faded = float(weights[index]) / ink_share(source or text, font_class)
        ink = paper + (inks[index] - paper) * np.float32(np.clip(faded, 1.0, 1.0 + 8 * soft))
        near = neighbours_of(index, frames)
        for block in laid_out(image, frame, text, source, font_class, near):
            _print(drawn, frame, block, ink, paper, soft * side_lengths(quads[index])[0])
    return drawn


def _print(image: Array, frame: LineFrame, block: Block, ink: Array, paper: Array, blur: float) -> None:
    # Small letters are drawn at twice their size, so that turning them costs no sharpness.
    oversampled = 2.0 if block.size < 48 else 1.0
    pixels = max(4, round(block.size * oversampled))
    glyphs, origin = _glyphs(block.text, block.font_class, pixels)
    spread = np.sqrt(max(blur**2 - _OWN_BLUR**2, 0.0)) * pixels / block.size
    if spread > 0.25:
        glyphs = cv2.GaussianBlur(glyphs, (0, 0), float(spread))
    unit = block.size / pixels
    place = np.array(
        [
            (unit * block.stretch, 0, block.left - origin[0] * unit * block.stretch),
            (0, unit, block.baseline - origin[1] * unit),
            (0, 0, 1),
        ]
    )
    turn = frame.to_image @ place
    height, width = glyphs.shape
    corners = np.array([[(0, 0), (width, 0), (width, height), (0, height)]], np.float64)
    outline = cv2.perspectiveTransform(corners, turn)[0]
    left, top = np.maximum(np.floor(outline.min(0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(outline.max(0)).astype(int) + 2, image.shape[1::-1])
    if right - left < 1 or bottom - top < 1:
        return
    part = image[top:bottom, left:right]
    turn = np.array([(1, 0, -left), (0, 1, -top), (0, 0, 1)], np.float64) @ turn
    alpha = cv2.warpPerspective(glyphs, turn, (int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR)
    window = max(3, round(0.4 * block.size)) | 1
    ground = cv2.blur(part, (window, window)).astype(np.float32)
    # One figure for all colours: of a colour that the paper has little of, little can be said.
    strength = float(paper @ paper) + _DARK**2
    light = cv2.transform(ground, np.append(paper, _DARK**2).reshape(1, 4) / strength)
    light = np.clip(light, 0.25, 1.25)[:, :, np.newaxis]
    # The difference is added: the grain of the paper stays on the ink.
    change = (np.clip(ink * light, 0, 255) - ground) * (alpha * np.float32(1 / 255))[:, :, np.newaxis]
    part[:] = cv2.add(part, change, dtype=cv2.CV_8U)


@lru_cache(maxsize=64)
def _glyphs(text: str, font_class: str, size: int) -> tuple[Array, tuple[float, float]]:
    """A text's coverage, uint8, with room for blur around it, and where in it its pen starts."""
    font = font_of(font_class, size)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text, anchor="ls"))
    edge = max(4, size // 4)
    picture = Image.new("L", (right - left + 2 * edge, bottom - top + 2 * edge), 0)
    origin = edge - left, edge - top
    ImageDraw.Draw(picture).text(origin, text, fill=255, font=font, anchor="ls")
    return np.asarray(picture), origin
