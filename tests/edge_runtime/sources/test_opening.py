from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="images need the 'vision' extra")

from edge_runtime import ErrorCode, HybridgeError, TensorSpec
from edge_runtime.frame import Frame
from edge_runtime.sources import (
    ArrayFiles,
    AudioFiles,
    Camera,
    ImageFiles,
    JsonLines,
    Source,
    VideoFile,
    open_source,
)
from tests.edge_runtime.sources.media import jpeg, photograph, write_video
from tests.edge_runtime.sources.network_camera import network_camera
from tests.edge_runtime.sources.sounds import wave_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images/a.jpg", "images/b.jpg", "images/notes.txt", "single[1].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg(photograph()))
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds/a.wav").write_bytes(wave_file(np.zeros((9, 1), "<i2")))
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays/a.npy", np.zeros(3))
    write_video(tmp_path / "a.AVI", frames=2)
    (tmp_path / "a.jsonl").write_text('{"x": [1]}\n')
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "kind", "inputs"),
    [
        ("images", ImageFiles, ["image", "image"]),
        ("images/", ImageFiles, ["image", "image"]),
        ("images/b.jpg", ImageFiles, ["image"]),
        ("images/*.jpg", ImageFiles, ["image", "image"]),
        ("**/*.jpg", ImageFiles, ["image", "image", "image"]),
        ("single[1].jpg", ImageFiles, ["image"]),
        ("sounds", AudioFiles, ["audio"]),
        ("sounds/a.wav", AudioFiles, ["audio"]),
        ("arrays", ArrayFiles, ["array"]),
        ("arrays/a.npy", ArrayFiles, ["array"]),
        ("a.AVI", VideoFile, ["image", "image"]),
        ("a.jsonl", JsonLines, ["x"]),
    ],
)
def test_a_text_names_a_source(folder: Path, spec: str, kind: type[Source], inputs: list[str]) -> None:
    with open_source(f"{folder}/{spec}") as source:
        assert type(source) is kind
        assert [next(iter(frame.inputs)) for frame in source if isinstance(frame, Frame)] == inputs


def test_names_and_settings_reach_the_source_and_none_is_no_setting(folder: Path) -> None:
    with open_source(f"{folder}/images", name="photo", channels=1, decode=None) as source:
        first = next(iter(source))
    assert isinstance(first, Frame)
    assert np.shape(first.inputs["photo"]) == (48, 64, 1)
    with open_source(f"{folder}/a.jsonl", name="x", specs=[TensorSpec("x", (1,), "int8")]) as source:
        first = next(iter(source))
    assert isinstance(first, Frame)
    assert np.asarray(first.inputs["x"]).dtype == np.int8
    with network_camera() as camera, open_source(camera.url.replace("user:secret@", "")) as source:
        assert type(source) is Camera


def test_an_empty_folder_is_watched_for_images(folder: Path) -> None:
    with open_source(f"{folder}/empty", watch=True) as source:
        assert type(source) is ImageFiles


@pytest.mark.parametrize(
    ("spec", "code", "says"),
    [
        ("notes.txt", ErrorCode.INPUT_INVALID, "camera[:N]"),
        ("", ErrorCode.INPUT_INVALID, ".jsonl"),
        ("gopher://host/stream", ErrorCode.INPUT_INVALID, "rtsp://"),
        ("cam:0", ErrorCode.INPUT_INVALID, "camera[:N]"),
        ("picamera:left", ErrorCode.INPUT_INVALID, "picamera[:N]"),
        ("camera:97", ErrorCode.DEVICE_UNAVAILABLE, "camera '97'"),
        ("/dev/video97", ErrorCode.DEVICE_UNAVAILABLE, "/dev/video97"),
        ("missing.jpg", ErrorCode.FILE_NOT_FOUND, "missing.jpg"),
        ("missing/*.jpg", ErrorCode.FILE_NOT_FOUND, "missing/*.jpg"),
    ],
)
def test_a_text_that_names_none_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, folder: Path, spec: str, code: ErrorCode, says: str
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(HybridgeError) as caught:
        open_source(spec)
    assert caught.value.code is code
    assert says in caught.value.message


def test_files_of_several_kinds_an_empty_folder_and_unknown_settings_are_refused(folder: Path) -> None:
    for spec, says in (("*/*", "all images"), ("empty", "files that end in .bmp")):
        with pytest.raises(HybridgeError, match=says):
            open_source(os.path.join(folder, spec))
    with pytest.raises(HybridgeError, match="received fps, expected among name, every"):
        open_source(f"{folder}/a.AVI", fps=3)
