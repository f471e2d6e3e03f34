from __future__ import annotations

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from tests.edge_runtime.operators.running import run


def test_scaling_and_normalising_compute_what_they_say() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_allclose(run("scale", image, factor=0.5, offset=-1)["array"], image * 0.5 - 1)
    normalized = run("normalize", image, mean=[1, 2, 3], std=[2, 2, 4])["array"]
    np.testing.assert_allclose(normalized, (image - np.array([1, 2, 3])) / np.array([2, 2, 4]))
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    np.testing.assert_allclose(
        run("normalize", image, factor=1 / 255, **imagenet)["array"],
        (image / 255 - np.array(imagenet["mean"])) / np.array(imagenet["std"]),
        rtol=1e-5,
    )
    np.testing.assert_allclose(run("normalize", image, mean=[127.5], std=[127.5])["array"], image / 127.5 - 1)
    np.testing.assert_allclose(run("normalize", image[0, 0], mean=[1, 2, 3])["array"], [-1, -1, -1])
    assert run("normalize", np.zeros((0, 4, 3), np.uint8), mean=[1, 2, 3])["array"].shape == (0, 4, 3)
    with pytest.raises(HybridgeError) as caught:
        run("normalize", image[:, :, :2], mean=[1, 2, 3])
    assert caught.value.code is ErrorCode.INPUT_SHAPE


def test_normalising_leaves_its_input_as_it_was() -> None:
    image = np.ones((2, 2, 3), np.float32)
    run("normalize", image, mean=[1, 2, 3])
    run("normalize", image, mean=[1])
    np.testing.assert_array_equal(image, 1)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64"])
def test_casting_to_integers_rounds_and_saturates(dtype: str) -> None:
    limits = np.iinfo(dtype)
    array = np.array([-np.inf, -1e30, 1.5, 2.5, np.nan, 1e30, np.inf])
    np.testing.assert_array_equal(
        run("cast", array, dtype=dtype)["array"],
        [limits.min, limits.min, 2, 2, 0, limits.max, limits.max],
    )
    assert run("cast", np.array([0, 200], np.uint8), dtype="int8")["array"].tolist() == [0, 127]
    assert run("cast", np.array([True, False]), dtype=dtype)["array"].tolist() == [1, 0]


def test_shapes_change_and_values_stay() -> None:
    array = np.arange(6, dtype=np.int16).reshape(1, 2, 3)
    assert run("expand-dims", array)["array"].shape == (1, 1, 2, 3)
    assert run("reshape", array, shape=[-1])["array"].tolist() == list(range(6))
    assert run("squeeze", array)["array"].shape == (2, 3)
    moved = run("transpose", array, axes=[2, 0, 1])["array"]
    assert moved.shape == (3, 1, 2)
    assert moved.flags["C_CONTIGUOUS"]
    assert moved[:, 0, 1].tolist() == [3, 4, 5]
    with pytest.raises(HybridgeError):
        run("squeeze", array, axes=[1])


def test_softmax_is_probabilities_even_of_large_logits_and_integers() -> None:
    np.testing.assert_allclose(
        run("softmax", np.array([[1000.0, 1000.0]], np.float32))["logits"], [[0.5, 0.5]]
    )
    quarters = run("softmax", np.log(np.array([1.0, 2.0, 1.0])))["logits"]
    np.testing.assert_allclose(quarters, [0.25, 0.5, 0.25])
    np.testing.assert_allclose(run("softmax", np.array([[7, 7], [9, 9]], np.int32))["logits"], 0.5)
    assert np.isnan(run("softmax", np.array([1.0, np.nan]))["logits"]).all()
    assert run("softmax", np.zeros((0, 3), np.float32))["logits"].shape == (0, 3)


def test_the_best_come_first_and_nan_never_is_one() -> None:
    best = run("top-k", np.array([[0.1, 0.9, 0.5]]), k=2)
    np.testing.assert_array_equal(best["indices"], [[1, 2]])
    np.testing.assert_array_equal(best["values"], [[0.9, 0.5]])
    assert run("top-k", np.array([np.nan, 1, 3]), k=2)["indices"].tolist() == [2, 1]
    assert run("argmax", np.array([np.nan, 1, 3, 3]))["indices"] == 2
    assert run("argmax", np.array([[1, 5], [7, 3]], np.int8))["indices"].tolist() == [1, 0]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64"])
def test_integer_scores_are_ordered_to_their_limits(dtype: str) -> None:
    limits = np.iinfo(dtype)
    scores = np.array([limits.min, limits.max, 3], dtype)
    assert run("top-k", scores, k=3)["indices"].tolist() == [1, 2, 0]


def test_items_are_stacked_split_and_chosen() -> None:
    items = [np.full((2, 3), value, np.uint8) for value in (1, 2, 3)]
    batch = run("stack", items)["array"]
    assert batch.shape == (3, 2, 3)
    split = run("split", batch)["items"]
    assert [int(item[0, 0]) for item in split] == [1, 2, 3]
    assert [item.shape for item in run("split", batch, axis=2)["items"]] == [(3, 2)] * 3
    chosen = run("take-items", items, np.array([2, 0]))["items"]
    assert [int(item[0, 0]) for item in chosen] == [3, 1]
    np.testing.assert_array_equal(run("take", batch, np.array([2, 0]))["array"], batch[[2, 0]])
    assert run("concat-items", items)["array"].shape == (6, 3)
    assert run("concat", batch, batch, axis=2)["array"].shape == (3, 2, 6)
    assert run("count", items)["count"] == run("count", batch)["count"] == 3


def test_items_of_several_sizes_are_filled_at_their_ends() -> None:
    items = [np.ones((2, 3), np.float32), np.ones((1, 5), np.float32)]
    batch = run("stack", items, fill=-1)["array"]
    np.testing.assert_array_equal(batch[0], [[1, 1, 1, -1, -1]] * 2)
    np.testing.assert_array_equal(batch[1], [[1] * 5, [-1] * 5])
    with pytest.raises(HybridgeError) as caught:
        run("stack", items)
    assert caught.value.code is ErrorCode.INPUT_SHAPE
    assert "fill" in caught.value.message


def test_no_items_are_an_empty_array_of_what_they_would_be() -> None:
    empty = run("stack", [], shape=[48, 320, 3], dtype="uint8")["array"]
    assert (empty.shape, empty.dtype) == ((0, 48, 320, 3), np.uint8)
    assert run("split", empty)["items"] == []
    assert run("take-items", [], np.empty(0, np.int64))["items"] == []
    assert run("take", empty, np.empty(0, np.int64))["array"].shape == (0, 48, 320, 3)
    assert run("count", [])["count"] == 0


@pytest.mark.parametrize("indices", [[3], [-4]])
def test_an_index_beyond_the_rows_is_one_clear_error(indices: list[int]) -> None:
    for values in (np.zeros((3, 2), np.float32), [np.zeros(1)] * 3):
        with pytest.raises(HybridgeError) as caught:
            run("take-items" if isinstance(values, list) else "take", values, np.array(indices))
        assert caught.value.code is ErrorCode.INPUT_INVALID
