"""A sign seen straight on: its board, its border, and its lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from benchmarks.sign.drawing.noise import octaves
from benchmarks.sign.drawing.styles import Colour, SignStyle
from benchmarks.sign.fonts import source_faces, source_font
from edge_runtime.tensor_spec import Array

__all__ = ["Board", "BoardLine", "draw_board"]

# Of the first drawing, in which lines are measured; the board is then drawn at the size that is asked for.
_MEASURE = 100


@dataclass(frozen=True, slots=True)
class BoardLine:
    """A line of text on a board: the corners of its ink (clockwise from top left, pixels), and how it is drawn."""

    text: str
    corners: Array
    font_class: str
    ink: Colour
    paper: Colour


@dataclass(frozen=True, slots=True)
class Board:
    """A board, uint8 (height, width, 3), where it is solid, uint8 (height, width), and its lines."""

    image: Array
    solid: Array
    lines: tuple[BoardLine, ...]


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    font_class: str
    face: str
    size: float
    stretch: float
    width: float
    ink: Colour
    paper: Colour


def draw_board(
    texts: Sequence[str], style: SignStyle, within: tuple[int, int], random: np.random.Generator
) -> Board:
    """Draws a sign as large as fits.

    Args:
        texts: Its lines, from the top.
        style: The kind of sign.
        within: Height and width that it may take, pixels.
        random: Where every choice comes from.
    """
    paper, ink = style.colours[random.integers(len(style.colours))]
    lines = _lines(texts, style, (paper, ink), random)
    leading = random.uniform(1.15, 1.5)
    height, width = _block(lines, leading)
    # Room around the text, more where the shape cuts corners.
    cut = {"octagon": 0.55, "pill": 0.3}.get(style.shape, 0.0)
    room = _MEASURE * random.uniform(0.5, 0.9)
    full_height = height + 2 * room + cut * (height if style.shape == "octagon" else 0.3 * height)
    full_width = width + 2 * room + cut * (width if style.shape == "octagon" else height)
    if style.shape == "octagon":
        full_height = full_width = max(full_height, full_width)
    full_width = max(full_width, 0.8 * full_height)
    scale = min(within[0] / full_height, within[1] / full_width, 3.2)
    size = max(8, round(full_height * scale)), max(8, round(full_width * scale))
    image, solid = _blank(size, style, (paper, ink), random)
    top = (size[0] - height * scale) / 2
    drawing = ImageDraw.Draw(image)
    if style.band and len(lines) > 1:
        # The first line is in the band; the rest has what is left below.
        bottom = round(top + lines[0].size * (1 + leading) / 2 * scale)
        lines[0] = _recoloured(lines[0], style.band)
        drawing.rectangle((0, 0, size[1], bottom), fill=style.band[0])
    left_aligned = len(lines) > 1 and style.shape in ("plate", "rounded") and random.random() < 0.3
    drawn = []
    for line in lines:
        left = room * scale if left_aligned else (size[1] - line.width * scale) / 2
        drawn.append(_draw_line(image, line, scale, (left, top)))
        top += line.size * leading * scale
    return Board(_worn(np.asarray(image), style.surface, random), np.asarray(solid), tuple(drawn))


def _lines(
    texts: Sequence[str], style: SignStyle, colours: tuple[Colour, Colour], random: np.random.Generator
) -> list[_Line]:
    classes = random.choice(style.font_classes, 2)
    capitals = random.random() < style.capitals
    stretch = random.uniform(0.85, 1.0) if random.random() < 0.35 else 1.0
    lines: list[_Line] = []
    for index, text in enumerate(texts):
        # A sign has one font, or one for its first line and one for the rest.
        font_class = str(classes[0 if index == 0 else 1])
        if index == 1 and random.random() < 0.6:
            classes[1], font_class = classes[0], str(classes[0])
        faces = source_faces(font_class)
        face = lines[-1].face if lines and lines[-1].font_class == font_class else str(random.choice(faces))
        shown = text.upper() if capitals else text
        width = source_font(face, _MEASURE).getlength(shown) * stretch
        # Long lines are set smaller, as on real signs, and the first often larger.
        size = _MEASURE * min(1.0, 14 * _MEASURE * 0.55 / max(width, 1.0)) ** 0.6
        size *= random.uniform(1.0, 1.5) if index == 0 and len(texts) > 1 else 1.0
        if index > 1:
            size = min(size, lines[-1].size)
        lines.append(
            _Line(shown, font_class, face, size, stretch, width * size / _MEASURE, colours[1], colours[0])
        )
    return lines


def _block(lines: Sequence[_Line], leading: float) -> tuple[float, float]:
    height = sum(line.size for line in lines[:-1]) * leading + lines[-1].size
    return height, max(line.width for line in lines)


def _recoloured(line: _Line, colours: tuple[Colour, Colour]) -> _Line:
    return _Line(
        line.text, line.font_class, line.face, line.size, line.stretch, line.width, colours[1], colours[0]
    )


def _blank(
    size: tuple[int, int], style: SignStyle, colours: tuple[Colour, Colour], random: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    """The board without text, and where it is solid."""
    height, width = size
    paper, ink = colours
    solid = Image.new("L", (width, height), 0)
    _shape(ImageDraw.Draw(solid), style.shape, (0, 0, width - 1, height - 1), 255)
    image = Image.new("RGB", (width, height), paper)
    border = style.border * min(size) * random.uniform(0.7, 1.4)
    if border >= 0.5:
        drawing = ImageDraw.Draw(image)
        inset = border * style.inset
        for distance, colour in ((inset, ink), (inset + max(border, 1.0), paper)):
            inner = (distance, distance, width - 1 - distance, height - 1 - distance)
            if inner[0] < inner[2] and inner[1] < inner[3]:
                _shape(drawing, style.shape, inner, colour)
    return image, solid


def _shape(
    drawing: ImageDraw.ImageDraw,
    shape: str,
    box: tuple[float, float, float, float],
    colour: Colour | int,
) -> None:
    left, top, right, bottom = box
    short = min(right - left, bottom - top)
    if shape == "octagon":
        cut_x, cut_y = (right - left) * 0.293, (bottom - top) * 0.293
        points = [
            (left + cut_x, top), (right - cut_x, top), (right, top + cut_y), (right, bottom - cut_y),
            (right - cut_x, bottom), (left + cut_x, bottom), (left, bottom - cut_y), (left, top + cut_y),
        ]  # fmt: skip
        drawing.polygon(points, fill=colour)
    elif shape == "plate":
        drawing.rectangle(box, fill=colour)
    else:
        drawing.rounded_rectangle(box, radius=short * (0.5 if shape == "pill" else 0.1), fill=colour)


def _draw_line(image: Image.Image, line: _Line, scale: float, at: tuple[float, float]) -> BoardLine:
    """Draws a line whose em square starts at (left, top), and says where its ink is."""
    font = source_font(line.face, max(4, round(line.size * scale)))
    baseline = at[1] + font.size * 0.78
    left, top, right, bottom = (round(edge) for edge in font.getbbox(line.text, anchor="ls"))
    # What Pillow calls a box has the room before and after the letters in it: the ink is looked for.
    glyphs = Image.new("L", (right - left + 8, bottom - top + 8), 0)
    ImageDraw.Draw(glyphs).text((4 - left, 4 - top), line.text, fill=255, font=font, anchor="ls")
    if line.stretch != 1.0:
        width = max(1, round(glyphs.width * line.stretch))
        glyphs = glyphs.resize((width, glyphs.height), Image.Resampling.BILINEAR)
    x, y = round(at[0] + (left - 4) * line.stretch), round(baseline) + top - 4
    image.paste(line.ink, (x, y), glyphs)
    left, top, right, bottom = glyphs.point(lambda value: 255 if value > 127 else 0).getbbox() or (0, 0, 1, 1)
    left, top, right, bottom = left + x, top + y, right + x, bottom + y
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)
    return BoardLine(line.text, corners, line.font_class, line.ink, line.paper)


def _worn(image: Array, surface: str, random: np.random.Generator) -> Array:
    """The board with the grain of what it is made of: a gain a pixel, the same for paper and ink."""
    size = image.shape[:2]
    short = min(size)
    if surface == "wood":
        grain = octaves(size, (short / 3, short / 40), (0.6, 0.5), random, stretch=(1.0, 14.0)) * 0.09
    elif surface == "metal":
        grain = octaves(size, (short / 90,), (1.0,), random, stretch=(1.0, 60.0)) * 0.025
    elif surface == "slate":
        grain = octaves(size, (short / 2, short / 12), (1.0, 0.5), random, stretch=(1.0, 2.0)) * 0.07
    else:
        strength = 0.012 if surface == "enamel" else 0.03
        grain = octaves(size, (short / 1.5, short / 6), (1.0, 0.6), random) * strength
    gain = cv2.merge([grain + 1.0] * 3)
    worn: Array = cv2.multiply(image, gain, dtype=cv2.CV_8UC3)
    return worn
