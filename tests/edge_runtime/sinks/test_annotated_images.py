from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="images need the 'vision' extra")

import cv2

from edge_runtime import ErrorCode, HybridgeError, Prediction, StageTrace
from edge_runtime.frame import Frame, StreamResult
from edge_runtime.sinks import AnnotatedImages
from edge_runtime.tensor_spec import Array, Value
from tests.edge_runtime.sinks.results import answered, failed, grey


def _read(path: Path) -> Array:
    image = cv2.imread(str(path))
    assert image is not None
    return np.asarray(image[:, :, ::-1])


def _drawn(folder: Path, outputs: dict[str, Value], **settings: object) -> Array:
    """Where a picture of one grey differs from it, once written without loss."""
    with AnnotatedImages(folder, format="png", **settings) as sink:  # type: ignore[arg-type]
        sink.write(answered(0, outputs, image=grey()))
    return np.asarray((_read(folder / "frame 0.png".replace(" ", "-")) != 50).any(axis=2))


def test_pictures_are_named_like_their_frames_and_never_lead_out_of_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    names = [
        "photo.JPG",
        "../../etc/passwd",
        "frame 12",
        "photo.png",
        "..",
        "",
        "straße/übung.jpg",
        "a\\b:c\0.jpg",
        "x" * 300,
    ]
    with AnnotatedImages(out) as sink:
        for index, name in enumerate(names):
            sink.write(StreamResult(index, Frame({"image": grey()}, name), Prediction({})))
        sink.write(failed(99, image=grey()))
    expected = ["photo", "passwd", "frame-12", "photo-3", "frame-4", "frame-5", "übung", "b-c-", "x" * 100]
    assert {path.name for path in out.iterdir()} == {f"{name}.jpg" for name in expected}
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    np.testing.assert_allclose(_read(out / "photo.jpg"), 50, atol=3)


def test_boxes_quads_and_points_are_drawn_where_they_are(tmp_path: Path) -> None:
    boxes = _drawn(tmp_path / "1", {"b": np.array([[10, 20, 30, 50]], np.float32)}, boxes="b")
    assert boxes[10, 30]
    assert boxes[20, 20]
    assert boxes[30, 40]
    assert not boxes[20, 35]
    quads = _drawn(
        tmp_path / "2", {"q": np.array([[[20, 10], [50, 10], [50, 30], [20, 30]]], np.float32)}, quads="q"
    )
    np.testing.assert_array_equal(quads, boxes)
    points = _drawn(tmp_path / "3", {"p": np.array([[[20, 10, 7], [50, 30, 7]]], np.float32)}, points="p")
    assert points[10, 20]
    assert points[30, 50]
    assert points.sum() < 60


def test_items_and_batches_of_regions_are_drawn_as_one(tmp_path: Path) -> None:
    one = np.array([[10, 20, 30, 50]], np.float32)
    expected = _drawn(
        tmp_path / "1", {"b": np.array([[10, 20, 30, 50], [5, 5, 9, 9]], np.float32)}, boxes="b"
    )
    for number, value in enumerate(
        (
            [one, np.array([[5, 5, 9, 9]], np.float32)],
            np.array([[[10, 20, 30, 50], [5, 5, 9, 9]]], np.float32),
        )
    ):
        np.testing.assert_array_equal(_drawn(tmp_path / f"b{number}", {"b": value}, boxes="b"), expected)
    nothing: list[Value] = [
        [],
        np.empty((0, 4), np.float32),
        np.empty(0, np.float32),
        np.full((1, 4), np.nan, np.float32),
    ]
    for number, value in enumerate(nothing):
        assert not _drawn(tmp_path / f"n{number}", {"b": value}, boxes="b").any()


def test_texts_and_numbers_are_written_at_the_regions_and_a_label_alone_in_the_corner(tmp_path: Path) -> None:
    outputs: dict[str, Value] = {
        "b": np.array([[30, 2, 46, 60]], np.float32),
        "t": np.array(["exit"]),
        "s": np.array([0.75], np.float32),
    }
    plain = _drawn(tmp_path / "1", outputs, boxes="b")
    text = _drawn(tmp_path / "2", outputs, boxes="b", labels="t")
    both = _drawn(tmp_path / "3", outputs, boxes="b", labels=["t", "s"])
    assert plain.sum() < text.sum() < both.sum()
    with AnnotatedImages(tmp_path / "4", format="png") as sink:
        sink.write(answered(0, image=grey(), label="cat"))
    corner = (_read(tmp_path / "4" / "frame-0.png") != 50).any(axis=2)
    assert corner[:20, :20].any()
    assert not corner[30:].any()


def test_the_image_may_be_an_output_a_batch_of_one_grey_or_a_file(tmp_path: Path) -> None:
    content = np.frombuffer(cv2.imencode(".png", grey(9))[1].tobytes(), np.uint8)
    values: list[Array] = [grey(9), grey(9)[np.newaxis], grey(9)[:, :, :1], content]
    with AnnotatedImages(tmp_path, image="out", format="png") as sink:
        for index, value in enumerate(values):
            sink.write(answered(index, {"out": value}, image=grey(50)))
    assert all((_read(path) == 9).all() for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 4


def test_the_callers_image_is_not_drawn_on(tmp_path: Path) -> None:
    image = grey()
    with AnnotatedImages(tmp_path, boxes="b") as sink:
        sink.write(answered(0, {"b": np.array([[1, 1, 9, 9]], np.float32)}, image=image))
    assert (image == 50).all()


@pytest.mark.parametrize(
    ("settings", "outputs", "says"),
    [
        ({"boxes": "boxs"}, {"boxes": np.zeros((0, 4))}, "one of image, boxes"),
        ({"boxes": "b"}, {"b": np.zeros((2, 5))}, "shape (n, 4)"),
        ({"boxes": "b"}, {"b": np.array(["x"])}, "shape (n, 4)"),
        ({"quads": "b"}, {"b": np.zeros((2, 8))}, "shape (n, corners, 2)"),
        ({"points": "b"}, {"b": np.zeros((2, 1))}, "shape (..., 2 or more)"),
        ({"boxes": "b", "labels": "t"}, {"b": np.zeros((2, 4)), "t": np.array(["x"])}, "each of 2 regions"),
        ({"labels": ["t", "u"]}, {"t": np.array(["x"]), "u": np.array(["x", "y"])}, "as many of each"),
        ({"image": "b"}, {"b": np.zeros((2, 4))}, "image to draw on"),
        ({"image": "b"}, {"b": np.zeros((2, 4, 4, 3), np.uint8)}, "image to draw on"),
    ],
)
def test_tensors_that_are_not_as_named_are_one_error_told_once(
    tmp_path: Path, settings: dict[str, object], outputs: dict[str, Value], says: str
) -> None:
    with AnnotatedImages(tmp_path, **settings) as sink:  # type: ignore[arg-type]
        with pytest.raises(HybridgeError) as caught:
            sink.write(answered(0, outputs, image=grey()))
        assert says in caught.value.message
        sink.write(answered(1, outputs, image=grey()))
    assert list(tmp_path.iterdir()) == []


def test_what_a_skipped_stage_would_have_made_is_not_drawn(tmp_path: Path) -> None:
    prediction = Prediction({}, stages=(StageTrace("detect", 0.0, skipped=True),))
    with AnnotatedImages(tmp_path, boxes="b", labels="t") as sink:
        sink.write(StreamResult(0, Frame({"image": grey()}, "a"), prediction))
    np.testing.assert_allclose(_read(tmp_path / "a.jpg"), 50, atol=3)


def test_a_frame_of_two_images_asks_which(tmp_path: Path) -> None:
    result = StreamResult(0, Frame({"left": grey(), "right": grey()}, "a"), Prediction({}))
    with AnnotatedImages(tmp_path) as sink, pytest.raises(HybridgeError, match="name it with image="):
        sink.write(result)
    with AnnotatedImages(tmp_path, image="left") as sink:
        sink.write(result)


def test_pictures_that_exist_are_kept_unless_asked_and_nothing_is_left_half(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("mine")
    with AnnotatedImages(tmp_path) as sink, pytest.raises(HybridgeError) as caught:
        sink.write(answered(0, image=grey(), name="a"))
    assert caught.value.code is ErrorCode.FILE_EXISTS
    assert (tmp_path / "a.jpg").read_text() == "mine"
    with AnnotatedImages(tmp_path, overwrite=True) as sink:
        sink.write(answered(0, image=grey(), name="a"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]
    for folder in (tmp_path / "a.jpg", tmp_path / "a.jpg" / "b"):
        with pytest.raises(HybridgeError) as caught:
            AnnotatedImages(folder)
        assert caught.value.code is ErrorCode.FILE_UNWRITABLE
