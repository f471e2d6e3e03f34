from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.data import check_varied, generate, load_dataset
from edge_runtime import ErrorCode, HybridgeError, TensorSpec
from edge_runtime.manifest import PreprocessingStep, RawInput

IMAGE = (TensorSpec("image", (1, 2, 2, 1), "float32"),)
PAIR = (TensorSpec("left", (1, 3), "float32"), TensorSpec("right", (1,), "int32"))


def images(count: int = 4) -> np.ndarray[Any, Any]:
    return np.arange(count * 4, dtype=np.float32).reshape(count, 2, 2, 1)


def test_a_dataset_keeps_arrays_labels_and_the_models_order(tmp_path: Path) -> None:
    left, right = np.ones((5, 3), np.float32), np.zeros(5, np.int32)
    np.savez(tmp_path / "data.npz", right=right, left=left, label=np.arange(5))
    data = load_dataset(tmp_path / "data.npz", PAIR)
    assert list(data.inputs) == ["left", "right"]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2, 3, 4]
    assert len(data) == 5


def test_batches_are_filled_up_with_the_last_sample() -> None:
    batches = list(load_dataset({"image": images(5)}, IMAGE).batches(3))
    assert [batch["image"][:, 0, 0, 0].tolist() for batch in batches] == [[0, 4, 8], [12, 16, 16]]


def test_the_digest_is_that_of_names_and_values_not_of_their_order_or_labels() -> None:
    left, right = np.ones((2, 3), np.float32), np.zeros(2, np.int32)
    digest = load_dataset({"left": left, "right": right}, PAIR).digest
    assert load_dataset({"right": right, "left": left, "label": np.array([0, 1])}, PAIR).digest == digest
    assert load_dataset({"left": left * 2, "right": right}, PAIR).digest != digest


def test_an_input_that_is_named_label_is_an_input() -> None:
    specs = (TensorSpec("label", (1, 2), "float32"),)
    data = load_dataset({"label": np.zeros((3, 2), np.float32)}, specs)
    assert data.labels is None
    assert data.inputs["label"].shape == (3, 2)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"picture": images()}, "arrays named picture, expected image"),
        ({}, "nothing"),
        ({"image": images(0)}, "no samples"),
        ({"image": images().reshape(4, 4)}, "shape (4, 4), expected shape (samples, 2, 2, 1)"),
        ({"image": images().astype(np.float64)}, "float64, expected float32"),
        ({"image": images() * np.nan}, "not finite, first in sample 0"),
        ({"image": np.where(images() == 9, np.inf, images())}, "first in sample 2"),
        ({"image": images(), "label": np.arange(3)}, "label with 3 samples"),
        ({"image": images(), "label": np.eye(4)}, "argmax"),
        ({"image": images(), "label": np.array([0, 1, -1, 2])}, "index of its class"),
        ({"image": np.float32(3)}, "no samples"),
    ],
)
def test_data_that_does_not_fit_is_refused(arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(HybridgeError) as caught:
        load_dataset(arrays, IMAGE)
    assert caught.value.code is ErrorCode.DATA_INVALID
    assert said in caught.value.message


def test_arrays_that_no_one_asked_for_are_left_out_and_said() -> None:
    data = load_dataset({"image": images(), "names": np.array(list("abcd")), "extra": images()}, IMAGE)
    assert list(data.inputs) == ["image"]
    (note,) = data.notes
    assert "not used: extra, names" in note
    assert "--slice names" in note
    assert load_dataset({"image": images(), "label": np.arange(4)}, IMAGE).notes == ()


def test_slices_are_groups_of_samples_by_name() -> None:
    writers = np.array([b"ann", b"bob", b"ann", b"cy"])
    arrays = {
        "image": images(),
        "label": np.array([0, 1, 1, 0]),
        "writer": writers,
        "day": np.arange(4, dtype=np.uint8),
        "night": np.array([True, False, True, True]),
    }
    data = load_dataset(arrays, IMAGE, slices=("writer", "night", "day", "label"), labels=("cat", "dog"))
    assert list(data.slices) == ["writer", "night", "day", "label"]
    assert data.slices["writer"].tolist() == ["ann", "bob", "ann", "cy"]
    assert data.slices["night"].tolist() == ["true", "false", "true", "true"]
    assert data.slices["day"].tolist() == [0, 1, 2, 3]
    assert data.slices["label"].tolist() == ["cat", "dog", "dog", "cat"]
    unnamed = load_dataset(arrays, IMAGE, slices=("label",))
    assert unnamed.slices["label"].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("arrays", "name", "said"),
    [
        ({}, "writer", "leave out --slice writer"),
        ({}, "label", "no labels to slice by"),
        ({"writer": np.linspace(0, 1, 4)}, "writer", "bins"),
        ({"writer": np.zeros((4, 2), int)}, "writer", "of shape (4,)"),
        ({"writer": np.zeros(3, int)}, "writer", "writer with 3 samples"),
    ],
)
def test_a_slice_that_groups_nothing_is_refused(arrays: dict[str, Any], name: str, said: str) -> None:
    with pytest.raises(HybridgeError) as caught:
        load_dataset({"image": images(), **arrays}, IMAGE, slices=(name,))
    assert caught.value.code is ErrorCode.DATA_INVALID
    assert said in caught.value.message


def test_a_limit_takes_an_even_choice_in_which_classes_keep_their_shares() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    arrays = {"image": images(1000), "label": labels, "row": np.arange(1000)}
    data = load_dataset(arrays, IMAGE, slices=("row",), limit=100)
    assert data.labels is not None
    assert np.bincount(data.labels).tolist() == [60, 30, 10]
    rows = data.slices["row"]
    assert (np.diff(rows) > 0).all()
    assert (data.inputs["image"][:, 0, 0, 0] == rows * 4).all()
    assert not np.array_equal(rows, np.arange(0, 1000, 10))
    again = load_dataset(arrays, IMAGE, slices=("row",), limit=100)
    assert again.digest == data.digest
    assert np.array_equal(again.slices["row"], rows)
    assert load_dataset(arrays, IMAGE, limit=1000).digest == load_dataset(arrays, IMAGE).digest != data.digest
    with pytest.raises(HybridgeError, match="1 or more"):
        load_dataset(arrays, IMAGE, limit=0)


def test_only_what_is_used_must_be_sound() -> None:
    arrays = images(50)
    arrays[np.setdiff1d(np.arange(50), load_used_rows())] = np.nan
    assert len(load_dataset({"image": arrays}, IMAGE, limit=5)) == 5


def load_used_rows() -> list[int]:
    data = load_dataset({"image": images(50)}, IMAGE, limit=5)
    return [int(row) for row in data.inputs["image"][:, 0, 0, 0] // 4]


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.full((4, 2, 2, 1), 7, np.float32), "one constant value in all of 4 samples"),
        (np.full((1, 2, 2, 1), 7, np.float32), "one constant value in all of 1 sample"),
        (np.repeat(images(1), 3, axis=0), "3 samples that are all the same"),
    ],
)
def test_samples_without_variety_tell_no_range(samples: np.ndarray[Any, Any], said: str) -> None:
    with pytest.raises(HybridgeError, match=said) as caught:
        check_varied(load_dataset({"image": samples}, IMAGE))
    assert caught.value.code is ErrorCode.DATA_INVALID


def test_one_input_that_varies_is_enough() -> None:
    left, right = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, np.int32)
    check_varied(load_dataset({"left": left, "right": right}, PAIR))
    check_varied(load_dataset({"image": images(1)}, IMAGE))


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, images())
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"image,label\n1,2\n",
        npy(),
        npz(image=images())[:200],
        npz(image=np.array([{"a": 1}], object)),
        npz(),
    ],
    ids=["empty", "text", "npy", "truncated", "pickled", "no arrays"],
)
def test_a_file_that_is_no_npz_of_the_models_inputs_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(HybridgeError, match=r"data\.npz") as caught:
        load_dataset(tmp_path / "data.npz", IMAGE)
    assert caught.value.code is ErrorCode.DATA_INVALID


def test_a_missing_file_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(HybridgeError) as caught:
        load_dataset(tmp_path / "none.npz", IMAGE)
    assert caught.value.code is ErrorCode.FILE_NOT_FOUND


STEPS = (PreprocessingStep("scale", {"factor": 0.5}), PreprocessingStep("reshape", {"shape": [1, 2, 2, 1]}))


@pytest.mark.parametrize("takes", [(2, 2), (1, 2, 2)])
def test_raw_data_passes_the_steps_that_the_device_applies(takes: tuple[int, ...]) -> None:
    raw = RawInput("image", TensorSpec("image", takes, "uint8"), STEPS)
    given = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    data = load_dataset({"image": given}, IMAGE, (raw,))
    np.testing.assert_array_equal(data.inputs["image"], given.reshape(3, 2, 2, 1) * np.float32(0.5))
    assert data.digest == load_dataset({"image": given}, (TensorSpec("image", (1, 2, 2), "uint8"),)).digest


def test_steps_that_do_not_make_what_the_model_takes_are_refused() -> None:
    raw = RawInput("image", TensorSpec("image", (2, 2), "uint8"), STEPS[:1])
    with pytest.raises(HybridgeError, match="preprocessing of 'image'") as caught:
        load_dataset({"image": np.zeros((3, 2, 2), np.uint8)}, IMAGE, (raw,))
    assert caught.value.code is ErrorCode.DATA_INVALID
    with pytest.raises(HybridgeError, match="preprocessing of 'image'"):
        generate(IMAGE, 3, (raw,))


def test_generated_data_fits_the_model_and_is_the_same_each_time() -> None:
    first, second = generate(PAIR, 6), generate(PAIR, 6)
    assert first.inputs["left"].shape == (6, 3)
    assert first.inputs["right"].dtype == np.int32
    assert set(first.inputs["right"].tolist()) <= {0, 1}
    assert first.digest == second.digest
    assert generate(PAIR, 6, seed=1).digest != first.digest


def test_text_cannot_be_generated() -> None:
    with pytest.raises(HybridgeError, match="string") as caught:
        generate((TensorSpec("text", (1,), "string"),), 2)
    assert caught.value.code is ErrorCode.DATA_INVALID
