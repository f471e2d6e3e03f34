"""Answers that are at hand: those of the cloud to the same question before, and those computed beforehand."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from cloud_fallback import Action, CloudFallback
from cloud_fallback.client import answer_cache
from cloud_fallback.client.answer_cache import AnswerCache
from cloud_fallback.client.answer_table import AnswerTable
from cloud_fallback.client.question import digest
from cloud_fallback.open_inference.open_inference_pb2 import ModelMetadataResponse
from cloud_fallback.open_inference.tensors import encode_response
from edge_runtime import ErrorCode, HybridgeError, Query, Reason, Source
from tests.cloud_fallback.client.peer import Peer, question

Array = np.ndarray[Any, Any]
Ask = Callable[..., CloudFallback]


def _code(call: Callable[..., Any], *arguments: Any, **options: Any) -> ErrorCode:
    with pytest.raises(HybridgeError) as caught:
        call(*arguments, **options)
    return caught.value.code


def _arrays(size: int = 10, value: float = 0.0) -> dict[str, Array]:
    return {"y": np.full(size, value, np.float32)}


def test_the_same_question_is_asked_once(ask: Ask) -> None:
    peer = Peer()
    client = ask(peer, cache=AnswerCache())
    first = client.resolve(question(1, 2))
    second = client.resolve(question(1, 2))
    other = client.resolve(question(1, 3))
    assert (first.source, second.source, other.source) == (Source.CLOUD, Source.CACHE, Source.CLOUD)
    assert first.outputs is not None
    assert second.outputs is not None
    np.testing.assert_array_equal(first.outputs["y"], second.outputs["y"])
    # Each caller has arrays of their own.
    second.outputs["y"][:] = 7
    third = client.resolve(question(1, 2))
    assert third.outputs is not None
    np.testing.assert_array_equal(first.outputs["y"], third.outputs["y"])
    figures = client.figures()
    assert (figures.cache_hits, figures.cache_misses, figures.asked, len(peer.seen)) == (2, 2, 2, 2)
    assert figures.decisions == {(Action.ASK, Reason.UNSURE): 4}


def test_it_serves_while_the_cloud_is_away_and_a_private_query_is_not_looked_up(ask: Ask) -> None:
    peer = Peer()
    client = ask(peer, cache=AnswerCache())
    client.resolve(question(1, 2))
    client.close()
    assert client.resolve(question(1, 2)).source is Source.CACHE
    private = Query("s", {}, {"y": np.zeros(2, np.float32)}, 0.1, 0.5, private=True)
    assert client.resolve(private).reason is Reason.PRIVATE
    assert client.figures().cache_misses == 1


def test_failures_and_answers_of_no_use_are_not_kept(ask: Ask) -> None:
    def infer(request: Any, context: Any) -> Any:
        if len(peer.seen) == 1:
            context.abort(grpc.StatusCode.INTERNAL, "no")
        peer.infer = None
        response = peer.ModelInfer(request, context)
        response.outputs[0].shape[:] = [1, 2]
        return response

    peer = Peer(infer=infer)
    cache = AnswerCache()
    client = ask(peer, cache=cache)
    for reason in (Reason.CLOUD_FAILED, Reason.CLOUD_REFUSED):
        assert client.resolve(question()).reason is reason
        assert len(cache) == 0
    assert client.resolve(question()).source is Source.CLOUD
    assert len(cache) == 1


def test_an_answer_that_another_stage_was_given_is_asked_for_again(ask: Ask) -> None:
    client = ask(Peer(), cache=AnswerCache(), outputs={"y": "logits"})
    x = {"x": np.ones(2, np.float32)}
    assert client.resolve(Query("s", x, {"logits": np.zeros(2, np.float32)}, 0.1, 0.5)).source is Source.CLOUD
    assert (
        client.resolve(Query("s", x, {"logits": np.zeros(3, np.float32)}, 0.1, 0.5)).source is Source.DEVICE
    )
    assert client.resolve(Query("s", x, {"logits": np.zeros(2, np.float64)}, 0.1, 0.5)).source is Source.CACHE


def test_the_least_recently_used_go_first() -> None:
    cache = AnswerCache(max_answers=3)
    for key in (b"a", b"b", b"c"):
        cache.put(key, _arrays())
    assert cache.get(b"a") is not None
    cache.put(b"d", _arrays())
    assert [cache.get(key) is not None for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


def test_its_bytes_are_bounded_whatever_is_put() -> None:
    cache = AnswerCache(megabytes=0.01)
    for number in range(1000):
        cache.put(str(number).encode(), _arrays(number % 500))
        assert cache._bytes <= 10_000
    assert 1 <= len(cache) < 20
    cache.put(b"too large", _arrays(10_000))
    assert cache.get(b"too large") is None
    cache.put(b"999", _arrays())
    cache.put(b"999", _arrays())
    cache.clear()
    assert (len(cache), cache._bytes) == (0, 0)


def test_an_answer_ages_also_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(answer_cache, "_now", lambda: now[0])
    cache = AnswerCache(age_s=60)
    cache.put(b"a", _arrays())
    now[0] += 60
    assert cache.get(b"a") is not None
    now[0] += 0.1
    assert cache.get(b"a") is None
    assert (len(cache), cache._bytes) == (0, 0)


def test_limits_that_are_none_are_refused() -> None:
    for limits in ({"megabytes": 0}, {"age_s": -1}, {"max_answers": 0}, {"megabytes": float("nan")}):
        assert _code(AnswerCache, **limits) is ErrorCode.USAGE


def test_many_threads_share_a_cache() -> None:
    cache = AnswerCache(megabytes=0.05, max_answers=40)
    stop = threading.Event()

    def work(seed: int) -> int:
        generator = np.random.default_rng(seed)
        wrong = 0
        for _ in range(2000):
            number = int(generator.integers(0, 100))
            cache.put(str(number).encode(), _arrays(10, number))
            found = cache.get(str(number).encode())
            wrong += found is not None and found["y"][0] != number
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 0
    stop.set()
    assert len(cache) <= 40
    assert cache._bytes == sum(entry.size for entry in cache._entries.values())


def test_digests_tell_apart_what_is_different_and_only_that() -> None:
    base = np.arange(6, dtype=np.float32).reshape(2, 3)
    different: list[dict[str, Array]] = [
        {"x": base},
        {"y": base},
        {"x": base.reshape(3, 2)},
        {"x": base.astype(np.float64)},
        {"x": base.astype(np.int32)},
        {"x": base + 1},
        {"x": base.view(np.int32)},
        {"x": base, "y": base},
        {"x": base[:1], "y": base[1:]},
        {"x": np.array(["ab", "c"])},
        {"x": np.array(["a", "bc"])},
        {"x": np.array("ab")},
        {"x": np.zeros((0, 3), np.float32)},
        {"x": np.zeros(0, np.float32)},
        {"x": np.array(0.0, np.float32)},
        {"x": np.array([0.0], np.float32)},
        {},
    ]
    assert len({digest(inputs) for inputs in different}) == len(different)
    same = np.asfortranarray(base)
    strided = np.repeat(base, 2, axis=1)[:, ::2]
    assert digest({"x": same}) == digest({"x": strided}) == digest({"x": base})
    assert digest({"a": base, "b": same}) == digest({"b": same, "a": base})
    assert digest({"x": np.array(["ab", "c"])}) == digest({"x": np.array([b"ab", b"c"], object)})


@pytest.fixture
def table(ask: Ask, tmp_path: Path) -> Path:
    """Answers to (1, 2) and (3, 4), which came more often than (5, 6)."""
    path = tmp_path / "m.answers"
    seen = [{"x": np.array(values, np.float32)} for values in ((5, 6), (1, 2), (3, 4), (1, 2), (3, 4))]
    AnswerTable.build(ask(Peer()), seen, limit=2).save(path)
    return path


def test_frequent_inputs_are_answered_from_the_table_and_cost_nothing(ask: Ask, table: Path) -> None:
    peer = Peer()
    client = ask(peer, table=AnswerTable.load(table), cache=AnswerCache())
    for values in ((1, 2), (3, 4), (1, 2)):
        answer = client.resolve(question(*values))
        assert (answer.source, answer.reason) == (Source.CACHE, Reason.UNSURE)
        assert answer.outputs is not None
        assert answer.outputs["y"][0] == sum(values)
    assert client.resolve(question(5, 6)).source is Source.CLOUD
    figures = client.figures()
    assert (figures.table_hits, figures.asked, len(peer.seen)) == (3, 1, 1)


def test_a_table_of_another_model_or_version_is_refused(table: Path) -> None:
    loaded = AnswerTable.load(table)
    assert (loaded.model, loaded.model_version) == ("m", "1")
    for options in ({"model": "n"}, {"model": "m", "model_version": "2"}):
        assert _code(CloudFallback, "h:1", table=loaded, **options) is ErrorCode.DATA_INVALID
    CloudFallback("h:1", table=loaded, model="m", model_version="1").close()


def _versions(*names: str) -> ModelMetadataResponse:
    return ModelMetadataResponse(name="m", versions=names)


def test_a_table_is_not_used_when_the_endpoint_has_its_version_no_more(ask: Ask, table: Path) -> None:
    peer = Peer(metadata=_versions("2"), version="2")
    client = ask(peer, table=AnswerTable.load(table))
    limit = time.monotonic() + 5
    while client.resolve(question(1, 2)).source is Source.CACHE:
        assert time.monotonic() < limit
    # Beside a new version that is tried out, it still is.
    both = ask(Peer(metadata=_versions("1", "2"), version="2"), table=AnswerTable.load(table))
    for _ in range(50):
        assert both.resolve(question(1, 2)).source is Source.CACHE
        time.sleep(0.001)


def test_what_a_version_answered_that_is_gone_is_forgotten(ask: Ask) -> None:
    peer = Peer(metadata=_versions("1"))
    client = ask(peer, cache=AnswerCache())
    limit = time.monotonic() + 5
    client.resolve(question(1, 2))
    while not client._card.versions:
        assert time.monotonic() < limit
        time.sleep(0.005)
    assert client.resolve(question(1, 2)).source is Source.CACHE
    peer.metadata, peer.version = _versions("2"), "2"
    client.resolve(question(3, 4))
    while client.resolve(question(1, 2)).source is Source.CACHE:
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_a_damaged_table_is_refused(table: Path, tmp_path: Path) -> None:
    content = table.read_bytes()
    broken = tmp_path / "broken.answers"
    for damage in (
        b"",
        content[:10],
        content[:-1],
        content + b"x",
        content[:40] + b"\0" + content[41:],
        b"PK\3\4",
    ):
        broken.write_bytes(damage)
        assert _code(lambda: AnswerTable.load(broken)) is ErrorCode.DATA_INVALID
    assert _code(lambda: AnswerTable.load(tmp_path / "none")) is ErrorCode.FILE_NOT_FOUND
    assert _code(lambda: AnswerTable.load(table).save(table)) is ErrorCode.FILE_EXISTS


def test_a_table_is_of_one_version(ask: Ask) -> None:
    versions = itertools.count(1)
    y = np.zeros(2, np.float32)
    peer = Peer(infer=lambda _request, _context: encode_response("m", {"y": y}, version=str(next(versions))))
    inputs = [{"x": np.array([number], np.float32)} for number in range(2)]
    assert _code(lambda: AnswerTable.build(ask(peer), inputs)) is ErrorCode.CLOUD_REFUSED
    assert AnswerTable.build(ask(Peer()), []).answers == {}
