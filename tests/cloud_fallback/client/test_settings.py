"""What a URL and a chain's file say of a fallback becomes one, or is refused with all that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_fallback import CloudFallback, Cost, OffloadPolicy
from cloud_fallback.client.answer_table import AnswerTable
from cloud_fallback.client.settings import FallbackSettings
from edge_runtime import ErrorCode, HybridgeError, Reason, Source, load_chain
from tests.cloud_fallback.client.certificates import Authority
from tests.cloud_fallback.client.peer import Peer, Serving

INNER = """
outputs = ["y"]
confidence = "sure"
[[stages]]
name = "answer"
operator = "scale"
inputs = { array = "x" }
outputs = { array = "y" }
[[stages]]
name = "judge"
operator = "scale"
inputs = { array = "x" }
outputs = { array = "sure" }
"""


def _refusal(
    settings: dict[str, Any], url: str = "grpc://127.0.0.1:1/m", folder: Path = Path()
) -> HybridgeError:
    with pytest.raises(HybridgeError) as caught:
        CloudFallback.from_url(url, settings=settings, folder=folder).close()
    return caught.value


def test_each_key_reaches_what_it_sets(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    AnswerTable("m", "1", {}).save(tmp_path / "m.answers")
    cert, key = authority.sign("device")
    for file in (authority.ca, cert, key):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = {
        "requests_per_hour": 100,
        "megabytes_per_hour": 2.5,
        "budget_file": "budget.json",
        "cost": {"error": 1.0, "request": 0.01},
        "online": {"cost": 0.2, "state_file": "threshold.json", "explore": 0.5, "memory": 100},
        "unanswered": "defer",
        "refuse_below": 0.2,
        "outbox": {"path": "outbox.db", "age_s": 3600, "when_full": "drop-oldest"},
        "priority": 3,
        "tls": {"ca": authority.ca.name, "cert": cert.name, "key": key.name, "server_name": "cloud.example"},
        "token_file": "token",
        "hedge": {"after_ms": 20},
        "breaker": {"failures": 3},
        "cache": {"megabytes": 1},
        "table": "m.answers",
        "payload": {"x": "jpeg:80"},
        "compression": "gzip",
    }
    assert settings.keys() | {"token_in_clear"} == set(FallbackSettings.__struct_fields__)
    url = "grpcs://127.0.0.1:1/m/1?deadline_ms=50&threshold=0.9&max_message_mb=2"
    with CloudFallback.from_url(url, settings=settings, folder=tmp_path) as fallback:
        assert (fallback.target, fallback.model, fallback.model_version) == ("127.0.0.1:1", "m", "1")
        assert fallback.deadline_s == 0.05
        policy = fallback.policy
        assert isinstance(policy, OffloadPolicy)
        assert policy.budget is not None
        assert policy.budget.left() == (100, 2.5e6)
        assert (policy.threshold, policy.unanswered, policy.refuse_below) == (0.9, "defer", 0.2)
        assert policy.cost == Cost(error=1.0, request=0.01)
        online = policy.online
        assert online is not None
        assert (online.cost, online.start, online.explore, online.memory) == (0.2, 0.9, 0.5, 100)
        assert fallback.outbox is not None
        assert fallback.outbox.path == tmp_path / "outbox.db"
        tls = fallback._connection._settings.tls
        assert tls is not None
        assert (tls.server_name, tls.key) == ("cloud.example", key.read_bytes())
        assert fallback._connection._settings.max_message_bytes == 2 * 2**20
    assert fallback.outbox.is_closed


def test_all_that_is_wrong_is_said_at_once() -> None:
    error = _refusal(
        {
            "tokn_file": "x",
            "deadlin_ms": 5,
            "hedge": "yes",
            "breaker": {"failure": 3},
            "compression": "zip",
            "q": 1,
        }
    )
    assert error.code is ErrorCode.USAGE
    for part in (
        "unknown key 'tokn_file', did you mean 'token_file'?",
        "unknown key 'deadlin_ms', did you mean 'deadline_ms'?",
        "'hedge': ",
        "`failure`",
        "'compression': ",
        "unknown key 'q', expected url,",
    ):
        assert part in error.message


def test_settings_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    assert "grpcs://" in _refusal({"tls": {}}).message
    assert _refusal({"token_file": "token"}, folder=tmp_path).code is ErrorCode.USAGE
    assert "requests_per_hour" in _refusal({"budget_file": "b.json"}, folder=tmp_path).message
    assert (
        _refusal({"tls": {"ca": "none.pem"}}, "grpcs://h:1/m", tmp_path).code is ErrorCode.CREDENTIALS_INVALID
    )
    assert _refusal({"table": "none"}, folder=tmp_path).code is ErrorCode.FILE_NOT_FOUND
    assert _refusal({"payload": {"x": "tiff"}}).code is ErrorCode.USAGE
    AnswerTable("other", "1", {}).save(tmp_path / "other.answers")
    assert (
        _refusal({"table": "other.answers", "outbox": "o.db"}, folder=tmp_path).code is ErrorCode.DATA_INVALID
    )
    # What was opened for one that cannot be is closed again.
    CloudFallback.from_url("grpc://h:1/m", settings={"outbox": "o.db"}, folder=tmp_path).close()


def test_stages_that_name_one_budget_file_spend_from_one_budget(tmp_path: Path) -> None:
    settings = {"requests_per_hour": 5, "budget_file": "budget.json"}
    first, second = (
        CloudFallback.from_url(f"grpc://h:1/{name}", settings=settings, folder=tmp_path) for name in "ab"
    )
    assert isinstance(first.policy, OffloadPolicy)
    assert isinstance(second.policy, OffloadPolicy)
    assert first.policy.budget is second.policy.budget
    error = _refusal({"requests_per_hour": 6, "budget_file": "budget.json"}, folder=tmp_path)
    assert (error.code, "elsewhere" in error.message) == (ErrorCode.USAGE, True)
    first.close()
    second.close()


def _chain(folder: Path, fallback: str) -> Path:
    """A chain of operators that is as sure as the least element of its input."""
    (folder / "inner.toml").write_text(INNER)
    path = folder / "chain.toml"
    path.write_text(
        'outputs = ["y"]\n[[stages]]\nname = "read"\nchain = "inner.toml"\n[stages.fallback]\n' + fallback
    )
    return path


def test_a_chains_file_says_it_all(serve: Callable[..., Serving], tmp_path: Path) -> None:
    peer = Peer(token="secret")
    (tmp_path / "token").write_text("secret")
    path = _chain(
        tmp_path,
        f'url = "grpc://{serve(peer).address}/m"\nthreshold = 0.5\ndeadline_ms = 5000\nrequests_per_hour = 1\n'
        'refuse_below = 0.1\ntoken_file = "token"\ntoken_in_clear = true\ncache = { age_s = 60 }\n',
    )

    def x(*values: float) -> dict[str, Any]:
        return {"x": np.array(values, np.float32)}

    with load_chain(path) as chain:
        seen = [chain.run(x(*values)) for values in ((0.9, 0.8), (0.3, 1), (0.3, 1), (0.2, 1), (0.0, 1))]
    assert [(each.source, each.reason, each.refused) for each in seen] == [
        (Source.DEVICE, Reason.CONFIDENT, False),
        (Source.CLOUD, Reason.UNSURE, False),
        (Source.CACHE, Reason.UNSURE, False),
        (Source.DEVICE, Reason.REQUEST_BUDGET, False),
        (Source.DEVICE, Reason.REQUEST_BUDGET, True),
    ]
    assert len(peer.seen) == 1


def test_what_is_wrong_in_a_chains_file_is_said_with_its_line(tmp_path: Path) -> None:
    path = _chain(tmp_path, 'url = "grpc://127.0.0.1:1/m"\nrequest_per_hour = 1\nsettings = 3\n')
    with pytest.raises(HybridgeError) as caught:
        load_chain(path)
    assert caught.value.code is ErrorCode.CHAIN_INVALID
    for part in (
        "stage 'read' (line 5): fallback: ",
        "unknown key 'request_per_hour', did you mean 'requests_per_hour'?",
        "unknown key 'settings'",
    ):
        assert part in caught.value.message
    path = _chain(tmp_path, "deadline_ms = 5\n")
    with pytest.raises(HybridgeError, match="url"):
        load_chain(path)
