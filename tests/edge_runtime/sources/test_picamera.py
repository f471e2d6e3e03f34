"""The camera at a Raspberry Pi's ribbon cable needs that hardware: a stand-in holds us to the calls of its library."""

from __future__ import annotations

import sys
import threading
import time
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.frame import Frame
from edge_runtime.sources import Picamera


class _Job:
    def __init__(self, result: Any):
        self.result = result


class _Camera:
    """The part of `picamera2.Picamera2` (0.3) that is used, in the order that it demands."""

    made: list[_Camera]
    frames = 5
    attached = 1

    def __init__(self, camera_num: int = 0):
        if camera_num >= self.attached:
            raise RuntimeError(f"No camera number {camera_num} found")
        self.calls: list[str] = []
        self.left = self.frames
        self.made.append(self)

    def create_video_configuration(self, main: dict[str, Any], controls: dict[str, Any]) -> dict[str, Any]:
        assert main["format"] == "BGR888"
        return {"main": main, "controls": controls}

    def configure(self, camera_config: dict[str, Any]) -> None:
        self.config = camera_config

    def start(self) -> None:
        if self.config["controls"].get("FrameRate", 1) > 1000:
            raise RuntimeError("Failed to start camera")
        self.calls.append("start")

    def capture_array(self, name: str = "main", wait: bool | None = None) -> _Job:
        assert "start" in self.calls
        assert "close" not in self.calls
        assert (name, wait) == ("main", False)
        width, height = self.config["main"]["size"]
        self.left -= 1
        # Rows are aligned to more than they hold, and the array is a view of that.
        return _Job(np.zeros((height, width + 5, 3), np.uint8)[:, :width] if self.left >= 0 else None)

    def wait(self, job: _Job, timeout: float) -> Any:
        if job.result is None:
            time.sleep(timeout)
            raise TimeoutError
        return job.result

    def cancel_all_and_flush(self) -> None:
        self.calls.append("cancel")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture(autouse=True)
def _library(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("picamera2")
    module.Picamera2 = _Camera  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    monkeypatch.setattr(_Camera, "made", [], raising=False)


def test_frames_and_the_order_of_calls() -> None:
    with Picamera(width=40, height=30, fps=15, controls={"AeEnable": False}) as source:
        assert source.live
        frames = [frame for _, frame in zip(range(5), source, strict=False)]
    for frame in frames:
        assert isinstance(frame, Frame)
        assert np.shape(frame.inputs["image"]) == (30, 40, 3)
        assert np.asarray(frame.inputs["image"]).flags.c_contiguous
    (camera,) = _Camera.made
    assert camera.config["controls"] == {"FrameRate": 15.0, "AeEnable": False}
    assert camera.calls == ["start", "cancel", "close"]


def test_a_camera_that_gives_nothing_more_is_one_error_and_is_closed() -> None:
    source = Picamera(timeout_s=0.3)
    with pytest.raises(HybridgeError, match="gives frames; check the cable"):
        list(source)
    assert _Camera.made[0].calls == ["start", "cancel", "close"]


def test_closing_from_another_thread_ends_a_wait() -> None:
    source = Picamera(timeout_s=60)
    thread = threading.Thread(target=lambda: list(source))
    thread.start()
    while _Camera.made[0].left >= 0:
        time.sleep(0.01)
    source.close()
    thread.join(2)
    assert not thread.is_alive()
    assert _Camera.made[0].calls == ["start", "cancel", "close"]


def test_a_camera_that_is_not_there_or_does_not_start_is_one_error() -> None:
    with pytest.raises(HybridgeError) as caught:
        Picamera(1)
    assert caught.value.code is ErrorCode.DEVICE_UNAVAILABLE
    with pytest.raises(HybridgeError, match="Failed to start"):
        Picamera(fps=2000)
    assert _Camera.made[0].calls == ["close"]


def test_without_the_library_the_error_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(HybridgeError, match="apt install python3-picamera2") as caught:
        Picamera()
    assert caught.value.code is ErrorCode.EXTRA_MISSING
