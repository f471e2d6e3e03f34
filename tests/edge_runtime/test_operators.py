from __future__ import annotations

import itertools

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.operators import Operator, find_operator, operator, operator_names
from edge_runtime.tensor_spec import Array


def _run(name: str, *arrays: Array, **params: object) -> dict[str, Array]:
    found = find_operator(name)
    found.check_params(params)
    return found.run(dict(zip(found.inputs, arrays, strict=True)), params)


def test_the_operators_that_the_documentation_names_exist() -> None:
    assert set(operator_names()) >= {
        "cast", "crop", "decode", "expand-dims", "non-max-suppression", "normalize", "reshape", "resize", "scale",
        "softmax", "top-k",
    }  # fmt: skip


def test_tensor_operators_compute_what_they_say() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_allclose(_run("scale", image, factor=0.5, offset=-1)["array"], image * 0.5 - 1)
    normalized = _run("normalize", image, mean=[1, 2, 3], std=[2, 2, 4])["array"]
    np.testing.assert_allclose(normalized, (image - np.array([1, 2, 3])) / np.array([2, 2, 4]))
    assert _run("scale", image)["array"].dtype == np.float32
    saturated = _run("cast", np.array([-5.0, 1.5, 2.5, 300.0]), dtype="uint8")["array"]
    np.testing.assert_array_equal(saturated, [0, 2, 2, 255])
    assert _run("expand-dims", image)["array"].shape == (1, 2, 2, 3)
    assert _run("reshape", image, shape=[-1])["array"].shape == (12,)
    chances = _run("softmax", np.array([[1000.0, 1000.0]], np.float32))["logits"]
    np.testing.assert_allclose(chances, [[0.5, 0.5]])
    best = _run("top-k", np.array([[0.1, 0.9, 0.5]]), k=2)
    np.testing.assert_array_equal(best["indices"], [[1, 2]])
    np.testing.assert_array_equal(best["values"], [[0.9, 0.5]])


def test_an_image_survives_encoding_and_decoding() -> None:
    cv2 = pytest.importorskip("cv2", reason="decoding images needs the 'vision' extra")
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    content = cv2.imencode(".png", image[:, :, ::-1])[1]
    np.testing.assert_array_equal(_run("decode", content)["image"], image)
    assert _run("decode", content, channels=1)["image"].shape == (9, 7, 1)
    assert _run("resize", image, height=4, width=5)["image"].shape == (4, 5, 3)
    assert _run("resize", image[:, :, :1], height=4, width=5, interpolation="area")["image"].shape == (
        4,
        5,
        1,
    )
    np.testing.assert_array_equal(
        _run("crop", image, top=1, left=2, height=3, width=4)["image"], image[1:4, 2:6]
    )


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0 not a whole photograph"])
def test_bytes_that_are_no_image_are_one_clear_error(content: bytes) -> None:
    pytest.importorskip("cv2", reason="decoding images needs the 'vision' extra")
    with pytest.raises(HybridgeError) as caught:
        _run("decode", np.frombuffer(content, np.uint8))
    assert caught.value.code is ErrorCode.INPUT_INVALID


def test_a_crop_beyond_the_image_is_refused() -> None:
    with pytest.raises(HybridgeError) as caught:
        _run("crop", np.zeros((4, 4, 3), np.uint8), top=2, left=0, height=3, width=1)
    assert caught.value.code is ErrorCode.INPUT_SHAPE


def _overlap(one: Array, other: Array) -> float:
    corner, opposite = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    common = float(np.prod(np.maximum(opposite - corner, 0)))
    areas = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]))
    return common / (areas - common)


def test_suppression_keeps_no_two_boxes_that_overlap_and_drops_none_without_cause() -> None:
    rng = np.random.default_rng(4)
    corners = rng.random((60, 2)) * 10
    boxes = np.concatenate([corners, corners + 1 + rng.random((60, 2)) * 4], axis=1).astype(np.float32)
    scores = rng.random(60).astype(np.float32)
    kept = _run("non-max-suppression", boxes, scores, iou_threshold=0.3)
    assert np.all(np.diff(kept["scores"]) <= 0)
    for one, other in itertools.combinations(kept["boxes"], 2):
        assert _overlap(one, other) <= 0.3 + 1e-6
    for index in set(range(60)) - set(kept["indices"].tolist()):
        better = kept["boxes"][kept["scores"] >= scores[index]]
        assert any(_overlap(boxes[index], box) > 0.3 - 1e-6 for box in better)
    assert _run("non-max-suppression", np.zeros((0, 4)), np.zeros(0))["boxes"].shape == (0, 4)


def test_whatever_an_operator_raises_is_one_error_that_says_on_what() -> None:
    @operator("test-raises")
    def raises(x: Array) -> Array:
        raise KeyError("surprise")

    with pytest.raises(HybridgeError) as caught:
        _run("test-raises", np.zeros((2, 2), np.int16))
    assert caught.value.code is ErrorCode.OPERATOR_FAILED
    assert "surprise" in caught.value.message
    assert "int16(2, 2)" in caught.value.message


def test_an_operator_cannot_take_the_name_of_another() -> None:
    with pytest.raises(HybridgeError) as caught:

        @operator("scale")
        def scale(x: Array) -> Array:
            return x

    assert caught.value.code is ErrorCode.CHAIN_INVALID
    assert isinstance(find_operator("scale"), Operator)
    assert find_operator("scale").function.__module__ == "edge_runtime.operators.tensor"


def test_an_unknown_operator_lists_those_there_are() -> None:
    with pytest.raises(HybridgeError) as caught:
        find_operator("rezise")
    assert caught.value.code is ErrorCode.OPERATOR_UNKNOWN
    assert "resize" in caught.value.message
