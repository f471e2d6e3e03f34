"""`mlserver infer`, which answers a file of requests, against our endpoint."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from benchmarks.serving_vs_peers.server_process import free_port
from cloud_fallback import EndpointProcess
from tests.cloud_fallback.client.certificates import Authority
from tests.cloud_fallback.peers.client_models import ROWS, TOTALS, assert_total, sum_request
from tests.cloud_fallback.peers.conftest import OTHER_TOKEN, PEER_ENVIRONMENT, TOKEN, Served

pytestmark = pytest.mark.heavy


class Batch(NamedTuple):
    """Answers of `mlserver infer` in the order of their lines, and what it said on its outputs."""

    answers: list[dict[str, Any]]
    said: str


@pytest.fixture
def infer(mlserver_python: Path, tmp_path: Path) -> Callable[..., Batch]:
    """Runs `mlserver infer` on lines, with flags."""

    def run(
        port: int,
        lines: list[Any],
        *flags: str,
        model: str = "sums",
        environment: dict[str, str] | None = None,
    ) -> Batch:
        given, answered = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
        given.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        program = mlserver_python.with_name("mlserver")
        ended = subprocess.run(
            [
                program,
                "infer",
                "-u",
                f"127.0.0.1:{port}",
                "-m",
                model,
                "-i",
                given,
                "-o",
                answered,
                "-r",
                "1",
                *flags,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **PEER_ENVIRONMENT, **(environment or {})},
        )
        assert ended.returncode == 0, ended.stderr
        answers = [json.loads(line) for line in answered.read_text().splitlines()]
        answers.sort(key=lambda answer: answer["parameters"]["batch_index"])
        assert [answer["parameters"]["batch_index"] for answer in answers] == list(range(len(lines)))
        return Batch(answers, ended.stdout + ended.stderr)

    return run


# It asks for binary outputs unless a request names those that it wants.
@pytest.mark.parametrize(
    ("flags", "named", "binary"),
    [((), False, (False, True)), ((), True, (False, False)), (("--binary-data",), True, (True, True))],
    ids=["binary-answers", "json", "binary"],
)
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("workers", [1, 4])
def test_a_file_of_requests_is_answered_line_by_line(
    infer: Callable[..., Batch],
    served: Served,
    workers: int,
    batch_size: int,
    flags: tuple[str, ...],
    named: bool,
    binary: tuple[bool, bool],
) -> None:
    lines = [sum_request(row, request_id=f"row {number}", named=named) for number, row in enumerate(ROWS)]
    batch = infer(
        served.rest_port, lines, "-w", str(workers), "-s", str(batch_size), "--extra-verbose", *flags
    )
    for number, (answer, total) in enumerate(zip(batch.answers, TOTALS, strict=True)):
        assert answer["id"] == f"row {number}"
        assert_total(answer, total)
    asked = [answer["parameters"]["inference_id"] for answer in batch.answers]
    if batch_size == 1:
        assert asked == [answer["id"] for answer in batch.answers]
    else:
        # Three lines are one request, which has an id of its own; the last line is alone.
        assert [asked.index(each) for each in asked] == [0, 0, 0, 3, 3, 3, 6]
        assert asked[-1] == "row 6"
    requests = len(set(asked))
    heads = [line for line in batch.said.splitlines() if "headers {" in line or line.startswith("<CIMulti")]
    sent = [line for line in heads if "POST" in line]
    got = [line for line in heads if "POST" not in line]
    assert len(sent) == len(got) == requests
    assert ["Inference-Header-Content-Length" in line for line in sent] == [binary[0]] * requests
    assert ["Inference-Header-Content-Length" in line for line in got] == [binary[1]] * requests


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_line_that_is_no_request_is_told_and_the_others_are_answered(
    infer: Callable[..., Batch], served: Served, batch_size: int
) -> None:
    lines = [sum_request(row) for row in ROWS]
    del lines[2]["inputs"][0]["datatype"]
    answers = infer(served.rest_port, lines, "-s", str(batch_size)).answers
    (problem,) = answers[2]["error"]["msg"]
    assert (problem["type"], problem["loc"]) == ("missing", ["inputs", 0, "datatype"])
    for number, (answer, total) in enumerate(zip(answers, TOTALS, strict=True)):
        if number != 2:
            assert_total(answer, total)


def test_a_line_that_the_model_cannot_take_fails_alone_with_the_reason(
    infer: Callable[..., Batch], served: Served
) -> None:
    lines = [sum_request(ROWS[0]), sum_request([1, 2, 3, 4]), sum_request(ROWS[2])]
    first, refused, last = infer(served.rest_port, lines, "-w", "1").answers
    assert_total(first, TOTALS[0])
    assert_total(last, TOTALS[2])
    assert "outputs" not in refused
    assert "input 'row' of model 'sums': received shape (1, 4)" in refused["error"]["msg"]


def test_lines_without_an_id_are_given_one_that_comes_back(
    infer: Callable[..., Batch], served: Served
) -> None:
    answers = infer(served.rest_port, [sum_request(row) for row in ROWS]).answers
    ids = [answer["id"] for answer in answers]
    assert len({UUID(each) for each in ids}) == len(ROWS)
    assert [answer["parameters"]["inference_id"] for answer in answers] == ids


@pytest.mark.parametrize("flags", [(), ("--binary-data",)], ids=["json", "binary"])
def test_texts_of_several_lines_are_put_together_and_taken_apart(
    infer: Callable[..., Batch], served: Served, flags: tuple[str, ...]
) -> None:
    texts = [["año", "b"], ["日本"], ["c c", "d"]]
    lines = [
        {"inputs": [{"name": "text", "shape": [len(each), 1], "datatype": "BYTES", "data": each}]}
        for each in texts
    ]
    answers = infer(served.rest_port, lines, "-s", "3", *flags, model="label").answers
    outputs = [answer["outputs"][0] for answer in answers]
    assert [output["data"] for output in outputs] == [
        ["año", "!", "b", "!"],
        ["日本", "!"],
        ["c c", "!", "d", "!"],
    ]
    assert [output["shape"] for output in outputs] == [[2, 2], [1, 2], [2, 2]]


def test_a_model_that_is_not_there_is_told_for_every_line(
    infer: Callable[..., Batch], served: Served
) -> None:
    answers = infer(served.rest_port, [sum_request(row) for row in ROWS], "-s", "3", model="letters").answers
    assert all("received name 'letters'" in answer["error"]["msg"] for answer in answers)


def test_a_file_is_answered_with_the_right_token_only(
    infer: Callable[..., Batch], client_models: Path, tokens: Path
) -> None:
    port = free_port()
    lines = [sum_request(row) for row in ROWS[:3]]
    arguments = ["--tokens", str(tokens), "--rest-port", str(port)]
    with EndpointProcess([client_models], arguments=arguments):
        for header, said in (
            ((), "received no token"),
            (("-H", "Authorization: Bearer " + "x" * 43), "token"),
            (("-H", f"Authorization: Bearer {OTHER_TOKEN}"), "sums"),
        ):
            answers = infer(port, lines, *header).answers
            assert not any("outputs" in answer for answer in answers)
            assert all(said in answer["error"]["msg"] for answer in answers), answers
            assert OTHER_TOKEN not in json.dumps(answers)
        answers = infer(
            port, lines, "-H", f"Authorization: Bearer {TOKEN}", "-s", "3", "--binary-data"
        ).answers
        for answer, total in zip(answers, TOTALS, strict=False):
            assert_total(answer, total)


def test_a_file_is_answered_over_tls_by_a_server_that_it_trusts(
    infer: Callable[..., Batch], client_models: Path, tokens: Path, tmp_path: Path
) -> None:
    authority = Authority.create(tmp_path)
    certificate, key = authority.sign("server", ["127.0.0.1"])
    port = free_port()
    arguments = ["--tls-cert", str(certificate), "--tls-key", str(key), "--tokens", str(tokens)]
    flags = ["--use-ssl", "-H", f"Authorization: Bearer {TOKEN}"]
    lines = [sum_request(row) for row in ROWS[:3]]
    with EndpointProcess([client_models], arguments=[*arguments, "--rest-port", str(port)]):
        trusting = infer(port, lines, *flags, environment={"SSL_CERT_FILE": str(authority.ca)}).answers
        for answer, total in zip(trusting, TOTALS, strict=False):
            assert_total(answer, total)
        distrusting = infer(port, lines, *flags).answers
        assert all("certificate verify failed" in answer["error"]["msg"] for answer in distrusting)
