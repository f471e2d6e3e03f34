from __future__ import annotations

import math
from typing import Any

import pytest

from cloud_fallback.outbox import Outbox, Request
from edge_runtime import ErrorCode, HybridgeError


@pytest.mark.parametrize(
    "wrong",
    [
        {"body": "text"},
        {"body": None},
        {"destination": ""},
        {"destination": "a\0b"},
        {"destination": "\ud800"},
        {"priority": 2**63},
        {"priority": 1.5},
        {"max_age_s": 0},
        {"max_age_s": -1},
        {"max_age_s": math.nan},
        {"max_age_s": True},
        {"id": ""},
        {"id": "x" * 129},
        {"id": "two\nlines"},
        {"id": "köln"},
        {"id": " padded"},
    ],
)
def test_what_cannot_be_kept_is_refused_when_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(HybridgeError) as caught:
        Request(**({"body": b"x", "destination": "digits"} | wrong))
    assert caught.value.code is ErrorCode.INPUT_INVALID
    assert next(iter(wrong)) in caught.value.message


@pytest.mark.parametrize(
    "metadata",
    [
        {"array": object()},
        {"number": math.nan},
        {"long": "x" * 5000},
        {("a", "b"): 1},
    ],
)
def test_metadata_that_json_does_not_have_is_refused_and_leaves_nothing(
    open_outbox: Any, metadata: dict[Any, Any]
) -> None:
    outbox: Outbox = open_outbox()
    with pytest.raises(HybridgeError) as caught:
        outbox.put_many([Request(b"x", "digits"), Request(b"x", "digits", metadata=metadata)])
    assert caught.value.code is ErrorCode.INPUT_INVALID
    assert outbox.depth == 0


def test_requests_have_ids_of_their_own_and_hide_their_bodies() -> None:
    one, other = Request(b"secret", "digits"), Request(b"secret", "digits")
    assert one.id != other.id
    assert len(one.id) == 32
    assert "secret" not in repr(one)
