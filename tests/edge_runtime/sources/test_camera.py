from __future__ import annotations

import logging
import threading
import time

import numpy as np
import pytest

pytest.importorskip("cv2", reason="cameras need the 'vision' extra")

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.frame import Frame
from edge_runtime.sources import Camera
from tests.edge_runtime.sources.network_camera import NetworkCamera, network_camera


def test_a_camera_in_the_network_gives_frames_in_rgb() -> None:
    with network_camera() as camera, Camera(camera.url, name="photo") as source:
        assert source.live
        assert source.length is None
        frames = iter(source)
        taken = [next(frames) for _ in range(10)]
    times = []
    for frame in taken:
        assert isinstance(frame, Frame)
        np.testing.assert_allclose(np.asarray(frame.inputs["photo"])[24, 32], (200, 40, 10), atol=6)
        times.append(frame.time_s)
    assert times == sorted(times)
    assert times[-1] > 0.05  # as they come, not faster


def test_frames_go_on_when_a_camera_that_went_is_back(caplog: pytest.LogCaptureFixture) -> None:
    with network_camera() as camera, Camera(camera.url, retry_s=5, timeout_s=1) as source:
        frames = iter(source)
        before = next(frames)
        camera.stop()
        again: list[NetworkCamera] = []
        timer = threading.Timer(0.7, lambda: again.append(NetworkCamera(camera.server_port)))
        timer.start()
        try:
            # What is still in the pipe comes first.
            frame = next(frames)
            while not again:
                frame = next(frames)
            after = [next(frames) for _ in range(5)]
        finally:
            timer.join()
            again[0].stop()
    assert isinstance(before, Frame)
    assert isinstance(frame, Frame)
    assert all(isinstance(item, Frame) for item in after)
    assert frame.time_s > 0.5
    assert "is back" in caplog.text
    assert "secret" not in caplog.text


def test_a_camera_that_hangs_is_opened_anew(caplog: pytest.LogCaptureFixture) -> None:
    with network_camera() as camera, Camera(camera.url, retry_s=5, timeout_s=0.3) as source:
        frames = iter(source)
        next(frames)
        camera.frozen = True
        timer = threading.Timer(0.6, lambda: setattr(camera, "frozen", False))
        timer.start()
        names = [frame.name for _, frame in zip(range(100), frames, strict=False) if isinstance(frame, Frame)]
        timer.join()
    assert names == [f"frame {index}" for index in range(1, 101)]
    assert "gives no frames" in caplog.text


def test_a_camera_that_stays_away_is_one_error_in_time() -> None:
    with network_camera() as camera:
        source = Camera(camera.url, retry_s=1, timeout_s=0.5)
        frames = iter(source)
        next(frames)
        camera.stop()
        start = time.monotonic()
        with pytest.raises(HybridgeError) as caught:
            list(frames)
    assert 0.9 < time.monotonic() - start < 3
    assert "no frame for 1" in caught.value.message
    assert "secret" not in caught.value.message


def test_a_camera_that_is_not_there_is_refused_at_once() -> None:
    with network_camera() as camera:
        url = camera.url
    for device in (url, 99, "/dev/video99"):
        with pytest.raises(HybridgeError) as caught:
            Camera(device, timeout_s=0.5)
        assert caught.value.code is ErrorCode.DEVICE_UNAVAILABLE
        assert "secret" not in caught.value.message


def test_closing_from_another_thread_ends_a_wait_for_a_camera_that_went() -> None:
    with network_camera() as camera:
        source = Camera(camera.url, retry_s=60, timeout_s=0.3)
        thread = threading.Thread(target=lambda: list(source))
        thread.start()
        time.sleep(0.2)
        camera.stop()
        time.sleep(0.3)
        source.close()
        thread.join(3)
        assert not thread.is_alive()


@pytest.mark.parametrize("settings", [{"width": 640}, {"fps": 5}, {"fourcc": "MJPG"}])
def test_settings_of_a_local_camera_are_refused_for_a_url(settings: dict[str, int]) -> None:
    with pytest.raises(HybridgeError) as caught:
        Camera("http://127.0.0.1:1/", **settings)  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.INPUT_INVALID


@pytest.mark.parametrize("settings", [{"width": 0}, {"fps": -1}, {"fourcc": "MJPEG"}])
def test_settings_that_cannot_be_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(HybridgeError) as caught:
        Camera(0, **settings)  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.INPUT_INVALID


def test_the_log_says_nothing_while_all_is_well(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), network_camera() as camera, Camera(camera.url) as source:
        next(iter(source))
    assert not caplog.records
