"""Drawn scenes: the same for the same seed, and as their lines say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.sign.drawing import Scene, photograph_scenes, sign_scenes
from benchmarks.sign.drawing.scene import PHRASES
from benchmarks.sign.fonts import FONT_CLASSES, font_of
from edge_runtime.errors import ErrorCode, HybridgeError


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return list(sign_scenes(12, seed=5))


def test_a_scene_depends_on_seed_and_number_alone(scenes: list[Scene]) -> None:
    again = list(sign_scenes(3, seed=5))
    for first, second in zip(scenes, again, strict=False):
        np.testing.assert_array_equal(first.image, second.image)
        assert [line.text for line in first.lines] == [line.text for line in second.lines]
    other = next(iter(sign_scenes(1, seed=6)))
    assert (other.image != scenes[0].image).any()


def test_lines_say_phrases_and_lie_within_the_picture(scenes: list[Scene]) -> None:
    known = {phrase.upper() for phrase in PHRASES}
    for scene in scenes:
        assert scene.image.shape == (360, 640, 3)
        assert scene.image.dtype == np.uint8
        assert scene.lines
        for line in scene.lines:
            assert line.text.upper() in known
            assert line.font_class in FONT_CLASSES
            assert (line.quad >= 0).all()
            assert (line.quad <= (640, 360)).all()
            assert cv2.contourArea(line.quad, oriented=True) > 0, "clockwise where y points down"


def test_the_colours_of_a_line_are_found_in_it(scenes: list[Scene]) -> None:
    """Paper is the most frequent colour around a line; ink is what is furthest from it, where letters are large."""
    for scene in scenes:
        for line in scene.lines:
            inside = np.zeros(scene.image.shape[:2], np.uint8)
            cv2.fillConvexPoly(inside, np.round(line.quad).astype(np.int32), 255)
            pixels = scene.image[inside > 0].astype(float)
            # A shadow may cross the line: some of it is in the light that the colours are given for.
            near = np.abs(pixels - line.paper).max(axis=1) < 40
            assert near.mean() > 0.1, line.text


def test_photographs_stay_where_there_is_no_sign(tmp_path: Path) -> None:
    path = tmp_path / "green.png"
    cv2.imwrite(str(path), np.full((300, 500, 3), (40, 160, 40), np.uint8))
    scene = next(iter(photograph_scenes([path], 1, size=(360, 640), seed=1)))
    assert scene.image.shape == (360, 640, 3)
    assert scene.lines
    np.testing.assert_allclose(np.median(scene.image[:10].reshape(-1, 3), axis=0), (40, 160, 40), atol=12)


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    cases: list[tuple[ErrorCode, Callable[[], Iterator[Scene]]]] = [
        (ErrorCode.INPUT_INVALID, lambda: sign_scenes(1, size=(20, 640))),
        (ErrorCode.INPUT_INVALID, lambda: sign_scenes(1, phrases=())),
        (ErrorCode.INPUT_INVALID, lambda: photograph_scenes([broken], 1)),
        (ErrorCode.INPUT_INVALID, lambda: photograph_scenes([], 1)),
        (ErrorCode.FILE_NOT_FOUND, lambda: photograph_scenes([tmp_path / "none.jpg"], 1)),
    ]
    for code, call in cases:
        with pytest.raises(HybridgeError) as caught:
            list(call())
        assert caught.value.code == code


def test_a_phrase_of_any_length_fits_its_sign() -> None:
    phrases = ("W", "No parking on this side of the street between 8 am and 6 pm")
    for scene in sign_scenes(6, size=(240, 320), seed=2, phrases=phrases):
        for line in scene.lines:
            assert (line.quad > -1).all()
            assert (line.quad < (321, 241)).all()


@pytest.mark.parametrize("font_class", FONT_CLASSES)
def test_every_class_is_redrawn_with_every_spanish_letter(font_class: str) -> None:
    font = font_of(font_class, 32)
    missing = bytes(font.getmask("\uffff"))
    for letter in "áéíóúüñÁÉÍÓÚÜÑ¿¡ºª«»€":
        assert bytes(font.getmask(letter)) != missing, letter


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(HybridgeError, match="comic") as caught:
        font_of("comic", 12)
    assert caught.value.code == ErrorCode.INPUT_INVALID


def test_a_share_of_the_signs_has_one_phrase_over_two_lines() -> None:
    phrases = ("No parking at any time", "Exit")
    scenes = list(sign_scenes(12, seed=3, phrases=phrases, broken=0.6))
    texts = [[line.text for line in scene.lines] for scene in scenes]
    assert any(lines[:2] == ["No parking", "at any time"] for lines in texts)
    assert any("Exit" in lines for lines in texts)
    plain = [[line.text for line in scene.lines] for scene in sign_scenes(12, seed=3, phrases=phrases)]
    assert {text.upper() for lines in plain for text in lines} == {phrase.upper() for phrase in phrases}
