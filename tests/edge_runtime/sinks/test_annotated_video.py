from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="videos need the 'vision' extra")

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.frame import Frame
from edge_runtime.sinks import AnnotatedVideo
from edge_runtime.sources import VideoFile
from edge_runtime.tensor_spec import Array
from tests.edge_runtime.sinks.results import answered, failed, grey


def _frames(path: Path) -> list[Array]:
    with VideoFile(path) as source:
        return [np.asarray(frame.inputs["image"]) for frame in source if isinstance(frame, Frame)]


def _levels(path: Path) -> list[int]:
    return [round(float(image.mean())) for image in _frames(path)]


def _near(levels: list[int], expected: list[int]) -> bool:
    return len(levels) == len(expected) and bool(np.abs(np.subtract(levels, expected)).max() <= 4)


@pytest.mark.parametrize("name", ["out.mp4", "out.avi"])
def test_a_stream_comes_back_at_its_own_rate(tmp_path: Path, name: str) -> None:
    with AnnotatedVideo(tmp_path / name) as sink:
        for index in range(30):
            sink.write(answered(index, image=grey(8 * index), time_s=index / 25))
    assert _near(_levels(tmp_path / name), [8 * index for index in range(30)])
    with VideoFile(tmp_path / name) as source:
        assert source.fps == 25
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_colours_survive_and_what_was_found_is_drawn(tmp_path: Path) -> None:
    image = np.full((48, 64, 3), (220, 20, 20), np.uint8)
    with AnnotatedVideo(tmp_path / "out.avi", boxes="b") as sink:
        for index in range(3):
            sink.write(
                answered(
                    index, {"b": np.array([[10, 10, 40, 50]], np.float32)}, image=image, time_s=index / 10
                )
            )
    frame = _frames(tmp_path / "out.avi")[1]
    np.testing.assert_allclose(frame[25, 30], (220, 20, 20), atol=25)
    assert frame[25, 10, 1] > 100  # the box is green


def test_dropped_frames_leave_the_one_before_standing_and_a_long_pause_is_cut(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.2, 0.5, 0.6, 60.0]
    with AnnotatedVideo(tmp_path / "out.avi", hold_s=0.4) as sink:
        for index, time_s in enumerate(times):
            sink.write(answered(index, image=grey(40 * index), time_s=time_s))
    assert _near(_levels(tmp_path / "out.avi"), [0, 40, 80, 80, 80, 120, 160, 160, 160, 160, 200])


def test_frames_beyond_a_rate_that_is_asked_for_are_left_out(tmp_path: Path) -> None:
    with AnnotatedVideo(tmp_path / "out.avi", fps=10) as sink:
        for index in range(21):
            sink.write(answered(index, image=grey(10 * index), time_s=index / 20))
    assert len(_levels(tmp_path / "out.avi")) == 11


def test_pictures_without_times_get_a_frame_each_and_failed_ones_are_shown_as_they_came(
    tmp_path: Path,
) -> None:
    with AnnotatedVideo(tmp_path / "out.avi", boxes="b") as sink:
        sink.write(answered(0, {"b": np.empty((0, 4), np.float32)}, image=grey(100)))
        sink.write(failed(1, image=grey(150)))
        sink.write(failed(2))  # the source had no frame
    assert _near(_levels(tmp_path / "out.avi"), [100, 150])
    with VideoFile(tmp_path / "out.avi") as source:
        assert source.fps == 10


def test_a_frame_of_another_size_is_fitted_with_black_around(tmp_path: Path) -> None:
    with AnnotatedVideo(tmp_path / "out.avi", fps=10) as sink:
        sink.write(answered(0, image=grey(100, 48, 64)))
        sink.write(answered(1, image=grey(200, 96, 64)))
    first, second = _frames(tmp_path / "out.avi")
    assert first.shape == second.shape == (48, 64, 3)
    assert second[:, 26:38].mean() > 180
    assert second[:, :12].mean() < 20


def test_a_size_that_a_codec_does_not_take_is_one_error(tmp_path: Path) -> None:
    sink = AnnotatedVideo(tmp_path / "out.mp4", fps=10)
    with pytest.raises(HybridgeError) as caught:
        sink.write(answered(0, image=grey(0, 1, 1)))
    assert caught.value.code is ErrorCode.FILE_UNWRITABLE
    assert "1x1" in caught.value.message
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_a_failure_or_an_interrupt_leaves_a_whole_video(tmp_path: Path) -> None:
    def interrupted() -> None:
        with AnnotatedVideo(tmp_path / "a.mp4") as sink:
            for index in range(10):
                sink.write(answered(index, image=grey(), time_s=index / 10))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(_levels(tmp_path / "a.mp4")) == 10
    with AnnotatedVideo(tmp_path / "b.mp4", boxes="b") as sink:
        sink.write(answered(0, {"b": np.empty((0, 4))}, image=grey()))
        with pytest.raises(HybridgeError) as caught:
            sink.write(answered(1, image=grey()))
        assert caught.value.code is ErrorCode.OUTPUT_UNKNOWN
        sink.write(answered(2, {"b": np.empty((0, 4))}, image=grey()))
    assert len(_levels(tmp_path / "b.mp4")) == 1


def test_a_stream_without_images_writes_nothing_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), AnnotatedVideo(tmp_path / "out.mp4") as sink:
        sink.write(failed())
    assert "no image came" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "mine.mp4").write_text("mine")
    cases = [
        (tmp_path / "mine.mp4", {}, ErrorCode.FILE_EXISTS),
        (tmp_path / "none" / "a.mp4", {}, ErrorCode.FILE_UNWRITABLE),
        (tmp_path / "a.mkv", {}, ErrorCode.INPUT_INVALID),
        (tmp_path / "a.mp4", {"fps": 0}, ErrorCode.INPUT_INVALID),
        (tmp_path / "a.mp4", {"hold_s": 0}, ErrorCode.INPUT_INVALID),
    ]
    for path, settings, code in cases:
        with pytest.raises(HybridgeError) as caught:
            AnnotatedVideo(path, **settings)  # type: ignore[arg-type]
        assert caught.value.code is code
    with AnnotatedVideo(tmp_path / "mine.mp4", overwrite=True) as sink:
        sink.write(answered(0, image=grey()))
    assert len(_levels(tmp_path / "mine.mp4")) == 1


_FULL = """
import resource, sys
import numpy as np
from edge_runtime import HybridgeError
from edge_runtime.sinks import AnnotatedVideo
from tests.edge_runtime.sinks.results import answered
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
random = np.random.default_rng(0)
sink = AnnotatedVideo(sys.argv[1])
for index in range(60):
    image = random.integers(0, 256, (120, 160, 3)).astype(np.uint8)
    sink.write(answered(index, image=image, time_s=index / 25))
try:
    sink.close()
except HybridgeError as error:
    print(error.message)
"""


@pytest.mark.parametrize("name", ["out.mp4", "out.avi"])
def test_a_full_disk_is_told_and_leaves_nothing_half(tmp_path: Path, name: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", _FULL, tmp_path / name], capture_output=True, text=True, check=True
    )
    assert "of 60 frames written" in told.stdout
    assert list(tmp_path.iterdir()) == []
