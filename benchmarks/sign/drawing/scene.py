"""Scenes: signs in perspective before a backdrop or in a photograph, in some light, taken by some camera."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.sign.drawing.backdrop import draw_backdrop
from benchmarks.sign.drawing.board import Board, draw_board
from benchmarks.sign.drawing.light import random_camera, random_light
from benchmarks.sign.drawing.styles import STYLES
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["PHRASES", "Scene", "SceneLine", "photograph_scenes", "sign_scenes"]

PHRASES = (
    "Exit", "Push", "Pull", "No parking", "Keep left", "Platform 4", "Ticket office", "Wet floor", "Open 24 hours",
    "Closed on Mondays", "Please ring the bell", "Emergency exit", "Danger: high voltage", "Staff only",
    "Fresh bread", "Do not enter", "Mind the gap", "Restaurant", "Speed limit 30", "Beware of the dog",
)  # fmt: skip
"""What signs say when no phrases are given."""

# A board is drawn larger than it is seen, so that its letters stay smooth when it is turned.
_OVERSAMPLED = 1.5


@dataclass(frozen=True, slots=True)
class SceneLine:
    """One line of text in a scene.

    Attributes:
        text: What it says.
        quad: Corners of its ink, clockwise from the top left of the text, float32 (4, 2), points (x, y) in pixels.
        font_class: One of `benchmarks.sign.fonts.FONT_CLASSES`.
        ink: Colour of the letters in the light that falls on the line, before blur and noise, uint8 (3,).
        paper: Colour of the board there, likewise.
    """

    text: str
    quad: Array
    font_class: str
    ink: Array
    paper: Array


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture, uint8 RGB of shape (height, width, 3), and the lines of text in it, from the top of each sign."""

    image: Array
    lines: tuple[SceneLine, ...]


def sign_scenes(
    count: int,
    *,
    size: tuple[int, int] = (360, 640),
    seed: int = 0,
    phrases: Sequence[str] = PHRASES,
    broken: float = 0.0,
) -> Iterator[Scene]:
    """Signs before drawn walls and streets.

    Args:
        count: How many.
        size: Height and width, pixels.
        seed: Scene `i` of a seed is the same whatever `count` is.
        phrases: What lines say, each one line.
        broken: Share of the signs that have one phrase, broken over two lines.

    Raises:
        HybridgeError: `input-invalid` for a size below 64 pixels, or without phrases.
    """
    _check(size, phrases)
    for index in range(count):
        random = np.random.default_rng((seed, index))
        yield _scene(draw_backdrop(size, random), phrases, random, exposure=1.0, broken=broken)


def photograph_scenes(
    paths: Sequence[Path],
    count: int,
    *,
    size: tuple[int, int] = (720, 1280),
    seed: int = 0,
    phrases: Sequence[str] = PHRASES,
) -> Iterator[Scene]:
    """Signs set into photographs, as bright as these are, and softened, grained and compressed with them.

    Args:
        paths: The photographs; they take turns. Each is cut to the size's proportions and scaled.
        count: How many.
        size: Height and width, pixels.
        seed: Scene `i` of a seed is the same whatever `count` is.
        phrases: What lines say, each one line.

    Raises:
        HybridgeError: `file-not-found`; `input-invalid` for what is no image, a size below 64 pixels, no phrases,
            or no photographs.
    """
    _check(size, phrases, paths)
    for index in range(count):
        random = np.random.default_rng((seed, index, 1))
        photograph = _photograph(paths[index % len(paths)], size, random)
        brightness = float(np.percentile(photograph, 90)) / 255
        yield _scene(photograph, phrases, random, exposure=float(np.clip(brightness + 0.15, 0.5, 1.0)))


def _check(size: tuple[int, int], phrases: Sequence[str], paths: Sequence[Path] | None = None) -> None:
    if paths is not None and not paths:
        raise HybridgeError(ErrorCode.INPUT_INVALID, "photographs", received="none", expected="at least one")
    if min(size) < 64 or not phrases:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            "scene",
            received=f"{size[0]}x{size[1]} pixels and {len(phrases)} phrases",
            expected="at least 64x64 pixels and one phrase",
        )


def _scene(
    backdrop: Array,
    phrases: Sequence[str],
    random: np.random.Generator,
    *,
    exposure: float,
    broken: float = 0.0,
) -> Scene:
    size = backdrop.shape[:2]
    light = random_light(size, random, exposure=exposure)
    image, shiny = backdrop.copy(), np.zeros(size, np.uint8)
    lines: list[SceneLine] = []
    for zone in _zones(size, random):
        board, corners = _sign(zone, phrases, random, least=8.0 * (size[0] / 360) ** 0.5, broken=broken)
        solid, turn = _hang(image, board, corners, random)
        shiny = cv2.max(shiny, solid)
        for line in board.lines:
            quad = cv2.perspectiveTransform(line.corners[np.newaxis], turn)[0].astype(np.float32)
            ink, paper = light.seen(line.ink, quad), light.seen(line.paper, quad)
            lines.append(SceneLine(line.text, quad, line.font_class, ink, paper))
    lit = light.fall_on(image, shiny)
    if exposure != 1.0:
        # A photograph has its own light: only the sign is in this one.
        lit = image + (lit - image) * (shiny * np.float32(1 / 255))[:, :, np.newaxis]
    return Scene(random_camera(size, random).take(lit, random), tuple(lines))


def _zones(size: tuple[int, int], random: np.random.Generator) -> list[tuple[float, float, float, float]]:
    """Where signs hang: rectangles (top, left, bottom, right)."""
    height, width = size
    edge = 0.04 * min(size)
    whole = (edge, edge, height - edge, width - edge)
    chance = random.random()
    if chance < 0.7:
        return [whole]
    if chance < 0.86:
        cut = width * random.uniform(0.42, 0.58)
        return [
            (whole[0], whole[1], whole[2], cut - edge / 2),
            (whole[0], cut + edge / 2, whole[2], whole[3]),
        ]
    cut = height * random.uniform(0.42, 0.58)
    return [(whole[0], whole[1], cut - edge / 2, whole[3]), (cut + edge / 2, whole[1], whole[2], whole[3])]


def _sign(
    zone: tuple[float, float, float, float],
    phrases: Sequence[str],
    random: np.random.Generator,
    *,
    least: float,
    broken: float,
) -> tuple[Board, Array]:
    """A board, and where its corners are; drawn again with less to say while its smallest line is too small."""
    for most in (4, 3, 2, 1):
        style = STYLES[int(random.integers(len(STYLES)))]
        texts = _texts(phrases, most, random, broken)
        if style.shape == "octagon":
            # What a stop sign says is short.
            texts = sorted(texts, key=len)[:2]
        room = (zone[2] - zone[0]) * _OVERSAMPLED, (zone[3] - zone[1]) * _OVERSAMPLED
        board = draw_board(texts, style, (round(room[0]), round(room[1])), random)
        corners = _corners(board.solid.shape, zone, random)
        turn = cv2.getPerspectiveTransform(_rectangle(board.solid.shape), corners)
        quads = [cv2.perspectiveTransform(line.corners[np.newaxis], turn)[0] for line in board.lines]
        if min(float(np.linalg.norm(quad[3] - quad[0])) for quad in quads) >= least:
            break
    return board, corners


def _texts(phrases: Sequence[str], most: int, random: np.random.Generator, broken: float) -> list[str]:
    if most > 1 and broken and random.random() < broken:
        words = str(phrases[int(random.integers(len(phrases)))]).split()
        # Where it makes the shortest sign.
        parts = [(" ".join(words[:cut]), " ".join(words[cut:])) for cut in range(1, len(words))]
        if parts:
            return list(min(parts, key=lambda lines: max(map(len, lines))))
    count = min(int(random.choice((1, 2, 3, 4), p=(0.3, 0.35, 0.22, 0.13))), most, len(phrases))
    return [str(phrases[index]) for index in random.choice(len(phrases), count, replace=False)]


def _rectangle(size: tuple[int, int]) -> Array:
    height, width = size
    return np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)


def _corners(
    board: tuple[int, int], zone: tuple[float, float, float, float], random: np.random.Generator
) -> Array:
    """Corners of a board that is turned in space, as large as the zone allows or somewhat smaller, float32 (4, 2)."""
    height, width = board
    yaw, pitch = np.radians(random.normal(0, 17)), np.radians(random.normal(0, 8))
    roll = np.radians(random.uniform(-25, 25) if random.random() < 0.12 else random.normal(0, 4))
    points = _rectangle(board) - np.array([width / 2, height / 2], np.float32)
    x = points[:, 0] * np.cos(yaw)
    depth = points[:, 0] * np.sin(yaw) + points[:, 1] * np.sin(pitch)
    y = points[:, 1] * np.cos(pitch)
    nearness = 1 / (1 + depth / (1.6 * max(board)))
    seen = np.stack([x * nearness, y * nearness], axis=1)
    seen = seen @ np.array([(np.cos(roll), np.sin(roll)), (-np.sin(roll), np.cos(roll))])
    low, high = seen.min(0), seen.max(0)
    top, left, bottom, right = zone
    free = np.array([right - left, bottom - top])
    scale = float((free / (high - low)).min()) * random.uniform(0.5, 1.0)
    slack = free - (high - low) * scale
    at = np.array([left, top]) + slack * random.uniform(0.1, 0.9, 2)
    corners: Array = ((seen - low) * scale + at).astype(np.float32)
    return corners


def _hang(image: Array, board: Board, corners: Array, random: np.random.Generator) -> tuple[Array, Array]:
    """Draws the board and its shadow into the image; gives where it is (0..255), and its homography."""
    height, width = image.shape[:2]
    turn = cv2.getPerspectiveTransform(_rectangle(board.solid.shape), corners)
    side = float(np.linalg.norm(corners[2] - corners[0]))
    # Only the part of the image that the board and its shadow can reach.
    reach = 0.1 * side
    left, top = np.maximum(np.floor(corners.min(0) - reach).astype(int), 0)
    right, bottom = np.minimum(np.ceil(corners.max(0) + reach).astype(int), (width, height))
    part, size = image[top:bottom, left:right], (int(right - left), int(bottom - top))
    here = np.array([(1, 0, -left), (0, 1, -top), (0, 0, 1)], np.float64) @ turn
    solid = cv2.warpPerspective(board.solid, here, size, flags=cv2.INTER_LINEAR)
    # The shadow is soft: a quarter of the pixels is enough for it.
    quarter = cv2.resize(solid, (max(1, size[0] // 4), max(1, size[1] // 4)), interpolation=cv2.INTER_AREA)
    right_down = np.array([random.uniform(-0.03, 0.03), random.uniform(0.005, 0.04)]) * side / 4
    shadow = cv2.warpAffine(quarter, np.column_stack([np.eye(2), right_down]), quarter.shape[::-1])
    shadow = cv2.GaussianBlur(shadow, (0, 0), max(0.5, side * random.uniform(0.004, 0.02) / 4))
    share = (
        cv2.resize(shadow, size, interpolation=cv2.INTER_LINEAR) * np.float32(-random.uniform(0.2, 0.6) / 255)
        + 1
    )
    behind = cv2.multiply(part, cv2.merge([share] * 3), dtype=cv2.CV_32F)
    front = cv2.warpPerspective(
        board.image, here, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    alpha = solid * np.float32(1 / 255)
    part[:] = cv2.blendLinear(front.astype(np.float32), behind, alpha, 1 - alpha)
    whole = np.zeros((height, width), np.uint8)
    whole[top:bottom, left:right] = solid
    return whole, turn


def _photograph(path: Path, size: tuple[int, int], random: np.random.Generator) -> Array:
    """A part of the photograph in the proportions of `size`, at that size."""
    if not path.is_file():
        raise HybridgeError(ErrorCode.FILE_NOT_FOUND, "photograph", received=str(path))
    image = cv2.imread(str(path))
    if image is None:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID, "photograph", received=f"'{path}', which cannot be decoded"
        )
    scale = max(size[0] / image.shape[0], size[1] / image.shape[1])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    wide, tall = max(size[1], round(image.shape[1] * scale)), max(size[0], round(image.shape[0] * scale))
    image = cv2.resize(image, (wide, tall), interpolation=way)
    top = int(random.integers(0, tall - size[0] + 1))
    left = int(random.integers(0, wide - size[1] + 1))
    return np.ascontiguousarray(image[top : top + size[0], left : left + size[1], ::-1])
