from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array
from tests.edge_runtime.operators.running import run

cv2: Any = pytest.importorskip("cv2", reason="these operators need the 'vision' extra")


def _image() -> Array:
    coarse = np.random.default_rng(3).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    smooth: Array = cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC)
    return smooth


def _quad(top: float, left: float, bottom: float, right: float) -> Array:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def test_a_crop_is_a_part_of_the_image_and_never_more() -> None:
    image = _image()
    np.testing.assert_array_equal(
        run("crop", image, top=1, left=2, height=3, width=4)["image"], image[1:4, 2:6]
    )
    with pytest.raises(HybridgeError) as caught:
        run("crop", image, top=118, left=0, height=3, width=1)
    assert caught.value.code is ErrorCode.INPUT_SHAPE


def test_there_is_a_crop_for_each_box_wherever_it_lies() -> None:
    image = _image()
    boxes = np.array(
        [
            [10.2, 20.9, 30.1, 40],
            [-50, -50, 5, 7],
            [110, 150, 500, 500],
            [300, 300, 400, 400],
            [-9, -9, -1, -1],
            [np.nan, 0, 1, 1],
            [8, 8, 2, 2],
        ],
        np.float32,
    )
    crops = run("crop-boxes", image, boxes)["images"]
    np.testing.assert_array_equal(crops[0], image[10:31, 20:40])
    np.testing.assert_array_equal(crops[1], image[:5, :7])
    np.testing.assert_array_equal(crops[2], image[110:, 150:])
    np.testing.assert_array_equal(crops[3], image[-1:, -1:])
    for outside in crops[4:6]:
        np.testing.assert_array_equal(outside, image[:1, :1])
    assert crops[6].shape == (1, 1, 3)
    assert run("crop-boxes", image, np.empty((0, 4), np.float32))["images"] == []
    grown = run("crop-boxes", image, boxes[:1].round(), margin=0.5)["images"][0]
    np.testing.assert_array_equal(grown, image[:40, 11:50])


def test_an_upright_quadrilateral_is_a_crop_to_the_pixel() -> None:
    image = _image()
    quads = np.stack([_quad(10, 20, 30, 60), _quad(0, 0, 120, 160)])
    crops = run("crop-quads", image, quads)["images"]
    np.testing.assert_array_equal(crops[0], image[10:30, 20:60])
    np.testing.assert_array_equal(crops[1], image)
    np.testing.assert_array_equal(run("warp", image, quads[0])["image"], image[10:30, 20:60])


def test_a_turned_region_comes_out_as_the_upright_one_went_in() -> None:
    image = _image()
    quad = _quad(40, 50, 80, 110)
    turned = run("rotate", image, degrees=90)["image"]
    # Under a quarter turn clockwise (x, y) goes to (height - y, x).
    followed = np.stack([120 - quad[:, 1], quad[:, 0]], axis=1)
    np.testing.assert_array_equal(
        run("warp", turned, followed.astype(np.float32))["image"], image[40:80, 50:110]
    )


def test_a_perspective_is_undone() -> None:
    flat = _image()
    seen = np.array([[20, 15], [140, 30], [150, 100], [10, 110]], np.float32)
    matrix = cv2.getPerspectiveTransform(_quad(0, 0, 120, 160) - 0.5, seen - 0.5)
    sign = cv2.warpPerspective(flat, matrix, (160, 120), flags=cv2.INTER_CUBIC)
    back = run("warp", sign, seen, height=120, width=160, interpolation="cubic")["image"]
    assert np.abs(back.astype(int) - flat)[4:-4, 4:-4].mean() < 5


def test_enlarging_shifts_nothing() -> None:
    image = _image()
    warped = run("warp", image, _quad(30, 40, 50, 80), height=60, width=120)["image"]
    # With a margin, so that the edge is not repeated as `resize` does it.
    resized = run("resize", image[20:60, 30:90], height=120, width=180)["image"][30:90, 30:150]
    np.testing.assert_allclose(warped.astype(int), resized, atol=2)
    corners = run("warp", image, _quad(30, 40, 50, 80), height=60, width=120, half_pixel_centers=False)[
        "image"
    ]
    np.testing.assert_array_equal(corners[::3, ::3], image[30:50, 40:80])


def test_three_channels_are_warped_as_each_alone() -> None:
    image = _image()
    rng = np.random.default_rng(5)
    for interpolation in ("nearest", "linear", "cubic"):
        quad = (rng.random((4, 2)) * 100).astype(np.float32)
        together = run("warp", image, quad, height=40, width=90, interpolation=interpolation)["image"]
        apart = [
            run("warp", image[:, :, [at]], quad, height=40, width=90, interpolation=interpolation)["image"]
            for at in range(3)
        ]
        np.testing.assert_allclose(together.astype(int), np.concatenate(apart, axis=2), atol=1)


def test_the_size_of_a_line_of_text_follows_from_its_height() -> None:
    image = _image()
    quads = np.stack([_quad(10, 20, 30, 60), _quad(10, 20, 110, 40)])
    lying = run("crop-quads", image, quads, height=48)["images"]
    assert [crop.shape for crop in lying] == [(48, 96, 3), (48, 10, 3)]
    turned = run("crop-quads", image, quads, height=48, turn_ratio=1.5)["images"]
    assert [crop.shape for crop in turned] == [(48, 96, 3), (48, 240, 3)]
    natural = run("crop-quads", image, quads[1:], turn_ratio=1.5)["images"][0]
    np.testing.assert_array_equal(natural, np.rot90(image[10:110, 20:40]))
    assert run("crop-quads", image, quads, height=48, max_width=64)["images"][0].shape == (48, 64, 3)
    assert run("crop-quads", image, quads, width=20)["images"][0].shape == (10, 20, 3)
    small = run("crop-quads", image, quads[:1], height=5, interpolation="area")["images"][0]
    np.testing.assert_array_equal(
        small, run("resize", image[10:30, 20:60], height=5, width=10, interpolation="area")["image"]
    )


def test_beyond_the_image_its_edge_goes_on() -> None:
    image = _image()
    beyond = run("warp", image, _quad(-20, -10, 20, 10))["image"]
    np.testing.assert_array_equal(beyond[20:, 10:], image[:20, :10])
    np.testing.assert_array_equal(beyond[:20, 10:], np.repeat(image[:1, :10], 20, axis=0))
    far = run("warp", image, _quad(1e6, 1e6, 1e6 + 5, 1e6 + 9))["image"]
    np.testing.assert_array_equal(far, np.broadcast_to(image[-1, -1], (5, 9, 3)))


def test_quadrilaterals_of_a_model_gone_wrong_cost_little_and_keep_their_place() -> None:
    image = _image()
    quads = np.stack(
        [np.full((4, 2), np.nan), np.full((4, 2), np.inf), np.zeros((4, 2)), _quad(0, 0, 1e30, 1e30)]
    )
    crops = run("crop-quads", image, quads.astype(np.float32), height=4, max_width=100)["images"]
    assert [crop.shape[0] for crop in crops] == [4] * 4
    assert not crops[0].any()
    natural = run("crop-quads", image, quads.astype(np.float32))["images"]
    assert max(crop.size for crop in natural) <= 3 * 2**24 * 1.01
    assert run("crop-quads", image, np.empty((0, 4, 2), np.float32))["images"] == []


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1, 1), (3, 40_000, 3)])
def test_images_of_any_size_are_cut(shape: tuple[int, ...]) -> None:
    image = np.full(shape, 9, np.uint8)
    quad = _quad(0, 0, shape[0], shape[1])
    crop = run("warp", image, quad, height=4, width=6)["image"]
    assert crop.shape == (4, 6, shape[2])
    assert (crop == 9).all()
    with pytest.raises(HybridgeError) as caught:
        run("warp", image[:0], quad)
    assert caught.value.code is ErrorCode.INPUT_SHAPE
