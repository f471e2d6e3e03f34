from __future__ import annotations

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array
from tests.edge_runtime.operators.running import run

pytest.importorskip("cv2", reason="these operators need the 'vision' extra")

_RED = (255, 0, 0)


def _black(channels: int = 3) -> Array:
    return np.zeros((60, 80, channels), np.uint8)


def test_an_outline_lies_where_the_box_does_and_the_image_stays_as_it_was() -> None:
    image = _black()
    drawn = run("draw-boxes", image, np.array([[10, 20, 40, 70]], np.float32), color=_RED, thickness=1)[
        "image"
    ]
    assert not image.any()
    assert drawn[25, 20].max() > 100
    assert not drawn[25, 30].any()
    assert not drawn[:, :, 1:].any()
    rows, columns = np.nonzero(drawn[:, :, 0])
    assert (rows.min(), rows.max()) == pytest.approx((9.5, 39.5), abs=1.6)
    assert (columns.min(), columns.max()) == pytest.approx((19.5, 69.5), abs=1.6)


def test_polygons_and_points_are_drawn_with_anything_behind_them() -> None:
    triangle = np.array([[[10, 10], [60, 10], [30, 50]]], np.float32)
    assert run("draw-quads", _black(), triangle)["image"].any()
    landmarks = np.array([[[30.5, 20.5, 99.0], [50.5, 40.5, -3.0]]], np.float32)
    dots = run("draw-points", _black(), landmarks, color=_RED, radius=2)["image"][:, :, 0]
    assert dots[20, 30] == dots[40, 50] == 255
    assert 10 < np.count_nonzero(dots) < 60


def test_a_label_stands_above_its_region_and_within_the_image() -> None:
    boxes = np.array([[40, 20, 55, 60]], np.float32)
    labelled = run("draw-labels", _black(), boxes, np.array(["face"]), height=8)["image"]
    rows, _ = np.nonzero(labelled.any(axis=2))
    assert 20 < rows.min() < rows.max() <= 40
    for regions in (np.array([[1000.0, -50.0]]), np.array([[[-5, -5], [5, -5], [5, 5], [-5, 5]]])):
        assert run("draw-labels", _black(), regions.astype(np.float32), np.array(["face"]))["image"].any()
    foreign = run("draw-labels", _black(), boxes, np.array(["señal → 出口"]))["image"]
    assert foreign.any()


def test_nothing_and_what_is_not_finite_are_not_drawn() -> None:
    nan = np.full((2, 4), np.nan, np.float32)
    none = np.empty((0, 4), np.float32)
    for drawn in (
        run("draw-boxes", _black(), nan),
        run("draw-boxes", _black(), none),
        run("draw-points", _black(), nan[:, :2]),
        run("draw-quads", _black(), np.empty((0, 4, 2), np.float32)),
        run("draw-labels", _black(), nan, np.array(["a", "b"])),
        run("draw-labels", _black(), none, np.empty(0, "<U1")),
    ):
        assert not drawn["image"].any()
    endless = np.array([[-1e30, 10, 1e30, 40]], np.float32)
    assert run("draw-boxes", _black(), endless)["image"][:, 10].any()


def test_a_colour_is_as_bright_on_a_grey_image() -> None:
    boxes = np.array([[10, 20, 40, 70]], np.float32)
    drawn = run("draw-boxes", _black(1), boxes, color=(255, 255, 255))["image"]
    assert drawn.max() == 255
    assert run("draw-boxes", _black(1), boxes, color=(0, 200, 0))["image"].max() == 117


def test_what_cannot_be_drawn_on_or_labelled_is_one_clear_error() -> None:
    boxes = np.zeros((1, 4), np.float32)
    for image in (np.zeros((0, 5, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(HybridgeError) as caught:
            run("draw-boxes", image, boxes) if image.dtype == np.uint8 and image.ndim == 3 else _refuse(
                image, boxes
            )
        assert caught.value.code is ErrorCode.INPUT_SHAPE
    for regions, texts in ((boxes, np.array(["a", "b"])), (np.zeros((1, 3), np.float32), np.array(["a"]))):
        with pytest.raises(HybridgeError) as caught:
            run("draw-labels", _black(), regions, texts)
        assert caught.value.code is ErrorCode.INPUT_SHAPE


def _refuse(image: Array, boxes: Array) -> None:
    from edge_runtime.operators.drawing import draw_boxes

    draw_boxes(image, boxes)
