"""A search that is killed goes on where it was."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def begin(folder: Path, models: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.convert.search.interrupted",
            str(folder),
            str(models / "classifier.tflite"),
        ],
        stderr=subprocess.PIPE,
    )


def tried(folder: Path) -> list[str]:
    path = folder / "tried"
    return path.read_text().split() if path.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.heavy)])
def test_after_an_interruption_only_what_was_under_way_is_tried_again(
    tmp_path: Path, models: Path, how: signal.Signals
) -> None:
    first = begin(tmp_path, models)
    deadline = time.monotonic() + 60
    while len(tried(tmp_path)) < 4:
        assert time.monotonic() < deadline
        assert first.poll() is None, first.communicate()[1].decode()
        time.sleep(0.01)
    first.send_signal(how)
    first.communicate(timeout=60)
    assert first.returncode != 0
    before = tried(tmp_path)
    kept = {path.stem for path in (tmp_path / "trials").glob("*.json")}
    assert len(kept) == 3
    (tmp_path / "tried").unlink()
    second = begin(tmp_path, models)
    _, said = second.communicate(timeout=120)
    assert second.returncode == 0, said.decode()
    assert (tmp_path / "chosen").read_text() == "int8"
    after = tried(tmp_path)
    assert after[0] == before[-1]
    assert not set(after) & set(before[:-1])
    assert kept < {path.stem for path in (tmp_path / "trials").glob("*.json")}
