from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.sources import Microphone
from edge_runtime.sources.sample_ring import SampleRing


def test_a_ring_gives_overlapping_windows_of_what_was_written_in_pieces_of_any_size() -> None:
    random = np.random.default_rng(0)
    sound = random.standard_normal(5000).astype(np.float32)
    ring = SampleRing(1000)
    at, windows = 0, []
    while at < len(sound):
        size = int(random.integers(1, 300))
        ring.write(sound[at : at + size])
        at += size
        while (window := ring.read(400, 100, timeout_s=0)) is not None:
            windows.append(window)
    assert [start for start, _ in windows] == list(range(0, 4601, 100))
    for start, samples in windows:
        np.testing.assert_array_equal(samples, sound[start : start + 400])
    assert ring.lost == 0


def test_a_ring_that_nobody_reads_keeps_the_newest_and_counts_the_rest() -> None:
    ring = SampleRing(100)
    for first in range(0, 250, 50):
        ring.write(np.arange(first, first + 50, dtype=np.float32))
    assert ring.lost == 150
    start, samples = ring.read(100, 100, timeout_s=0) or (0, np.empty(0))
    assert start == 150
    np.testing.assert_array_equal(samples, np.arange(150, 250))
    ring.write(np.arange(1000, 1250, dtype=np.float32))  # more at once than it holds
    assert ring.lost == 300
    np.testing.assert_array_equal((ring.read(100, 100, timeout_s=0) or (0, 0))[1], np.arange(1150, 1250))


def test_a_hop_that_is_longer_than_the_window_leaves_samples_out_without_losing_any() -> None:
    ring = SampleRing(100)
    starts = []
    for first in range(0, 1000, 20):
        ring.write(np.arange(first, first + 20, dtype=np.float32))
        while (window := ring.read(10, 70, timeout_s=0)) is not None:
            starts.append(window[0])
            assert window[1][0] == window[0]
    assert starts == list(range(0, 991, 70))
    assert ring.lost == 0


def test_a_ring_waits_for_samples_of_another_thread() -> None:
    ring = SampleRing(100)
    assert ring.read(10, 10, timeout_s=0.01) is None
    threading.Timer(0.05, lambda: ring.write(np.ones(10, np.float32))).start()
    assert ring.read(10, 10, timeout_s=5) is not None


@pytest.mark.parametrize(
    "settings", [{"window_s": 0}, {"sample_rate": 0}, {"channel": -1}, {"buffer_s": 0.5}]
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(HybridgeError) as caught:
        Microphone(**settings)  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.INPUT_INVALID


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(HybridgeError, match=r"hybridge\[audio\]") as caught:
        Microphone()
    assert caught.value.code is ErrorCode.EXTRA_MISSING


# ALSA's file device gives what a file holds, much faster than it was recorded. PortAudio wants one called default.
_ALSA = """
pcm.null {{ type null }}
pcm.feed {{ type file slave {{ pcm "null" }} file "/dev/null" infile "{path}" format "raw" }}
pcm.default {{ type file slave {{ pcm "null" }} file "/dev/null" infile "{path}" format "raw" }}
"""

_LISTENER = """
import time
import numpy as np
from edge_runtime import HybridgeError
from edge_runtime.sources import Microphone
sound = np.sin(np.arange(400_000) * 0.05).astype(np.float32)
try:
    Microphone("none of this name")
except HybridgeError as error:
    print(error.code)
with Microphone("feed", window_s=0.1, hop_s=0.05, buffer_s=600) as source:
    frames = iter(source)
    for index in range(20):
        np.testing.assert_array_equal(next(frames).inputs["audio"], sound[800 * index : 800 * index + 1600])
    print(source.lost_samples)
    time.sleep(1)
    late = next(frames)
    print(source.lost_samples > 0, 2 < late.time_s <= 1 + source.lost_samples / 16000)
"""


def test_a_real_device_gives_windows_and_counts_what_was_lost(tmp_path: Path) -> None:
    if subprocess.run(
        [sys.executable, "-c", "import sounddevice"], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs the 'audio' extra and PortAudio")
    np.sin(np.arange(400_000) * 0.05).astype("<f4").tofile(tmp_path / "sound.raw")
    (tmp_path / "alsa.conf").write_text(_ALSA.format(path=tmp_path / "sound.raw"))
    listened = subprocess.run(
        [sys.executable, "-c", _LISTENER],
        env={**os.environ, "ALSA_CONFIG_PATH": str(tmp_path / "alsa.conf")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert listened.stdout.splitlines() == ["device-unavailable", "0", "True True"], listened.stderr
