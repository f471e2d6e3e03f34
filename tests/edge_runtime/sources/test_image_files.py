from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="images need the 'vision' extra")

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.frame import Frame
from edge_runtime.sources import ImageFiles
from tests.edge_runtime.sources.media import jpeg, photograph


def test_a_folder_gives_its_images_by_name_in_rgb(tmp_path: Path) -> None:
    image = photograph()
    image[:, :, 0] = 255  # red
    for name in ("b.jpg", "a.JPG", "c.png.txt", ".hidden.jpg"):
        (tmp_path / name).write_bytes(jpeg(image))
    (tmp_path / "folder.jpg").mkdir()
    with ImageFiles(tmp_path, name="photo") as source:
        frames = list(source)
    assert source.length == 2
    assert not source.live
    assert [frame.name for frame in frames if isinstance(frame, Frame)] == ["a.JPG", "b.jpg"]
    first = frames[0]
    assert isinstance(first, Frame)
    read = np.asarray(first.inputs["photo"])
    assert read.shape == (48, 64, 3)
    assert read.dtype == np.uint8
    assert read[:, :, 0].mean() > 240 > read[:, :, 1].mean()


def test_one_that_is_cut_off_or_missing_or_empty_is_one_error_each_and_the_rest_go_on(tmp_path: Path) -> None:
    content = jpeg(photograph())
    (tmp_path / "1.jpg").write_bytes(content)
    (tmp_path / "2.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "3.jpg").write_bytes(b"")
    (tmp_path / "5.jpg").write_bytes(content)
    got = list(ImageFiles([tmp_path / f"{number}.jpg" for number in (1, 2, 3, 4, 5)]))
    kinds = [type(item).__name__ for item in got]
    assert kinds == ["Frame", "HybridgeError", "HybridgeError", "HybridgeError", "Frame"]
    errors = [item for item in got if isinstance(item, HybridgeError)]
    assert [error.code for error in errors] == [
        ErrorCode.INPUT_INVALID,
        ErrorCode.INPUT_INVALID,
        ErrorCode.FILE_NOT_FOUND,
    ]
    assert all(f"{number}.jpg" in error.message for number, error in zip((2, 3, 4), errors, strict=True))


def test_bytes_and_grey(tmp_path: Path) -> None:
    content = jpeg(photograph())
    (tmp_path / "1.jpg").write_bytes(content)
    (raw,) = ImageFiles(tmp_path / "1.jpg", decode=False)
    (grey,) = ImageFiles(tmp_path / "1.jpg", channels=1)
    assert isinstance(raw, Frame)
    assert isinstance(grey, Frame)
    assert bytes(np.asarray(raw.inputs["image"])) == content
    assert np.shape(grey.inputs["image"]) == (48, 64, 1)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda folder: ImageFiles(folder), ErrorCode.FILE_NOT_FOUND),
        (lambda folder: ImageFiles(folder / "none.jpg"), ErrorCode.FILE_NOT_FOUND),
        (lambda folder: ImageFiles(folder / "none", watch=True), ErrorCode.FILE_NOT_FOUND),
        (lambda folder: ImageFiles(folder, watch=True, interval_s=0), ErrorCode.INPUT_INVALID),
        (lambda folder: ImageFiles(folder, watch=True, channels=4), ErrorCode.INPUT_INVALID),
    ],
)
def test_what_cannot_be_is_refused_at_once(tmp_path: Path, make: object, code: ErrorCode) -> None:
    with pytest.raises(HybridgeError) as caught:
        make(tmp_path)  # type: ignore[operator]
    assert caught.value.code is code


def test_a_watched_folder_waits_for_whole_files_and_gives_each_once_and_again_when_rewritten(
    tmp_path: Path,
) -> None:
    content = jpeg(photograph())
    (tmp_path / "old.jpg").write_bytes(content)
    source = ImageFiles(tmp_path, watch=True, interval_s=0.03)
    assert source.length is None
    got: list[Frame | HybridgeError] = []
    thread = threading.Thread(target=lambda: got.extend(source))
    thread.start()
    _wait_for(lambda: len(got) == 1)
    # A slow writer: at no look is the file whole, until it is.
    with (tmp_path / "slow.jpg").open("wb") as file:
        for part in range(0, len(content), len(content) // 12 + 1):
            file.write(content[part : part + len(content) // 12 + 1])
            file.flush()
            time.sleep(0.02)
    _wait_for(lambda: len(got) == 2)
    (tmp_path / "broken.jpg").write_bytes(content[:200])
    _wait_for(lambda: len(got) == 3)
    (tmp_path / ".new.jpg").write_bytes(content)
    os.replace(tmp_path / ".new.jpg", tmp_path / "old.jpg")
    _wait_for(lambda: len(got) == 4)
    time.sleep(0.15)
    source.close()
    thread.join(2)
    assert not thread.is_alive()
    assert len(got) == 4
    names = [item.name if isinstance(item, Frame) else item.code for item in got]
    assert names == ["old.jpg", "slow.jpg", ErrorCode.INPUT_INVALID, "old.jpg"]
    times = [item.time_s for item in got if isinstance(item, Frame)]
    assert times == sorted(times)


def test_a_watched_folder_that_goes_away_is_one_error(tmp_path: Path) -> None:
    folder = tmp_path / "inbox"
    folder.mkdir()
    source = ImageFiles(folder, watch=True, interval_s=0.02)
    threading.Timer(0.1, folder.rmdir).start()
    with pytest.raises(HybridgeError) as caught:
        list(source)
    assert caught.value.code is ErrorCode.FILE_NOT_FOUND


def _wait_for(condition: object) -> None:
    deadline = time.monotonic() + 5
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)
