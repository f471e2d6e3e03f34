from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from convert.data import load_dataset
from edge_runtime import ErrorCode, HybridgeError, TensorSpec
from edge_runtime.manifest import PreprocessingStep, RawInput

COLOR = (TensorSpec("image", ("batch", 4, 6, 3), "float32"),)
GREY = (TensorSpec("image", (1, 4, 6, 1), "uint8"),)


def write(path: Path, image: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def plain(red: int, green: int, blue: int, size: tuple[int, int] = (4, 6)) -> np.ndarray[Any, Any]:
    """An image of one colour, as OpenCV has it: blue first."""
    return np.full((*size, 3), (blue, green, red), np.uint8)


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    write(tmp_path / "dogs" / "2.png", plain(0, 0, 255))
    write(tmp_path / "dogs" / "1.PNG", plain(0, 255, 0, (9, 5)))
    write(tmp_path / "cats" / "deep" / "x.jpg", plain(255, 0, 0))
    write(tmp_path / "cats" / ".hidden.png", plain(0, 0, 0))
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cats" / "notes.txt").write_text("not an image")
    return tmp_path


def test_a_folder_a_class_gives_rgb_images_of_the_models_size_and_labels_in_sorted_order(
    animals: Path,
) -> None:
    data = load_dataset(animals, COLOR)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 1]
    images = data.inputs["image"]
    assert images.shape == (3, 4, 6, 3)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images[0, 0, 0], (254, 0, 0), atol=2)  # JPEG rounds
    np.testing.assert_array_equal(images[1, 2, 3], (0, 255, 0))
    np.testing.assert_array_equal(images[2, 3, 5], (0, 0, 255))
    assert load_dataset(str(animals), COLOR).digest == data.digest


def test_folders_are_matched_to_the_names_of_classes(animals: Path) -> None:
    labels = ("dogs", "birds", "cats")
    data = load_dataset(animals, COLOR, labels=labels, slices=("label",))
    assert data.labels is not None
    assert data.labels.tolist() == [2, 0, 0]
    assert data.slices["label"].tolist() == ["cats", "dogs", "dogs"]
    with pytest.raises(HybridgeError) as caught:
        load_dataset(animals, COLOR, labels=("cat", "dog"))
    assert "folders named cats, dogs" in caught.value.message
    assert "cat, dog" in caught.value.message


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    write(tmp_path / "b.bmp", plain(0, 0, 0))
    write(tmp_path / "a.png", plain(255, 255, 255))
    data = load_dataset(tmp_path, GREY)
    assert data.labels is None
    assert data.inputs["image"].dtype == np.uint8
    assert data.inputs["image"][:, 0, 0, 0].tolist() == [255, 0]
    rows = (TensorSpec("image", (1, 4, 6), "float32"),)
    assert load_dataset(tmp_path, rows).inputs["image"].shape == (2, 4, 6)


def test_a_limit_takes_images_of_every_class(tmp_path: Path) -> None:
    for index in range(12):
        write(tmp_path / ("a" if index < 8 else "b") / f"{index:02}.png", plain(index, 0, 0))
    data = load_dataset(tmp_path, COLOR, limit=3)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 1]


def test_shrinking_averages_and_keeps_no_aspect(tmp_path: Path) -> None:
    checkered = np.indices((8, 12)).sum(0)[:, :, np.newaxis] % 2 * np.full(3, 255)
    write(tmp_path / "1.png", checkered.astype(np.uint8))
    image = load_dataset(tmp_path, COLOR).inputs["image"]
    assert set(np.unique(image)) <= {127, 128}


def test_preprocessing_takes_images_of_any_size_or_the_files_bytes(animals: Path) -> None:
    steps = (
        PreprocessingStep("resize", {"height": 4, "width": 6}),
        PreprocessingStep("scale", {"factor": 1 / 255}),
        PreprocessingStep("expand-dims", {}),
    )
    raw = RawInput("image", TensorSpec("image", ("height", "width", 3), "uint8"), steps)
    data = load_dataset(animals, COLOR, (raw,))
    np.testing.assert_allclose(
        data.inputs["image"], load_dataset(animals, COLOR).inputs["image"] / 255, atol=1e-6
    )
    file = RawInput(
        "image", TensorSpec("image", ("bytes",), "uint8"), (PreprocessingStep("decode", {}), *steps)
    )
    np.testing.assert_array_equal(load_dataset(animals, COLOR, (file,)).inputs["image"], data.inputs["image"])
    fixed = RawInput("image", TensorSpec("image", (4, 6, 3), "uint8"), steps[1:])
    assert load_dataset(animals, COLOR, (fixed,)).inputs["image"].shape == (3, 4, 6, 3)


def test_an_image_is_turned_as_its_exif_data_says(tmp_path: Path) -> None:
    upright = np.zeros((16, 8, 3), np.uint8)
    upright[:8] = 255
    encoded = cv2.imencode(".jpg", upright)[1].tobytes()
    turned = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(turned) + 2).to_bytes(2, "big") + turned
    (tmp_path / "1.jpg").write_bytes(encoded[:2] + segment + encoded[2:])
    image = load_dataset(tmp_path, (TensorSpec("image", (1, 8, 16, 1), "uint8"),)).inputs["image"][0, :, :, 0]
    # Turned a quarter to the right: what was on top is at the right.
    assert image[:, 12:].min() > 200
    assert image[:, :4].max() < 50


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ((*COLOR, TensorSpec("other", (1, 2), "float32")), "2 inputs"),
        ((TensorSpec("image", (1, 784), "float32"),), "float32 of shape (1, 784)"),
        ((TensorSpec("image", (1, 4, 6, 4), "float32"),), "--preprocessing"),
        ((TensorSpec("image", (1, 4, 6, 3), "int8"),), "int8"),
        ((TensorSpec("image", (1, 4, 6, 3), "string"),), "string"),
    ],
)
def test_a_model_that_takes_no_single_image_is_refused(
    animals: Path, inputs: tuple[TensorSpec, ...], said: str
) -> None:
    with pytest.raises(HybridgeError) as caught:
        load_dataset(animals, inputs)
    assert caught.value.code is ErrorCode.DATA_INVALID
    assert said in caught.value.message


def test_folders_that_hold_no_clear_dataset_are_refused(animals: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    (empty / "class").mkdir(parents=True)
    with pytest.raises(HybridgeError, match="no images"):
        load_dataset(empty, COLOR)
    write(animals / "lost.png", plain(1, 2, 3))
    with pytest.raises(HybridgeError, match=r"images beside folders of images \(lost.png, cats/\)"):
        load_dataset(animals, COLOR)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n rubbish"])
def test_an_image_that_cannot_be_read_is_named(animals: Path, content: bytes) -> None:
    (animals / "dogs" / "3.png").write_bytes(content)
    with pytest.raises(HybridgeError, match=r"image 'dogs/3\.png'") as caught:
        load_dataset(animals, COLOR)
    assert caught.value.code is ErrorCode.DATA_INVALID


def test_a_link_that_leads_nowhere_is_not_passed_over(animals: Path) -> None:
    (animals / "dogs" / "3.png").symlink_to(animals / "gone.png")
    with pytest.raises(HybridgeError, match=r"dogs/3\.png.*No such file"):
        load_dataset(animals, COLOR)


def test_the_current_folder_is_a_dataset_and_an_empty_path_is_not(
    animals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(animals)
    assert len(load_dataset(".", COLOR)) == 3
    with pytest.raises(HybridgeError) as caught:
        load_dataset("", COLOR)
    assert caught.value.code is ErrorCode.FILE_NOT_FOUND


def test_a_folder_of_images_has_no_slices_but_its_classes(animals: Path) -> None:
    with pytest.raises(HybridgeError, match="slices writer"):
        load_dataset(animals, COLOR, slices=("writer",))
