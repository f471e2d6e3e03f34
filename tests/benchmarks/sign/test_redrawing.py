"""Text is taken off a picture, and other text is put there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.sign.erasing import sign_erase
from benchmarks.sign.fonts import FONT_CLASSES, font_of
from benchmarks.sign.ink import sign_ink
from benchmarks.sign.layout import LineFrame, laid_out, neighbours_of
from benchmarks.sign.lettering import sign_letter
from benchmarks.sign.quads import grown, side_lengths
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.operators import find_operator
from edge_runtime.tensor_spec import Array

WHITE, BLACK, GREEN = (238, 238, 232), (22, 22, 26), (0, 104, 62)


@dataclass(frozen=True)
class Sign:
    """A picture with one line, what is behind the line, and what `sign-ink` says of it."""

    image: Array
    behind: Array
    quad: Array
    text: str
    seen: dict[str, Array]

    @property
    def quads(self) -> Array:
        return self.quad[np.newaxis]

    def of(self, *names: str) -> list[Array]:
        return [self.seen[name][np.newaxis] for name in names]

    def erased(self) -> Array:
        image: Array = sign_erase(self.image, self.quads, *self.of("ink", "paper", "extent", "softness"))
        return image

    def lettered(self, text: str, font_class: str = "sans-bold") -> Array:
        texts = (np.array([each]) for each in (text, self.text, font_class))
        rest = self.of("ink", "paper", "extent", "softness", "weight")
        image: Array = sign_letter(self.erased(), self.quads, *texts, *rest)
        return image


def sign(
    text: str = "No parking",
    *,
    font_class: str = "sans-bold",
    size: int = 36,
    ink: tuple[int, int, int] = BLACK,
    paper: tuple[int, int, int] = WHITE,
    angle: float = 0.0,
    at: tuple[int, int] = (60, 110),
    noise: float = 3.0,
    uneven: bool = False,
) -> Sign:
    """A line on a board of 320x160 in a grey picture of 400x240 pixels."""
    board = np.full((240, 400, 3), 120, np.uint8)
    board[40:200, 40:360] = paper
    picture, glyphs = Image.fromarray(board), Image.new("1", (400, 240), 0)
    for image, colour in ((picture, ink), (glyphs, 1)):
        ImageDraw.Draw(image).text(at, text, fill=colour, font=font_of(font_class, size), anchor="ls")
    left, top, right, bottom = glyphs.getbbox() or (0, 0, 1, 1)
    corners = np.array([[(left, top), (right, top), (right, bottom), (left, bottom)]], np.float32)
    turn = np.vstack([cv2.getRotationMatrix2D((200, 120), angle, 1.0), [(0, 0, 1)]])
    light = (
        np.linspace(0.6, 1.0, 400, dtype=np.float32)[np.newaxis, :, np.newaxis] if uneven else np.float32(1)
    )
    grain = np.random.default_rng(0).normal(0, noise, (240, 400, 3))
    both = [
        np.clip(
            cv2.warpPerspective(each.astype(np.float32), turn, (400, 240)) * light + grain, 0, 255
        ).astype(np.uint8)
        for each in (np.asarray(picture), board)
    ]
    quad = grown(cv2.perspectiveTransform(corners, turn)[0], 0.15)
    height, width = side_lengths(quad)
    upright = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    crop_size = (max(1, round(width)), max(1, round(height)))
    crop = cv2.warpPerspective(
        both[0], cv2.getPerspectiveTransform(quad, upright), crop_size, borderMode=cv2.BORDER_REPLICATE
    )
    return Sign(both[0], both[1], quad, text, sign_ink(crop))


CASES: dict[str, dict[str, Any]] = {
    "dark on light": {},
    "light on dark": {"ink": WHITE, "paper": GREEN},
    "turned": {"angle": 20.0},
    "in uneven light": {"uneven": True},
    "thin": {"font_class": "serif", "size": 30},
    "noisy": {"noise": 12.0},
    "small": {"size": 14},
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_left_is_what_was_behind(case: str) -> None:
    one = sign(**CASES[case])
    before, after = (
        np.abs(image.astype(int) - one.behind).max(axis=2) for image in (one.image, one.erased())
    )
    limit = 75 if case == "noisy" else 30
    assert (before > limit).sum() > 200, "there was text"
    assert (after > limit).sum() < 0.02 * (before > limit).sum()
    # No cloud of another shade where it was.
    where = before > limit
    assert abs(float((one.erased().astype(int) - one.behind)[where].mean())) < 3


def test_the_grain_goes_on_where_text_was() -> None:
    one = sign(noise=6.0)
    where = np.abs(one.image.astype(int) - one.behind).max(axis=2) > 60
    assert 4 < float((one.erased().astype(int) - WHITE)[where].std()) < 8


def test_nothing_else_changes() -> None:
    one = sign()
    keep = np.full(one.image.shape[:2], 255, np.uint8)
    cv2.fillConvexPoly(keep, np.round(grown(one.quad, 0.3)).astype(np.int32), 0)
    original = one.image.copy()
    for image in (one.erased(), one.lettered("Prohibido")):
        np.testing.assert_array_equal(image[keep > 0], original[keep > 0])
    np.testing.assert_array_equal(one.image, original)


def test_a_border_beside_the_text_stays() -> None:
    one = sign()
    image = one.image.copy()
    bottom = int(one.quad[2, 1])
    image[bottom + 2 : bottom + 5, 60:340] = BLACK
    erased = sign_erase(image, one.quads, *one.of("ink", "paper", "extent", "softness"))
    assert erased[bottom + 3, 70:330].mean() < 60


@pytest.mark.parametrize("font_class", FONT_CLASSES)
def test_the_same_text_in_the_same_font_is_where_it_was(font_class: str) -> None:
    one = sign(font_class=font_class, size=34, noise=1.0)
    again = one.lettered(one.text, font_class)
    board = np.s_[45:195, 45:355]
    source, drawn = (
        (np.abs(image[board].astype(int) - WHITE).max(axis=2) > 100).astype(np.uint8)
        for image in (one.image, again)
    )
    # Each pixel of the one is at most a pixel from the other.
    near = np.ones((3, 3), np.uint8)
    for some, others in ((source, drawn), (drawn, source)):
        assert (some & cv2.dilate(others, near)).sum() > 0.95 * some.sum()


def test_letters_have_the_colour_of_the_source() -> None:
    one = sign(ink=(176, 24, 32))
    drawn = one.lettered("Prohibido")
    changed = np.abs(drawn.astype(int) - WHITE).max(axis=2) > 180
    board = np.s_[45:195, 45:355]
    np.testing.assert_allclose(np.median(drawn[board][changed[board]], axis=0), (176, 24, 32), atol=14)


@pytest.mark.parametrize(
    "text",
    ["Prohibido aparcar a cualquier hora del día y de la noche", "¡Ñandúes!", "Incomprehensibilities" * 3],
)
def test_text_of_any_length_stays_on_the_board(text: str) -> None:
    one = sign(size=30)
    drawn = one.lettered(text)
    outside = np.ones(drawn.shape[:2], bool)
    outside[40:200, 40:360] = False
    np.testing.assert_array_equal(drawn[outside], one.image[outside])
    assert (np.abs(drawn[45:195, 45:355].astype(int) - WHITE).max(axis=2) > 100).sum() > 80


def test_an_empty_text_leaves_the_place_empty() -> None:
    one = sign()
    np.testing.assert_array_equal(one.lettered("  "), one.erased())


def test_no_lines_are_no_change() -> None:
    image = np.full((50, 60, 3), 7, np.uint8)
    quads, colours = np.empty((0, 4, 2), np.float32), np.empty((0, 3), np.uint8)
    numbers, boxes, text = np.empty(0, np.float32), np.empty((0, 4), np.float32), np.empty(0, "<U1")
    np.testing.assert_array_equal(sign_erase(image, quads, colours, colours, boxes, numbers), image)
    lettered = sign_letter(image, quads, text, text, text, colours, colours, boxes, numbers, numbers)
    np.testing.assert_array_equal(lettered, image)


QUADS = {
    "outside": [(500, 500), (600, 500), (600, 540), (500, 540)],
    "a point": [(50, 50), (50, 50), (50, 50), (50, 50)],
    "not a number": [(np.nan, 0), (90, 0), (90, 30), (0, 30)],
    "crossed": [(100, 100), (200, 140), (200, 100), (100, 140)],
    "larger than the image": [(-4000, -900), (5000, -900), (5000, 900), (-4000, 900)],
    "over the edge": [(-60, -10), (90, -10), (90, 25), (-60, 25)],
}


@pytest.mark.parametrize("name", QUADS)
def test_no_quadrilateral_is_an_error(name: str) -> None:
    one, quads = sign(), np.array([QUADS[name]], np.float32)
    rest = one.of("ink", "paper", "extent", "softness")
    texts = (np.array([each]) for each in ("Salida", "Exit", "serif"))
    erased = sign_erase(one.image, quads, *rest)
    drawn = sign_letter(erased, quads, *texts, *rest, *one.of("weight"))
    assert drawn.shape == one.image.shape


def test_counts_that_differ_are_refused() -> None:
    one = sign()
    ink, paper, extent, softness = one.of("ink", "paper", "extent", "softness")
    with pytest.raises(HybridgeError, match="papers") as caught:
        sign_erase(one.image, one.quads, ink, np.repeat(paper, 2, axis=0), extent, softness)
    assert caught.value.code == ErrorCode.INPUT_SHAPE


def test_longer_text_is_given_the_paper_beside_it() -> None:
    one = sign("Exit", at=(160, 130))
    frame = LineFrame.of(one.quad, one.seen["extent"])
    assert frame is not None
    (short,) = laid_out(one.erased(), frame, "Exit", "Exit", "sans-bold", [])
    (longer,) = laid_out(one.erased(), frame, "Salida norte", "Exit", "sans-bold", [])
    assert longer.size == pytest.approx(short.size, rel=0.02)
    assert longer.left < short.left - 20


def test_text_does_not_run_into_a_line_beside_it() -> None:
    one = sign("Exit", at=(160, 130))
    beside = one.quad + np.array([110, 0], np.float32)
    frames = [LineFrame.of(quad, one.seen["extent"]) for quad in (one.quad, beside)]
    frame = frames[0]
    assert frame is not None
    near = neighbours_of(0, frames)
    for block in laid_out(one.erased(), frame, "Salida por el norte", "Exit", "sans-bold", near):
        font = font_of("sans-bold", 100)
        right = block.left + font.getlength(block.text) / 100 * block.size * block.stretch
        assert right < near[0][0]


def test_much_longer_text_is_set_in_two_lines_where_there_is_room() -> None:
    one = sign("Keep left now", at=(60, 130), size=34)
    frame = LineFrame.of(one.quad, one.seen["extent"])
    assert frame is not None
    lines = laid_out(
        one.erased(), frame, "Manténgase ahora a la izquierda por favor", "Keep left now", "sans-bold", []
    )
    assert [len(line.text) > 5 for line in lines] == [True, True]
    assert lines[0].baseline < lines[1].baseline


def test_they_are_operators() -> None:
    assert find_operator("sign-erase").outputs == ("image",)
    assert find_operator("sign-letter").inputs[:5] == ("image", "quads", "texts", "sources", "fonts")
