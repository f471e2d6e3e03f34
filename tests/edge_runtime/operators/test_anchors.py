from __future__ import annotations

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array
from tests.edge_runtime.operators.running import run


def _nothing(classes: int = 1) -> tuple[Array, Array]:
    """What a face detector gives that finds nothing."""
    return np.zeros((1, 896, 16), np.float32), np.full((1, 896, classes), -9, np.float32)


def test_the_anchors_of_a_face_detector_lie_on_two_grids() -> None:
    offsets, _ = _nothing()
    offsets[..., 2:4] = 12.8
    found = run("decode-anchors", offsets, np.zeros((1, 896, 1), np.float32))
    middles = (found["boxes"][:, :2] + found["boxes"][:, 2:]) / 2
    # 16 x 16 cells with two anchors, 8 x 8 with six; (y, x).
    np.testing.assert_allclose(middles[:4], [[4, 4], [4, 4], [4, 12], [4, 12]])
    np.testing.assert_allclose(middles[511], [124, 124])
    np.testing.assert_allclose(middles[512:519], [[8, 8]] * 6 + [[8, 24]])
    assert len(middles) == 896
    np.testing.assert_allclose(found["boxes"][:, 2:] - found["boxes"][:, :2], 12.8, rtol=1e-5)
    np.testing.assert_allclose(found["keypoints"], np.repeat(middles[:, np.newaxis, ::-1], 6, axis=1))


def test_offsets_are_pixels_from_the_anchor_and_scores_are_sigmoids() -> None:
    offsets, scores = _nothing()
    offsets[0, 512] = [3, -2, 20, 30, *range(12)]
    scores[0, 512] = 2
    scores[0, 0] = -0.01
    found = run("decode-anchors", offsets, scores)
    np.testing.assert_allclose(found["boxes"], [[8 - 2 - 15, 8 + 3 - 10, 8 - 2 + 15, 8 + 3 + 10]], rtol=1e-5)
    np.testing.assert_allclose(found["keypoints"][0], 8 + np.arange(12).reshape(6, 2), rtol=1e-5)
    np.testing.assert_allclose(found["scores"], [1 / (1 + np.exp(-2))], rtol=1e-6)
    assert found["classes"].tolist() == [0]


def test_a_detector_of_many_classes_gives_the_best_of_each_anchor() -> None:
    # SSD MobileNet: 6 layers on a 300-pixel input, three anchors in the first and six in the others.
    settings = {
        "height": 300, "width": 300, "strides": [16, 32, 64, 100, 150, 300], "min_scale": 0.2, "max_scale": 0.95,
        "aspect_ratios": [1.0, 2.0, 0.5, 3.0, 1 / 3], "reduced_lowest_layer": True, "fixed_size": False,
        "order": "yxhw", "scales": [10, 10, 5, 5], "exponential": True, "logits": False,
    }  # fmt: skip
    anchors = 3 * 19 * 19 + 6 * (10 * 10 + 5 * 5 + 3 * 3 + 2 * 2 + 1)
    offsets, scores = np.zeros((anchors, 4), np.float32), np.zeros((anchors, 3), np.float32)
    scores[0] = [0.2, np.nan, 0.6]
    scores[-1] = [0.1, 0.9, 0.3]
    scores[1] = np.nan
    offsets[-1] = [1, -2, 5 * np.log(0.5), 5 * np.log(0.25)]
    found = run("decode-anchors", offsets, scores, **settings)
    assert found["classes"].tolist() == [2, 1]
    np.testing.assert_allclose(found["scores"], [0.6, 0.9])
    first = 300 * np.array([0.5 / 19 - 0.05, 0.5 / 19 - 0.05, 0.5 / 19 + 0.05, 0.5 / 19 + 0.05])
    np.testing.assert_allclose(found["boxes"][0], first, rtol=1e-4)
    # The last anchor lies between the last layer's size and one.
    side = np.sqrt(0.95)
    y, x, half = 0.5 + 0.1 * side, 0.5 - 0.2 * side, side / 2
    np.testing.assert_allclose(
        found["boxes"][1],
        300 * np.array([y - half * 0.5, x - half * 0.25, y + half * 0.5, x + half * 0.25]),
        rtol=1e-4,
    )
    assert found["keypoints"].shape == (2, 0, 2)


def test_nothing_found_and_nan_are_no_detections() -> None:
    offsets, scores = _nothing()
    assert run("decode-anchors", offsets, scores)["boxes"].shape == (0, 4)
    assert run("decode-anchors", offsets, np.full_like(scores, np.nan))["keypoints"].shape == (0, 6, 2)
    scores[0, :3] = 1e30
    offsets[0, 1], offsets[0, 2, 7] = np.nan, np.inf
    found = run("decode-anchors", offsets, scores)
    assert found["scores"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("offsets", "scores"), [((1, 10, 16), (1, 896, 1)), ((896, 15), (896, 1)), ((2, 896, 16), (2, 896, 1))]
)
def test_outputs_that_do_not_fit_the_anchors_are_one_clear_error(
    offsets: tuple[int, ...], scores: tuple[int, ...]
) -> None:
    with pytest.raises(HybridgeError) as caught:
        run("decode-anchors", np.zeros(offsets, np.float32), np.zeros(scores, np.float32))
    assert caught.value.code is ErrorCode.INPUT_SHAPE
