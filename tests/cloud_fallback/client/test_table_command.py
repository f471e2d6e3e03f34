"""`hybridge fallback table`: what it asks, what a device then need not ask, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner

from cloud_fallback import CloudFallback, Endpoint
from cloud_fallback.client.answer_table import AnswerTable
from cloud_fallback.client.table_command import table
from cloud_fallback.open_inference.tensors import encode_response
from edge_runtime import ErrorCode, HybridgeError, Source
from tests.cloud_fallback.client.peer import Peer, Serving
from tests.cloud_fallback.conftest import unsure

Array = np.ndarray[Any, Any]
# Of eight requests, five are one input and two another.
PATTERN = (0, 1, 0, 2, 0, 1, 0, 0)


@pytest.fixture
def images() -> Array:
    rng = np.random.default_rng(3)
    return rng.random((3, 8, 8, 1), dtype=np.float32)[list(PATTERN)]


@pytest.fixture
def words(endpoint: Endpoint, tmp_path: Path) -> Callable[..., list[str]]:
    def make(*more: object, model: str = "classifier", **arrays: Array) -> list[str]:
        data = tmp_path / "inputs.npz"
        if arrays:
            named: dict[str, Any] = arrays
            np.savez(data, **named)
        given = (
            "--data",
            data,
            "--cloud",
            f"grpc://{endpoint.address}/{model}",
            "--out",
            tmp_path / "a.table",
        )
        return [str(word) for word in (*given, *more)]

    return make


def _run(words: list[str]) -> Any:
    return CliRunner().invoke(table, words, catch_exceptions=False)


def _refusal(words: list[str]) -> HybridgeError:
    with pytest.raises(HybridgeError) as caught:
        _run(words)
    return caught.value


def test_the_most_frequent_inputs_are_answered_without_asking_then(
    words: Callable[..., list[str]],
    images: Array,
    tmp_path: Path,
    fallback: Callable[..., CloudFallback],
) -> None:
    result = _run(words("--top", 2, "--format", "json", image=images, label=np.arange(len(images))))
    facts = json.loads(result.stdout)
    assert (facts["inputs"], facts["distinct"], facts["kept"], facts["share"]) == (8, 3, 2, 7 / 8)
    assert facts["bytes"] == (tmp_path / "a.table").stat().st_size
    assert "not used: label" in result.stderr
    client = fallback("classifier", table=AnswerTable.load(tmp_path / "a.table"))
    own = np.zeros((1, 10), np.float32)
    for place, source in ((0, Source.CACHE), (1, Source.CACHE), (3, Source.CLOUD)):
        # As a stage has it, whose model takes a batch of one.
        answer = client.resolve(unsure({"image": images[place : place + 1]}, logits=own))
        assert answer.source is source
        asked = client.infer({"image": images[place : place + 1]})
        assert answer.outputs is not None
        assert np.array_equal(answer.outputs["logits"], asked["logits"])
    assert client.figures().table_hits == 2


def test_what_comes_less_often_than_asked_for_is_left_out(
    words: Callable[..., list[str]], images: Array, tmp_path: Path
) -> None:
    result = _run(words("--min-count", 3, image=images[:, np.newaxis]))
    assert "answers 5 of 8 requests of the data (62.5%)" in result.stdout
    assert len(AnswerTable.load(tmp_path / "a.table").answers) == 1
    assert _refusal(words()).code is ErrorCode.FILE_EXISTS
    assert _refusal(words("--min-count", 6, "--overwrite")).code is ErrorCode.DATA_INVALID
    # What is there stays when a new one fails.
    assert len(AnswerTable.load(tmp_path / "a.table").answers) == 1
    assert _run(words("--overwrite")).exit_code == 0
    assert len(AnswerTable.load(tmp_path / "a.table").answers) == 3


def test_text_is_an_input_like_others(words: Callable[..., list[str]]) -> None:
    text = np.array([["yes"], ["no"], ["yes"]])
    facts = json.loads(_run(words("--format", "json", model="strings", text=text)).stdout)
    assert (facts["distinct"], facts["kept"], facts["share"]) == (2, 2, 1.0)


def test_many_questions_say_how_far_they_are(words: Callable[..., list[str]]) -> None:
    result = _run(words(model="linear", x=np.arange(600, dtype=np.float32).reshape(200, 1, 3)))
    assert "asked 20 of 200" in result.stderr
    assert "asked 200 of 200" in result.stderr


@pytest.mark.parametrize(
    ("arrays", "code", "said"),
    [
        ({"picture": np.zeros((2, 8, 8, 1), np.float32)}, ErrorCode.DATA_INVALID, "add image"),
        ({"image": np.zeros((2, 64), np.float32)}, ErrorCode.DATA_INVALID, "shape (2, 64)"),
        ({"image": np.zeros((0, 8, 8, 1), np.float32)}, ErrorCode.DATA_INVALID, "at least one"),
        ({"image": np.float32(3)}, ErrorCode.DATA_INVALID, "at least one"),
        (
            {"image": np.zeros((2, 8, 7, 1), np.float32)},
            ErrorCode.CLOUD_REFUSED,
            "question 1 of 1, which comes 2",
        ),
    ],
)
def test_what_cannot_be_asked_is_said_and_nothing_is_written(
    words: Callable[..., list[str]],
    tmp_path: Path,
    arrays: dict[str, Array],
    code: ErrorCode,
    said: str,
) -> None:
    error = _refusal(words(**arrays))
    assert error.code is code, error
    assert said in error.message
    assert not (tmp_path / "a.table").exists()


def test_an_endpoint_that_is_not_there_or_has_no_such_model_is_said(
    words: Callable[..., list[str]], images: Array
) -> None:
    error = _refusal(words(model="nothing", image=images))
    assert error.code is ErrorCode.MODEL_UNKNOWN
    gone = words()
    gone[3] = "grpc://127.0.0.1:1/m"
    assert _refusal(gone).code is ErrorCode.CLOUD_UNAVAILABLE


def test_an_endpoint_with_too_much_to_do_is_asked_again(
    serve: Callable[..., Serving], tmp_path: Path
) -> None:
    def infer(request: Any, context: Any) -> Any:
        if refusals:
            refusals.pop()
            context.set_trailing_metadata((("grpc-retry-pushback-ms", "100"),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "later")
        return encode_response(request.model_name, {"y": np.zeros(1, np.float32)}, version="1")

    peer, refusals = Peer(infer=infer), [None] * 10
    np.savez(tmp_path / "inputs.npz", x=np.arange(2, dtype=np.float32).reshape(2, 1))
    words = ["--data", str(tmp_path / "inputs.npz"), "--out", str(tmp_path / "a.table")]
    result = _run([*words, "--cloud", f"grpc://{serve(peer).address}/m", "--format", "json"])
    assert json.loads(result.stdout)["kept"] == 2
    assert len(peer.seen) == 12
