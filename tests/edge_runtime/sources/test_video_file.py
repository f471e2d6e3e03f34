from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="videos need the 'vision' extra")

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.frame import Frame
from edge_runtime.sources import VideoFile
from tests.edge_runtime.sources.media import write_video


def _red(frame: Frame | HybridgeError) -> int:
    assert isinstance(frame, Frame)
    image = np.asarray(frame.inputs["image"])
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8
    assert abs(int(image[24, 32, 2]) - 200) < 12  # blue, which does not change
    return int(image[24, 32, 0])


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mp4v"), ("a.avi", "MJPG"), ("12:30 a.mkv", "mp4v")])
def test_a_video_gives_its_frames_in_rgb_with_their_times(tmp_path: Path, name: str, codec: str) -> None:
    write_video(tmp_path / name, codec=codec)
    with VideoFile(tmp_path / name) as source:
        assert source.length == 30
        assert source.fps == 25
        assert not source.live
        frames = list(source)
    assert len(frames) == 30
    for index, frame in enumerate(frames):
        assert abs(_red(frame) - 8 * index) < 12
        assert isinstance(frame, Frame)
        assert frame.time_s == pytest.approx(index / 25, abs=0.002)
        assert frame.name == f"frame {index}"


def test_every_third_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", frames=10)
    with VideoFile(tmp_path / "a.avi", every=3) as source:
        assert source.length == 4
        frames = list(source)
    assert [frame.name for frame in frames if isinstance(frame, Frame)] == [
        "frame 0",
        "frame 3",
        "frame 6",
        "frame 9",
    ]
    assert abs(_red(frames[3]) - 72) < 12


def test_a_video_that_is_cut_off_ends_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_video(tmp_path / "a.avi", frames=60)
    content = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        frames = list(VideoFile(tmp_path / "a.avi"))
    assert 10 < len(frames) < 50
    assert f"ends after {len(frames)} of 60 frames" in caplog.text


def test_a_whole_video_ends_without_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_video(tmp_path / "a.avi")
    list(VideoFile(tmp_path / "a.avi"))
    assert not caplog.records


@pytest.mark.parametrize("keep", [0, 10, 0.6])
def test_what_is_no_video_is_one_clear_error(tmp_path: Path, keep: float) -> None:
    write_video(tmp_path / "a.mp4", codec="mp4v")
    content = (tmp_path / "a.mp4").read_bytes()
    size = int(keep if keep > 1 else keep * len(content))
    (tmp_path / "a.mp4").write_bytes(content[:size])  # the table of an .mp4 is at its end
    with pytest.raises(HybridgeError) as caught:
        VideoFile(tmp_path / "a.mp4")
    assert caught.value.code is ErrorCode.INPUT_INVALID
    with pytest.raises(HybridgeError) as caught:
        VideoFile(tmp_path / "none.mp4")
    assert caught.value.code is ErrorCode.FILE_NOT_FOUND
    with pytest.raises(HybridgeError) as caught:
        VideoFile(tmp_path / "a.mp4", every=0)
    assert caught.value.code is ErrorCode.INPUT_INVALID


def test_a_video_damaged_in_its_middle_still_gives_frames_or_one_error(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=60, codec="mp4v")
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    random = np.random.default_rng(0)
    for place in random.integers(100, len(content) * 8 // 10, 40):
        content[place] ^= 0xFF
    (tmp_path / "a.mp4").write_bytes(content)
    try:
        frames = list(VideoFile(tmp_path / "a.mp4"))
    except HybridgeError as error:
        assert error.code is ErrorCode.INPUT_INVALID  # noqa: PT017
    else:
        assert frames
