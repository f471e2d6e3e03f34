from __future__ import annotations

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from tests.edge_runtime.operators.running import run


def test_boxes_and_points_go_through_a_matrix() -> None:
    matrix = np.array([[2, 0, 10], [0, 3, 20], [0, 0, 1]], np.float32)
    boxes = np.array([[1, 2, 3, 4]], np.float32)
    np.testing.assert_allclose(run("transform-boxes", boxes, matrix)["boxes"], [[23, 14, 29, 18]])
    points = np.array([[[1, 2, 7]]], np.float32)
    np.testing.assert_allclose(run("transform-points", points, matrix)["points"], [[[12, 26, 7]]])
    assert points[0, 0].tolist() == [1, 2, 7]
    seen = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0, 1]], np.float32)
    np.testing.assert_allclose(
        run("transform-points", points[0, :, :2], seen)["points"], [[1 / 1.5, 2 / 1.5]]
    )


def test_an_upright_detection_gives_an_upright_enlarged_square() -> None:
    boxes = np.array([[10, 20, 30, 60]], np.float32)
    eyes = np.array([[[30, 15], [50, 15]]], np.float32)
    quads = run("rotated-regions", boxes, eyes)["quads"]
    # 40 pixels wide, half as much again, around (40, 20).
    np.testing.assert_allclose(quads, [[[10, -10], [70, -10], [70, 50], [10, 50]]], atol=1e-4)
    oblong = run("rotated-regions", boxes, eyes, square=False, scale=1, shift=0.5)["quads"]
    np.testing.assert_allclose(oblong, [[[20, 20], [60, 20], [60, 40], [20, 40]]], atol=1e-4)


def test_a_region_turns_with_its_keypoints() -> None:
    boxes = np.array([[0, 0, 40, 40]], np.float32)
    down = np.array([[[20, 5], [20, 35]]], np.float32)
    # The line that should go to the right goes down: the region's top is at the right.
    np.testing.assert_allclose(
        run("rotated-regions", boxes, down, scale=1)["quads"],
        [[[40, 0], [40, 40], [0, 40], [0, 0]]],
        atol=1e-4,
    )
    # A line that should go up goes to the right, as of a hand that points there.
    pointing = np.array([[[5, 20], [35, 20]]], np.float32)
    np.testing.assert_allclose(
        run("rotated-regions", boxes, pointing, scale=1, angle=90)["quads"],
        [[[40, 0], [40, 40], [0, 40], [0, 0]]],
        atol=1e-4,
    )


def test_landmarks_of_a_crop_are_landmarks_of_the_image() -> None:
    quads = np.array(
        [[[10, 20], [10, 120], [-40, 120], [-40, 20]], [[0, 0], [8, 0], [8, 8], [0, 8]]], np.float32
    )
    points = np.array([[[0, 0, 5], [64, 32, 0]]] * 2, np.float32)
    placed = run("points-from-quads", points, quads, height=32, width=64)["points"]
    np.testing.assert_allclose(placed[0], [[10.0, 20.0, 500 / 64], [-40.0, 120.0, 0.0]], atol=1e-4)
    np.testing.assert_allclose(placed[1], [[0.0, 0.0, 5 / 8], [8.0, 8.0, 0.0]], atol=1e-4)
    flat = run("points-from-quads", points[:, :, :2], quads, height=32, width=64)["points"]
    np.testing.assert_allclose(flat, placed[:, :, :2])


def test_no_detections_have_no_regions() -> None:
    none = np.empty((0, 4), np.float32)
    quads = run("rotated-regions", none, np.empty((0, 6, 2), np.float32))["quads"]
    assert quads.shape == (0, 4, 2)
    assert run("quads-from-boxes", none)["quads"].shape == (0, 4, 2)
    assert run("transform-boxes", none, np.eye(3, dtype=np.float32))["boxes"].shape == (0, 4)
    landmarks = np.empty((0, 468, 3), np.float32)
    assert run("points-from-quads", landmarks, quads, height=192, width=192)["points"].shape == (0, 468, 3)


def test_a_keypoint_that_there_is_not_is_one_clear_error() -> None:
    with pytest.raises(HybridgeError) as caught:
        run("rotated-regions", np.zeros((1, 4), np.float32), np.zeros((1, 1, 2), np.float32))
    assert caught.value.code is ErrorCode.INPUT_SHAPE
