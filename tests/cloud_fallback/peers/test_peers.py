"""Our client against real servers of others: right answers, or the device's own and the reason."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from benchmarks.serving_vs_peers.server_process import ServerProcess
from cloud_fallback import CloudFallback
from edge_runtime import Bundle, Chain, ErrorCode, HybridgeError, Query, Reason, Source
from tests.cloud_fallback.conftest import unsure
from tests.cloud_fallback.peers.conftest import Array, Digits, Start

pytestmark = pytest.mark.heavy

OWN = np.zeros((1, 10), np.float32)


@pytest.fixture
def fallback(peer: ServerProcess) -> Iterator[CloudFallback]:
    with CloudFallback(peer.address, model="digits", deadline_s=5.0) as fallback:
        yield fallback


def _query(image: Array) -> Query:
    return unsure({"image": image}, logits=OWN)


def _slow(seconds: float) -> Array:
    return np.full((1, 8, 8, 1), -seconds, np.float32)


def _code(call: Callable[[], object]) -> ErrorCode:
    with pytest.raises(HybridgeError) as caught:
        call()
    return caught.value.code


def test_answers_are_those_of_the_model(fallback: CloudFallback, digits: Digits) -> None:
    right = 0
    for image, label, logits in zip(digits.images[:200], digits.labels, digits.logits, strict=False):
        (answer,) = fallback.infer({"image": image}).values()
        np.testing.assert_allclose(answer, logits[None], rtol=1e-5, atol=1e-5)
        right += int(answer.argmax()) == label
    assert right > 180


def test_threads_get_each_their_own_answer(fallback: CloudFallback, digits: Digits) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(fallback.resolve, map(_query, digits.images[:400])))
    assert {answer.source for answer in answers} == {Source.CLOUD}
    for answer, logits in zip(answers, digits.logits, strict=False):
        assert answer.outputs is not None
        np.testing.assert_allclose(answer.outputs["logits"], logits[None], rtol=1e-5, atol=1e-5)


def test_a_chain_asks_it_when_the_device_is_unsure(
    peer: ServerProcess, digits: Digits, make_bundle: Callable[..., Bundle]
) -> None:
    url = f"grpc://{peer.address}/digits?deadline_ms=5000"
    with (
        CloudFallback.from_url(url) as fallback,
        Chain.from_bundle(make_bundle(threshold=1.0), fallback=fallback) as chain,
    ):
        predictions = [chain.run({"image": image}) for image in digits.images[:50]]
    assert {(each.source, each.reason) for each in predictions} == {(Source.CLOUD, Reason.UNSURE)}
    shown = [f"class-{label}" for label in digits.labels[:50]]
    assert sum(each.label == label for each, label in zip(predictions, shown, strict=True)) > 45


def test_a_model_that_it_does_not_have(peer: ServerProcess, digits: Digits) -> None:
    with CloudFallback(peer.address, model="letters", deadline_s=5.0) as fallback:
        assert _code(lambda: fallback.infer({"image": digits.images[0]})) is ErrorCode.MODEL_UNKNOWN
        answer = fallback.resolve(_query(digits.images[0]))
        assert (answer.outputs, answer.reason) == (None, Reason.CLOUD_REFUSED)
        assert "letters" in answer.detail


def test_a_version_that_it_does_not_have(
    peer: ServerProcess, digits: Digits, request: pytest.FixtureRequest
) -> None:
    with CloudFallback(peer.address, model="digits", model_version="77", deadline_s=5.0) as fallback:
        if "kserve" in request.node.name:
            # Its models have no versions, and it answers whichever is asked for.
            (answer,) = fallback.infer({"image": digits.images[0]}).values()
            np.testing.assert_allclose(answer, digits.logits[:1], rtol=1e-5, atol=1e-5)
            return
        assert _code(lambda: fallback.infer({"image": digits.images[0]})) is ErrorCode.MODEL_UNKNOWN


@pytest.mark.parametrize("shape", [(1, 7, 7, 1), (2, 8, 8, 1), (64,)])
def test_an_input_of_another_shape_is_refused_and_the_next_is_answered(
    fallback: CloudFallback, digits: Digits, shape: tuple[int, ...]
) -> None:
    answer = fallback.resolve(_query(np.zeros(shape, np.float32)))
    if answer.outputs is not None:
        # MLServer leaves shapes to its models, and this one flattens.
        assert shape == (64,)
        assert answer.source is Source.CLOUD
    else:
        # What a model raises MLServer and KServe tell as INTERNAL, whoever is to blame.
        assert answer.reason in (Reason.CLOUD_REFUSED, Reason.CLOUD_FAILED)
    assert fallback.resolve(_query(digits.images[0])).source is Source.CLOUD


def test_an_output_that_it_does_not_have_is_refused(fallback: CloudFallback, digits: Digits) -> None:
    answer = fallback.resolve(unsure({"image": digits.images[0]}, boxes=OWN))
    assert (answer.outputs, answer.reason) == (None, Reason.CLOUD_REFUSED)


def test_an_output_of_another_shape_is_refused(fallback: CloudFallback, digits: Digits) -> None:
    answer = fallback.resolve(unsure({"image": digits.images[0]}, logits=np.zeros((1, 11), np.float32)))
    assert (answer.outputs, answer.reason) == (None, Reason.CLOUD_REFUSED)


def test_the_deadline_is_kept_while_it_is_slow_and_the_next_is_answered(
    peer: ServerProcess, fallback: CloudFallback, digits: Digits
) -> None:
    with CloudFallback(peer.address, model="digits", deadline_s=0.2) as hurried:
        hurried.infer({"image": digits.images[0]}, deadline_s=5.0)  # so that the connection is there
        start = time.monotonic()
        answer = hurried.resolve(_query(_slow(1.0)))
        seconds = time.monotonic() - start
    assert (answer.outputs, answer.reason) == (None, Reason.CLOUD_DEADLINE)
    assert 0.19 < seconds < 0.4
    assert fallback.resolve(_query(digits.images[0])).source is Source.CLOUD


def test_it_is_asked_again_after_it_was_killed_and_has_come_back(start: Start, digits: Digits) -> None:
    server = start()
    with CloudFallback(server.address, model="digits", deadline_s=2.0) as fallback:
        assert fallback.resolve(_query(digits.images[0])).source is Source.CLOUD
        server.kill()
        began = time.monotonic()
        gone = fallback.resolve(_query(digits.images[0]))
        assert (gone.outputs, gone.reason) == (None, Reason.CLOUD_UNAVAILABLE)
        assert time.monotonic() - began < 2.0
        start(int(server.address.rpartition(":")[2]))
        give_up = time.monotonic() + 20
        while (answer := fallback.resolve(_query(digits.images[0]))).source is not Source.CLOUD:
            assert time.monotonic() < give_up, answer.detail
            time.sleep(0.1)


def test_it_dies_while_it_is_asked(start: Start, digits: Digits) -> None:
    server = start()
    with CloudFallback(server.address, model="digits", deadline_s=10.0) as fallback:
        assert fallback.resolve(_query(digits.images[0])).source is Source.CLOUD
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(fallback.resolve, _query(_slow(5.0))) for _ in range(4)]
            time.sleep(0.5)
            began = time.monotonic()
            server.kill()
            answers = [each.result() for each in asked]
        assert time.monotonic() - began < 2.0
    assert {(answer.source, answer.reason) for answer in answers} == {
        (Source.DEVICE, Reason.CLOUD_UNAVAILABLE)
    }
