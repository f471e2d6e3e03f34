"""Colours, box, sharpness and letters of a line."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.sign.drawing import sign_scenes
from benchmarks.sign.fonts import font_of
from benchmarks.sign.ink import sign_ink
from benchmarks.sign.quads import grown, side_lengths
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.operators import find_operator
from edge_runtime.tensor_spec import Array

Colour = tuple[int, int, int]
WHITE, BLACK, NAVY, YELLOW = (240, 240, 236), (20, 20, 24), (24, 40, 110), (248, 204, 30)


def line(ink: Colour, paper: Colour, *, text: str = "Platform", size: int = 30) -> tuple[Array, Array]:
    """A crop with a line in it, and the box of its ink (top, left, bottom, right) in pixels."""
    font = font_of("sans-bold", size)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text, anchor="ls"))
    edge = size // 3
    size_xy = (right - left + 2 * edge, bottom - top + 2 * edge)
    crop, glyphs = Image.new("RGB", size_xy, paper), Image.new("1", size_xy, 0)
    for image, colour in ((crop, ink), (glyphs, 1)):
        ImageDraw.Draw(image).text((edge - left, edge - top), text, fill=colour, font=font, anchor="ls")
    left, top, right, bottom = glyphs.getbbox() or (0, 0, 0, 0)
    return np.asarray(crop), np.array([top, left, bottom, right])


def difference(first: Array, second: Array | Colour) -> float:
    """Delta E (CIE 1976) of two colours."""
    pair = np.array([[first, second]], np.float32) / 255
    lab = cv2.cvtColor(pair, cv2.COLOR_RGB2LAB)[0]
    return float(np.linalg.norm(lab[0] - lab[1]))


@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        (BLACK, WHITE),
        (WHITE, BLACK),
        (WHITE, NAVY),
        (NAVY, YELLOW),
        ((170, 20, 30), WHITE),
        ((70, 70, 74), BLACK),
    ],
)
@pytest.mark.parametrize("blur", [0.0, 1.2])
def test_both_colours_are_found_whichever_is_brighter(ink: Colour, paper: Colour, blur: float) -> None:
    crop, _ = line(ink, paper)
    seen = crop.astype(np.float32) + np.random.default_rng(0).normal(0, 4, crop.shape)
    if blur:
        seen = cv2.GaussianBlur(seen, (0, 0), blur)
    found = sign_ink(np.clip(seen, 0, 255).astype(np.uint8))
    assert difference(found["paper"], paper) < 3
    assert difference(found["ink"], ink) < (6 if blur == 0 else 14)


def test_the_box_is_that_of_the_ink() -> None:
    crop, box = line(BLACK, WHITE)
    sides = np.array([*crop.shape[:2], *crop.shape[:2]])
    np.testing.assert_allclose(sign_ink(crop)["extent"] * sides, box, atol=1.5)


def test_a_border_at_the_rim_is_not_in_the_box() -> None:
    crop, box = line(BLACK, WHITE)
    crop = crop.copy()
    crop[:2] = BLACK
    found = sign_ink(crop)["extent"] * np.array([*crop.shape[:2], *crop.shape[:2]])
    np.testing.assert_allclose(found, box, atol=2)


def test_letters_in_the_shade_are_letters() -> None:
    crop, box = line(WHITE, (0, 104, 62))
    shaded = crop.astype(np.float32)
    shaded[:, crop.shape[1] // 2 :] *= 0.45
    found = sign_ink(shaded.astype(np.uint8))
    np.testing.assert_allclose(found["extent"][3] * crop.shape[1], box[3], atol=3)


def test_softness_grows_with_blur() -> None:
    crop, _ = line(BLACK, WHITE, size=40)
    soft = [float(sign_ink(cv2.GaussianBlur(crop, (0, 0), blur))["softness"]) for blur in (0.5, 1.5, 3.0)]
    assert soft == sorted(soft)
    np.testing.assert_allclose(soft[2] * crop.shape[0], 3.0, rtol=0.35)


def test_the_strip_is_the_same_whatever_the_colours() -> None:
    dark, bright = (
        sign_ink(line(*pair)[0])["strip"].astype(int) for pair in ((BLACK, WHITE), (WHITE, BLACK))
    )
    assert dark.shape == (48, 160, 1)
    assert dark.max() > 240
    assert np.abs(dark - bright).mean() < 6


def test_colours_of_scenes_are_near_the_true_ones() -> None:
    inks, papers = [], []
    for scene in sign_scenes(15, seed=4):
        for each in scene.lines:
            quad = grown(each.quad, 0.15)
            height, width = side_lengths(quad)
            size = (round(width / height * 48), 48)
            corners = np.array([(0, 0), (size[0], 0), size, (0, size[1])], np.float32)
            turn = cv2.getPerspectiveTransform(quad, corners)
            found = sign_ink(cv2.warpPerspective(scene.image, turn, size))
            inks.append(difference(found["ink"], each.ink))
            papers.append(difference(found["paper"], each.paper))
    assert np.median(papers) < 2.5
    assert np.median(inks) < 13


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 50, 3), (40, 2, 3), (48, 300, 3)])
def test_a_crop_without_text_has_one_colour(shape: tuple[int, int, int]) -> None:
    found = sign_ink(np.full(shape, 90, np.uint8))
    np.testing.assert_array_equal(found["ink"], found["paper"])
    np.testing.assert_array_equal(found["extent"], [0, 0, 1, 1])
    assert not found["strip"].any()


def test_noise_is_no_error() -> None:
    random = np.random.default_rng(0)
    for shape in ((1, 1, 3), (1, 40, 3), (3, 3, 3), (48, 5, 3), (200, 900, 3)):
        found = sign_ink(random.integers(0, 256, shape, np.uint8))
        assert all(np.isfinite(value).all() for value in found.values())


def test_a_crop_without_pixels_is_refused() -> None:
    with pytest.raises(HybridgeError) as caught:
        sign_ink(np.zeros((0, 10, 3), np.uint8))
    assert caught.value.code == ErrorCode.INPUT_SHAPE


def test_it_is_an_operator() -> None:
    assert find_operator("sign-ink").outputs == ("ink", "paper", "extent", "softness", "weight", "strip")
