from __future__ import annotations

import itertools

import numpy as np
import pytest

from edge_runtime.tensor_spec import Array
from tests.edge_runtime.operators.running import run


def _overlap(one: Array, other: Array) -> float:
    corner, opposite = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    common = float(np.prod(np.maximum(opposite - corner, 0)))
    areas = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]))
    return common / (areas - common)


def _random_boxes(count: int, seed: int = 4) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    corners = rng.random((count, 2)) * 10
    boxes = np.concatenate([corners, corners + 1 + rng.random((count, 2)) * 4], axis=1).astype(np.float32)
    return boxes, rng.random(count).astype(np.float32)


def _plainly_kept(boxes: Array, scores: Array, threshold: float) -> list[int]:
    """Greedy suppression, box by box."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        if all(_overlap(boxes[index], boxes[better]) <= threshold for better in kept):
            kept.append(index)
    return kept


def test_suppression_keeps_no_two_boxes_that_overlap_and_drops_none_without_cause() -> None:
    boxes, scores = _random_boxes(60)
    kept = run("non-max-suppression", boxes, scores, iou_threshold=0.3)
    assert np.all(np.diff(kept["scores"]) <= 0)
    for one, other in itertools.combinations(kept["boxes"], 2):
        assert _overlap(one, other) <= 0.3 + 1e-6
    for index in set(range(60)) - set(kept["indices"].tolist()):
        better = kept["boxes"][kept["scores"] >= scores[index]]
        assert any(_overlap(boxes[index], box) > 0.3 - 1e-6 for box in better)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 700])
def test_suppressing_in_blocks_is_suppressing_one_by_one(count: int) -> None:
    boxes, scores = _random_boxes(count, seed=count)
    boxes *= 20
    boxes[:, 2:] -= 19 * (boxes[:, 2:] - boxes[:, :2]) / 25
    kept = run("non-max-suppression", boxes, scores, iou_threshold=0.2, max_boxes=10_000)
    assert kept["indices"].tolist() == _plainly_kept(boxes, scores, 0.2)
    few = run("non-max-suppression", boxes, scores, iou_threshold=0.2, max_boxes=5, score_threshold=0.5)
    assert few["indices"].tolist() == [at for at in kept["indices"].tolist() if scores[at] > 0.5][:5]


def test_equal_scores_keep_their_order_and_nan_is_left_out() -> None:
    boxes = np.array([[0, 0, 2, 2], [5, 5, 7, 7], [0, 0, 2, 2.1], [9, 9, 10, 10]], np.float32)
    scores = np.array([0.5, 0.5, 0.5, np.nan], np.float32)
    assert run("non-max-suppression", boxes, scores)["indices"].tolist() == [0, 1]
    boxes[1] = np.nan
    assert run("non-max-suppression", boxes, scores)["indices"].tolist() == [0, 1]


def test_a_box_suppresses_only_its_own_class() -> None:
    boxes = np.array([[0, 0, 4, 4]] * 4, np.float32)
    scores = np.array([0.3, 0.9, 0.5, 0.7], np.float32)
    kept = run("non-max-suppression-by-class", boxes, scores, np.array([0, 1, 0, 1], np.int64))
    assert kept["indices"].tolist() == [1, 2]
    assert kept["classes"].tolist() == [1, 0]


def test_overlapping_detections_are_blended_by_their_scores() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [40, 40, 50, 50]], np.float32)
    scores = np.array([0.25, 0.75, 0.5], np.float32)
    keypoints = np.array([[[4, 4]], [[8, 0]], [[45, 45]]], np.float32)
    kept = run("weighted-suppression", boxes, scores, keypoints)
    np.testing.assert_allclose(kept["boxes"], [[0.75, 0.75, 10.75, 10.75], [40.0, 40.0, 50.0, 50.0]])
    np.testing.assert_allclose(kept["keypoints"], [[[7, 1]], [[45, 45]]])
    assert kept["scores"].tolist() == [0.75, 0.5]


def test_infinite_scores_and_boxes_without_area_break_nothing() -> None:
    boxes = np.zeros((3, 4), np.float32)
    keypoints = np.zeros((3, 0, 2), np.float32)
    kept = run("weighted-suppression", boxes, np.array([np.inf, 0.2, np.nan], np.float32), keypoints)
    assert kept["boxes"].shape == (2, 4)
    assert np.isfinite(kept["boxes"]).all()


def test_no_detections_stay_none() -> None:
    boxes, scores = np.empty((0, 4), np.float32), np.empty(0, np.float32)
    assert run("non-max-suppression", boxes, scores)["boxes"].shape == (0, 4)
    assert run("non-max-suppression-by-class", boxes, scores, np.empty(0, np.int64))["classes"].shape == (0,)
    blended = run("weighted-suppression", boxes, scores, np.empty((0, 6, 2), np.float32))
    assert blended["keypoints"].shape == (0, 6, 2)
    nothing = run(
        "weighted-suppression",
        np.zeros((2, 4), np.float32),
        np.zeros(2, np.float32),
        np.zeros((2, 0, 2), np.float32),
    )
    assert nothing["keypoints"].shape == (0, 0, 2)
