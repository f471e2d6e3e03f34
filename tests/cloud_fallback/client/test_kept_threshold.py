"""A fallback's threshold that follows the cloud's answers: what it learned is there after a restart."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_fallback import CloudFallback, OffloadPolicy
from cloud_fallback.client import kept_threshold
from cloud_fallback.threshold.online_threshold import OnlineThreshold
from edge_runtime import ErrorCode, HybridgeError, Query, Source
from tests.cloud_fallback.client.peer import Peer, Serving

ONLINE = {"cost": 0.2, "state_file": "threshold.json", "explore": 0.0}


def _open(folder: Path, target: str = "127.0.0.1:1", query: str = "", **online: Any) -> CloudFallback:
    url = f"grpc://{target}/m{query}"
    return CloudFallback.from_url(url, settings={"online": ONLINE | online}, folder=folder, deadline_s=5.0)


def _online(fallback: CloudFallback) -> OnlineThreshold:
    assert isinstance(fallback.policy, OffloadPolicy)
    assert fallback.policy.online is not None
    return fallback.policy.online


def _refusal(folder: Path, **online: Any) -> HybridgeError:
    with pytest.raises(HybridgeError) as caught:
        _open(folder, **online)
    return caught.value


def _ask(fallback: CloudFallback, confidence: float, *, agrees: bool) -> Source:
    own = {"y": np.zeros(2, np.float32)}
    x = {"x": np.ones(2, np.float32)}
    return fallback.resolve(Query("s", x, own, confidence, 0.5, agrees=lambda _outputs: agrees)).source


def test_what_the_cloud_taught_is_there_after_a_restart(
    serve: Callable[..., Serving], tmp_path: Path
) -> None:
    target = serve(Peer()).address
    with _open(tmp_path, target) as fallback:
        # To begin with, at 1 - cost.
        assert _ask(fallback, 0.6, agrees=True) is Source.CLOUD
        for _ in range(60):
            _ask(fallback, 0.6, agrees=True)
        assert _ask(fallback, 0.6, agrees=True) is Source.DEVICE
        learned = _online(fallback).threshold
    assert learned <= 0.6
    with _open(tmp_path, target) as fallback:
        assert _online(fallback).threshold == learned
        assert _ask(fallback, 0.6, agrees=True) is Source.DEVICE


@pytest.mark.parametrize(
    ("query", "online", "start"),
    [("", {}, 0.8), ("?threshold=0.4", {}, 0.4), ("?threshold=0.4", {"start": 0.6}, 0.6)],
)
def test_it_begins_where_the_settings_say(
    tmp_path: Path, query: str, online: dict[str, Any], start: float
) -> None:
    for file in (None, "threshold.json"):
        with _open(tmp_path, query=query, state_file=file, **online) as fallback:
            assert _online(fallback).start == pytest.approx(start)
    # Nothing was learned, and nothing is written over what another process may have learned.
    assert not (tmp_path / "threshold.json").exists()


def test_settings_that_change_hold_for_what_was_learned(tmp_path: Path) -> None:
    online = OnlineThreshold(0.2, explore=0.0)
    for _ in range(100):
        online.decide(0.6)
        online.learn(0.6, agreed=True)
    (tmp_path / "threshold.json").write_bytes(online.to_json())
    with _open(tmp_path, cost=0.0, explore=0.1, memory=100) as fallback:
        changed = _online(fallback)
        assert (changed.cost, changed.explore, changed.memory) == (0.0, 0.1, 100)
        assert json.loads(changed.to_json())["answers"] == json.loads(online.to_json())["answers"]
        # What costs nothing is always worth it.
        assert changed.threshold > online.threshold


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2]", b"\xff\x00", b'{"version": 2}'])
def test_a_file_of_something_else_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "threshold.json").write_bytes(content)
    error = _refusal(tmp_path)
    assert error.code is ErrorCode.DATA_INVALID
    assert f"'{tmp_path / 'threshold.json'}'" in error.message
    assert "delete it, to begin anew" in error.message
    assert (tmp_path / "threshold.json").read_bytes() == content


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    assert _refusal(tmp_path, cost=1.5).code is ErrorCode.USAGE
    assert _refusal(tmp_path, learning_rate=0.1).code is ErrorCode.USAGE
    assert _refusal(tmp_path, state_file="none/threshold.json").code is ErrorCode.FILE_UNWRITABLE
    (tmp_path / "folder").mkdir()
    assert _refusal(tmp_path, state_file="folder").code is ErrorCode.FILE_NOT_FOUND


def test_stages_that_name_one_file_learn_one_threshold(tmp_path: Path) -> None:
    with _open(tmp_path) as first, _open(tmp_path) as second:
        second.close()
        second.close()
        assert _online(first) is _online(second)
        assert "the same settings wherever it is named" in _refusal(tmp_path, cost=0.3).message
    # When all are closed, it may be opened with others.
    _open(tmp_path, cost=0.3).close()


def test_it_is_saved_while_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_threshold, "_SAVED_EVERY_S", 0.0)
    with _open(tmp_path) as fallback:
        _online(fallback).learn(0.5, agreed=True)
        limit_s = time.monotonic() + 5
        while not (tmp_path / "threshold.json").exists():
            assert time.monotonic() < limit_s
            time.sleep(0.01)


def test_a_file_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    with _open(folder) as fallback:
        _online(fallback).learn(0.5, agreed=True)
        shutil.rmtree(folder)
    assert "is not kept" in caplog.text
