"""Where a translation goes: at what size, how wide, how far to the left, in one line or in two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw

from benchmarks.sign.fonts import font_of
from benchmarks.sign.quads import side_lengths
from edge_runtime.tensor_spec import Array

__all__ = ["Block", "LineFrame", "ink_share", "laid_out", "neighbours_of"]

Box = tuple[float, float, float, float]

# Fonts are measured at this size.
_MEASURE = 100
# The least that letters are condensed to, of the source's width, and how narrow or wide sources can be in a font.
_CONDENSED, _STRETCH = 0.8, (0.68, 1.35)
# Lines this much smaller are set in two, if that makes them larger by the second figure.
_SPLIT_BELOW, _SPLIT_GAIN = 0.72, 1.15
# Paper is looked at in steps of this share of the ink's height, and this close to its end nothing is drawn.
_STEP, _EDGE = 0.12, 0.35
# Difference of colour, 0..255, at which the paper ends.
_ENDS = 10.0


@dataclass(frozen=True, slots=True)
class LineFrame:
    """A line in upright coordinates, about as large as it is in the image.

    Attributes:
        to_image: Homography from upright coordinates to the image's.
        ink: Box of the source's ink in upright coordinates (left, top, right, bottom).
        quad: The line's corners in the image.
    """

    to_image: Array
    ink: Box
    quad: Array

    @classmethod
    def of(cls, quad: Array, extent: Array) -> LineFrame | None:
        """From a quadrilateral and its ink's box as shares of it; None for what cannot hold text."""
        height, width = side_lengths(quad)
        if not (np.isfinite(quad).all() and np.isfinite(extent).all() and height >= 3 and width >= 3):
            return None
        upright = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        to_image = cv2.getPerspectiveTransform(upright, quad.astype(np.float32))
        if not np.isfinite(to_image).all() or abs(np.linalg.det(to_image)) < 1e-6:
            return None
        top, left, bottom, right = (float(each) for each in np.clip(extent, 0, 1))
        if bottom - top < 0.1 or right <= left:
            top, left, bottom, right = 0.0, 0.0, 1.0, 1.0
        return cls(to_image, (left * width, top * height, right * width, bottom * height), quad)

    @property
    def height(self) -> float:
        """Height of the ink."""
        return self.ink[3] - self.ink[1]


@dataclass(frozen=True, slots=True)
class Block:
    """A text at its place in a line's upright coordinates.

    Attributes:
        text: What is drawn.
        font_class: In what.
        size: Height of the em square.
        stretch: Factor on the width of the letters.
        left: Where the pen starts.
        baseline: On what it moves.
    """

    text: str
    font_class: str
    size: float
    stretch: float
    left: float
    baseline: float


def neighbours_of(index: int, frames: Sequence[LineFrame | None]) -> list[Box]:
    """Boxes of the other lines' ink in the upright coordinates of one."""
    frame = frames[index]
    assert frame is not None  # noqa: S101 - it is only asked for lines that there are
    back = np.linalg.inv(frame.to_image)
    boxes = []
    for other, each in enumerate(frames):
        if other == index or each is None:
            continue
        left, top, right, bottom = each.ink
        corners = np.array([[(left, top), (right, top), (right, bottom), (left, bottom)]], np.float64)
        points = cv2.perspectiveTransform(corners, back @ each.to_image)[0]
        low, high = points.min(0), points.max(0)
        boxes.append((float(low[0]), float(low[1]), float(high[0]), float(high[1])))
    return boxes


def laid_out(
    image: Array, frame: LineFrame, text: str, source: str, font_class: str, neighbours: Sequence[Box]
) -> list[Block]:
    """The text in place of the source, in one block or two.

    Args:
        image: The picture without the source.
        frame: The source's line.
        text: What to set.
        source: What was there.
        font_class: What to set it in.
        neighbours: Boxes of other lines' ink, in this line's upright coordinates.
    """
    fitted = _fitted(frame, source or text, font_class)
    room = _room(image, frame, neighbours)
    at_left = _at_left(frame, neighbours)
    one, scale = _in_room(replace(fitted, text=text), frame, room, at_left)
    if scale < _SPLIT_BELOW and " " in text:
        two = _in_two(replace(fitted, text=text), frame, room, at_left)
        if two[0].size > _SPLIT_GAIN * one.size:
            return two
    return [one]


def _fitted(frame: LineFrame, source: str, font_class: str) -> Block:
    """The source itself as it was: what font size, width and baseline its ink had."""
    left, top, right, bottom = _ink_box(source, font_class)
    size = frame.height * _MEASURE / max(bottom - top, 1.0)
    unit = size / _MEASURE
    stretch = (frame.ink[2] - frame.ink[0]) / max((right - left) * unit, 1.0)
    # Words that were read wrongly, or a class that is wrong, do not make letters absurd.
    stretch = float(np.clip(stretch, *_STRETCH))
    return Block(source, font_class, size, stretch, frame.ink[0] - left * unit, frame.ink[3] - bottom * unit)


def _in_room(block: Block, frame: LineFrame, room: Box, at_left: bool) -> tuple[Block, float]:
    """The block's text at the source's place, as large as the room allows, and its size as a share of the source's."""
    left, top, right, _ = _ink_box(block.text, block.font_class)
    wide = (right - left) * block.size / _MEASURE * block.stretch
    free = max(room[2] - room[0], 1.0)
    condensed = float(np.clip(free / wide, _CONDENSED, 1.0))
    smaller = min(1.0, free / (wide * condensed))
    size, stretch = block.size * smaller, block.stretch * condensed
    wide *= condensed * smaller
    start = frame.ink[0] if at_left else (frame.ink[0] + frame.ink[2] - wide) / 2
    start = min(max(start, room[0]), max(room[2] - wide, room[0]))
    # Smaller letters stay in the middle of where the large ones were.
    capital = -_ink_box("H", block.font_class)[1] / _MEASURE
    baseline = block.baseline - capital * (block.size - size) / 2
    # Accents on capitals and letters below the line may be more than the sign's paper has room for.
    baseline += max(0.0, room[1] - (baseline + top * size / _MEASURE))
    pen = start - left * size / _MEASURE * stretch
    return replace(block, size=size, stretch=stretch, left=pen, baseline=baseline), smaller


def _in_two(block: Block, frame: LineFrame, room: Box, at_left: bool) -> list[Block]:
    """The text in two lines around the middle of the source."""
    words = block.text.split(" ")
    halves = [(" ".join(words[:cut]), " ".join(words[cut:])) for cut in range(1, len(words))]
    best = min(halves, key=lambda half: max(_width(each, block.font_class) for each in half))
    tall = min(room[3] - room[1], 2.4 * frame.height)
    capital = -_ink_box("H", block.font_class)[1] / _MEASURE
    leading = 1.12
    size = min(block.size, tall / (leading + capital + 0.1))
    laid = [_in_room(replace(block, text=each, size=size), frame, room, at_left)[0] for each in best]
    size = min(each.size for each in laid)
    laid = [
        _in_room(replace(block, text=each, size=size), frame, (room[0], -1e9, room[2], 1e9), at_left)[0]
        for each in best
    ]
    # Both as condensed as the longer one, around the middle.
    stretch = min(each.stretch for each in laid)
    middle = float(
        np.clip(
            (frame.ink[1] + frame.ink[3]) / 2, room[1] + tall / 2, max(room[3] - tall / 2, room[1] + tall / 2)
        )
    )
    first = middle + (capital - leading) * size / 2
    lines = []
    for number, each in enumerate(laid):
        lost = (each.stretch - stretch) * _width(each.text, block.font_class) * size / _MEASURE
        shift = 0.0 if at_left else lost / 2
        lines.append(
            replace(each, stretch=stretch, left=each.left + shift, baseline=first + number * leading * size)
        )
    return lines


def _width(text: str, font_class: str) -> float:
    left, _, right, _ = _ink_box(text, font_class)
    return right - left


def ink_share(text: str, font_class: str) -> float:
    """The share of a text's box that is ink."""
    return _measured(text, font_class)[1]


def _ink_box(text: str, font_class: str) -> Box:
    """The box of a text's ink beside the start of its pen on the baseline, at the size of measuring."""
    return _measured(text, font_class)[0]


@lru_cache(maxsize=512)
def _measured(text: str, font_class: str) -> tuple[Box, float]:
    font = font_of(font_class, _MEASURE)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text, anchor="ls"))
    picture = Image.new("1", (right - left + 40, bottom - top + 40), 0)
    ImageDraw.Draw(picture).text((20 - left, 20 - top), text, fill=1, font=font, anchor="ls")
    found = picture.getbbox()
    if found is None:
        return (float(left), float(top), float(max(right, left + 1)), float(max(bottom, top + 1))), 1.0
    dx, dy = left - 20, top - 20
    box = float(found[0] + dx), float(found[1] + dy), float(found[2] + dx), float(found[3] + dy)
    return box, float(np.asarray(picture).sum()) / ((box[2] - box[0]) * (box[3] - box[1]))


def _at_left(frame: LineFrame, neighbours: Sequence[Box]) -> bool:
    """Whether the line begins where one above or below it does, rather than having the same middle."""
    left, top, right, bottom = frame.ink
    for box in neighbours:
        if max(box[1] - bottom, top - box[3]) > 6.0 * frame.height or min(box[2], right) <= max(box[0], left):
            continue
        centre = abs((box[0] + box[2]) - (left + right)) / 2
        if abs(box[0] - left) < min(0.6 * frame.height, 0.35 * centre):
            return True
    return False


def _room(image: Array, frame: LineFrame, neighbours: Sequence[Box]) -> Box:
    """How far the paper around the source is free, in upright coordinates; at least where the source was."""
    left, top, right, bottom = frame.ink
    tall = frame.height
    edge, gap = _EDGE * tall, 0.5 * tall
    reach = min(right - left, 12 * tall)
    free = [
        left - _free(image, frame, (left, (top, bottom)), -reach, across=True) + edge,
        top - _free(image, frame, (top, (left, right)), -1.2 * tall, across=False) + 0.35 * tall,
        right + _free(image, frame, (right, (top, bottom)), reach, across=True) - edge,
        bottom + _free(image, frame, (bottom, (left, right)), 1.2 * tall, across=False) - 0.35 * tall,
    ]
    for box in neighbours:
        # Where a line above or below is, there is paper, whatever shadow is between.
        if max(box[1] - bottom, top - box[3]) < 2.5 * tall and min(box[2], right) > max(box[0], left):
            free[0], free[2] = min(free[0], box[0]), max(free[2], box[2])
    for box in neighbours:
        beside = min(box[3], bottom) - max(box[1], top) > 0.15 * tall
        if beside and box[0] > (left + right) / 2:
            free[2] = min(free[2], box[0] - gap)
        elif beside and box[2] < (left + right) / 2:
            free[0] = max(free[0], box[2] + gap)
        elif not beside and min(box[2], free[2]) > max(box[0], free[0]):
            # Half of what is between two lines belongs to each.
            if box[1] > (top + bottom) / 2:
                free[3] = min(free[3], (bottom + box[1]) / 2 - 0.05 * tall)
            else:
                free[1] = max(free[1], (top + box[3]) / 2 + 0.05 * tall)
    return min(free[0], left), min(free[1], top), max(free[2], right), max(free[3], bottom)


def _free(
    image: Array, frame: LineFrame, start: tuple[float, tuple[float, float]], reach: float, *, across: bool
) -> float:
    """How far from a side of the source paper goes on.

    Args:
        image: The picture without the source.
        frame: The source's line.
        start: Where the side is, and from where to where it goes.
        reach: How far to look, negative to the left and up.
        across: Whether to look left or right rather than up or down.
    """
    at, (low, high) = start
    step = max(_STEP * frame.height, 0.75)
    count, beside = max(2, int(abs(reach) / step)), 8
    # One row for each step, beginning within the source, where all is paper.
    along = at + np.sign(reach) * step * (np.arange(-3, count) + 0.5)
    sideways = low + (high - low) * (np.arange(beside) + 0.5) / beside
    grid = np.stack(np.broadcast_arrays(along[:, np.newaxis], sideways[np.newaxis, :]), axis=-1)
    points = cv2.perspectiveTransform(
        (grid if across else grid[..., ::-1]).astype(np.float64), frame.to_image
    )
    points = points.astype(np.float32)
    size = np.array(image.shape[1::-1], np.float32)
    outside = ((points < 0) | (points > size - 1)).any(axis=(1, 2))
    seen = cv2.remap(image, points, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(
        np.float32
    )
    paper = seen[:3].mean(axis=0)
    for row in range(3, len(seen)):
        change = np.abs(seen[row] - paper)
        # The end of a sign crosses all samples, a corner some; single ones may be noise.
        ends = (
            np.abs((seen[row] - paper).mean(axis=0)).max() > _ENDS
            or np.sort(change.max(axis=1))[-3] > 3 * _ENDS
        )
        if outside[row] or ends:
            return (row - 3) * step
        paper += 0.25 * (seen[row] - paper)
    return float(abs(reach))
