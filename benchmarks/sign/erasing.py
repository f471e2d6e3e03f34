"""Text taken off a picture, so that only what it was printed on is left."""

from __future__ import annotations

import cv2
import numpy as np

from benchmarks.sign.quads import Reach, check_lines, ink_quad, reach_of, side_lengths
from edge_runtime import operator
from edge_runtime.tensor_spec import Array

__all__ = ["sign_erase"]

# How far around a line paper is looked for, in heights of the line.
_MARGIN = 0.6
# Faint ends of letters are at most this far from the rest of the ink.
_CUT = 0.25
# What is mostly this close is a letter.
_INSIDE = 0.1
# Lines are looked at in at most this height, pixels, and paper is spread in at most this one.
_LOOK, _BROAD = 28.0, 15.0
# Where blur hides paper, in shares of the way from paper to ink.
_HALO = 0.1
_PAIR, _AROUND = np.ones((2, 2), np.uint8), np.ones((3, 3), np.uint8)


@operator(
    "sign-erase",
    takes={
        "image": "uint8[height, width, 3]",
        "quads": "float32[n, 4, 2]",
        "inks": "uint8[n, 3]",
        "papers": "uint8[n, 3]",
        "extents": "float32[n, 4]",
        "softness": "float32[n]",
    },
    gives={"image": "uint8[height, width, 3]"},
)
def sign_erase(
    image: Array, quads: Array, inks: Array, papers: Array, extents: Array, softness: Array
) -> Array:
    """The image without the text of some lines.

    What is nearer to the ink than to the paper around it goes, with the blur of its edges. It is filled with the paper
    next to it, nearest first, which keeps light and shadows, and with that paper's grain.

    Args:
        image: RGB. It is left as it is.
        quads: Corners of each line, clockwise from the top left of its text, points (x, y) in pixels.
        inks: Colour of each line's ink.
        papers: Colour of each line's paper.
        extents: Box of each line's ink, as shares of its height and width, as `sign-ink` gives it.
        softness: Standard deviation of the blur of each line's edges, as a share of its height.

    Raises:
        HybridgeError: `input-shape` when there are not as many quadrilaterals as colours.
    """
    check_lines(image, quads, inks=inks, papers=papers, extents=extents, softness=softness)
    reaches = [_reach(quad, extent, image.shape[:2]) for quad, extent in zip(quads, extents, strict=True)]
    # All lines are found before any is filled, so that none is filled with what is left of another.
    gone, strange = np.zeros(image.shape[:2], np.uint8), np.zeros(image.shape[:2], np.uint8)
    for reach, ink, paper, soft in zip(reaches, inks, papers, softness, strict=True):
        if reach is not None:
            blur = float(np.clip(soft, 0, 0.15)) * reach.height
            colours = ink.astype(np.float64), paper.astype(np.float64)
            _mark(image, reach, colours, blur, (gone, strange))
    strange = cv2.subtract(strange, gone)
    erased = image.copy()
    for reach, paper in zip(reaches, papers, strict=True):
        if reach is not None:
            _fill(erased[reach.rows, reach.columns], reach, paper, gone, strange)
    return erased


def _reach(quad: Array, extent: Array, size: tuple[int, int]) -> Reach | None:
    """What is around the line's ink, so that a border in the same quadrilateral stays."""
    height, width = side_lengths(quad)
    if not (height > 0 and width > 0 and np.isfinite(quad).all()):
        return None
    top, left, bottom, right = np.clip(extent, 0, 1)
    # Ink that was not seen is letters in the shade rather than a wide border.
    near = 0.2 * height / width
    left, right = left if left < near else 0.0, right if right > 1 - near else 1.0
    if bottom - top < 0.2:
        top, bottom = 0.0, 1.0
    return reach_of(ink_quad(quad, np.array([top, left, bottom, right])), size, margin=_MARGIN)


def _mark(
    image: Array, reach: Reach, colours: tuple[Array, Array], blur: float, masks: tuple[Array, Array]
) -> None:
    """Marks the letters of a line with their soft edges, and what near them is neither letter nor paper.

    Args:
        image: Where the line is.
        reach: The line.
        colours: Of ink and paper.
        blur: Standard deviation of the blur of the letters' edges, pixels.
        masks: What is marked, in the whole image: letters, and the rest.
    """
    ink, paper = colours
    away = ink - paper
    length = float(away @ away)
    if length < 12.0:
        return
    # 0 where a pixel is as the paper, 1 where it is as the ink.
    along = np.append(away, -(away @ paper)).reshape(1, 4) / length
    here, size = (reach.rows, reach.columns), reach.size
    part = image[here]
    reach = reach.at_height(_LOOK)
    part = cv2.blur(cv2.resize(part, reach.size[::-1], interpolation=cv2.INTER_AREA), (3, 3))
    level = cv2.transform(part.astype(np.float32), along)
    blur *= part.shape[0] / size[0]
    above = level - _ground(level, 0.45 * reach.height + 3 * blur)
    window = _odd(1.3 * reach.height)
    within = cv2.copyTo(above, reach.polygon(_INSIDE))
    peak = cv2.blur(cv2.dilate(within, np.ones((window, window), np.uint8)), (window, window))
    noise = 3 * float(np.median(np.abs(level - cv2.blur(level, (3, 3)))))
    # Ink in the shade differs less from the paper there; taking a little too much is not seen afterwards.
    peak = cv2.max(cv2.min(peak, 1.0), max(0.2, 10 * noise))
    strong = cv2.compare(above, 0.33 * peak, cv2.CMP_GT)
    ours, others = _told_apart(strong, reach)
    if not ours.any():
        return
    # The blur of the letters is theirs, as far as it can reach.
    blurred = cv2.compare(
        level - _ground(level, 0.45 * reach.height + 6 * blur), cv2.max(_HALO * peak, noise), cv2.CMP_GT
    )
    wide = _disc(3 * blur + 0.04 * reach.height + 1)
    halo = cv2.bitwise_and(blurred, cv2.dilate(ours, wide))
    letters = cv2.dilate(cv2.bitwise_or(ours, halo), _disc(1.0 + 0.03 * reach.height))
    rest = cv2.bitwise_or(cv2.bitwise_and(blurred, cv2.dilate(others, wide)), others)
    if away.sum() > 0:
        # As bright as bright ink: another paper. What is as dark as dark ink may be the same paper in the shade.
        rest = cv2.bitwise_or(rest, cv2.compare(level, 0.75, cv2.CMP_GT))
    rest = cv2.bitwise_or(rest, _off_colour(part, paper, max(30.0, 0.3 * length**0.5)))
    for mask, found in zip(masks, (cv2.subtract(letters, others), cv2.dilate(rest, _disc(1.0))), strict=True):
        mask[here] |= _enlarged(found, size)


def _off_colour(part: Array, paper: Array, limit: float) -> Array:
    """Where a pixel is further than a limit from every shade of the paper, uint8, 0 or 255."""
    grey = float(np.linalg.norm(paper))
    # The shades of black are all greys.
    unit = paper / grey if grey > 60 else np.full(3, 3**-0.5)
    red, green, blue = cv2.split(cv2.transform(part.astype(np.float32), np.eye(3) - np.outer(unit, unit)))
    off: Array = cv2.compare(cv2.magnitude(cv2.magnitude(red, green), blue), limit, cv2.CMP_GT)
    return off


def _enlarged(mask: Array, size: tuple[int, int]) -> Array:
    if mask.shape == size:
        return mask
    soft = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_LINEAR)
    enlarged: Array = cv2.compare(soft, 64, cv2.CMP_GT)
    return enlarged


def _ground(level: Array, side: float) -> Array:
    """The level without what is narrower than a square of a side, such as strokes; light and shadows stay."""
    window = _odd(side)
    opened = cv2.morphologyEx(level, cv2.MORPH_OPEN, np.ones((window, window), np.uint8))
    ground: Array = cv2.blur(opened, (window, window))
    return ground


def _fill(part: Array, reach: Reach, paper: Array, all_gone: Array, all_strange: Array) -> None:
    gone = all_gone[reach.rows, reach.columns]
    # Another line fills what is far from this one.
    mine = cv2.bitwise_and(gone, reach.polygon(_CUT))
    if not mine.any():
        return
    known = cv2.subtract(cv2.subtract(reach.polygon(_MARGIN), gone), all_strange[reach.rows, reach.columns])
    if cv2.countNonZero(known) < 8:
        part[mine > 0] = paper
        return
    smooth = _filled(part, known, reach.height)
    grain = _grain(cv2.subtract(part, smooth, dtype=cv2.CV_32F), mine, known, reach)
    cv2.copyTo(cv2.add(smooth, grain, dtype=cv2.CV_8U), mine, part)


def _told_apart(strong: Array, reach: Reach) -> tuple[Array, Array]:
    """The letters of the line, and what else is like ink: other lines, the border of the sign."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(strong, connectivity=8)
    inside = np.bincount(labels[reach.polygon(_INSIDE) > 0], minlength=count)
    ours = inside > 0.45 * stats[:, cv2.CC_STAT_AREA]
    # A dot or an accent just outside belongs to the letter below it.
    within = np.bincount(labels[reach.polygon(_CUT) > 0], minlength=count)
    small = stats[:, cv2.CC_STAT_AREA] < 0.04 * reach.height**2
    ours |= small & (inside > 0.2 * stats[:, cv2.CC_STAT_AREA]) & (within == stats[:, cv2.CC_STAT_AREA])
    ours[0] = False
    # Specks elsewhere are grain.
    others = ~ours & (stats[:, cv2.CC_STAT_AREA] >= 0.015 * reach.height**2)
    others[0] = False
    table = np.stack([ours, others]).astype(np.uint8) * 255
    letters = table[0][labels]
    # A letter may touch a border or the edge of a shadow; where the ink is, it is letters.
    letters |= cv2.bitwise_and(strong, reach.polygon(0.03))
    return letters, cv2.subtract(table[1][labels], letters)


def _filled(part: Array, known: Array, height: float) -> Array:
    """A smooth picture of the known pixels, that goes on where there are none (normalised convolution, Knutsson 1993).

    Coarse scales first: a finer one takes over wherever it has enough to see.
    """
    full = known.shape[::-1]
    ratio = min(1.0, _BROAD / height)
    size = tuple(max(1, round(side * ratio)) for side in full)
    # Weighed before it is made smaller, so that no ink gets in.
    weighed = cv2.resize(
        cv2.bitwise_and(cv2.cvtColor(part, cv2.COLOR_RGB2RGBA), cv2.merge([known] * 4)),
        size,
        interpolation=cv2.INTER_AREA,
    ).astype(np.float32)
    total = weighed.reshape(-1, 4).sum(axis=0)
    filled = np.broadcast_to(255 * total[:3] / total[3], (*weighed.shape[:2], 3)).astype(np.float32)
    for scale in (1.5, 0.5, 0.17):
        side = _odd(scale * height * ratio)
        sums = cv2.blur(cv2.blur(weighed, (side, side)), (side, side))
        weight = sums[:, :, 3:] * np.float32(1 / 255)
        share = np.minimum(weight * 4, 1)
        filled += (sums[:, :, :3] / np.maximum(weight, 1e-4) - filled) * share
    smooth: Array = cv2.resize(filled, full, interpolation=cv2.INTER_LINEAR)
    return smooth


def _grain(rest: Array, gone: Array, known: Array, reach: Reach) -> Array:
    """Grain for what went: that of known pixels above, below and beside, in one piece where possible.

    Args:
        rest: What the smooth picture leaves, float32 (height, width, 3).
        gone: Where grain is wanted.
        known: Where it is known.
        reach: The line.

    Returns:
        float32 like `rest`, 0 where there is none.
    """
    size = np.abs(rest[::2, ::3][known[::2, ::3] > 0])
    # Edges of shadows and borders are not grain; single pixels beyond the limit may be.
    limit = 2.5 * 1.4826 * float(np.median(size)) + 0.5 if size.size else 0.0
    edges = cv2.inRange(rest, (-limit,) * 3, (limit,) * 3)
    edges = cv2.dilate(cv2.morphologyEx(cv2.bitwise_not(edges), cv2.MORPH_OPEN, _PAIR), _AROUND)
    right = np.array([-reach.up[1], reach.up[0]])
    moves = [
        np.rint((down * reach.up + across * right) * reach.height).astype(int)
        for across in (0.0, 0.35, -0.35, 0.8, -0.8)
        for down in (0.7, -0.7, 0.45, -0.45, 1.0, -1.0)
    ]
    (height, width), far = gone.shape, int(np.abs(moves).max())
    rest, source = (
        cv2.copyMakeBorder(each, far, far, far, far, cv2.BORDER_CONSTANT, value=0)
        for each in (rest, cv2.subtract(known, edges))
    )
    grain, wanted = np.zeros((height, width, 3), np.float32), gone.copy()
    for x, y in moves:
        there = slice(far + y, far + y + height), slice(far + x, far + x + width)
        found = cv2.bitwise_and(wanted, source[there])
        cv2.copyTo(rest[there], found, grain)
        wanted = cv2.subtract(wanted, found)
        if not cv2.countNonZero(wanted):
            break
    clipped: Array = np.clip(grain, -limit, limit)
    return clipped


def _odd(side: float) -> int:
    return max(3, round(side)) | 1


def _disc(radius: float) -> Array:
    side = 2 * max(1, round(radius)) + 1
    disc: Array = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return disc
