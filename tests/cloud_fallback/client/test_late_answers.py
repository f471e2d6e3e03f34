"""`hybridge run` and `hybridge fallback drain` with an outbox: what was deferred is asked, written, and never lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner

from cloud_fallback.client.drain_command import drain
from cloud_fallback.outbox import Outbox
from edge_runtime import ErrorCode, HybridgeError, late_answers, load_chain, run_stream
from edge_runtime.fallback import LateAnswer
from edge_runtime.run_command import run
from tests.cloud_fallback.client.peer import Peer, Serving
from tests.cloud_fallback.client.test_settings import INNER
from tests.command import hybridge


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run ends with the last answer, however busy this machine is."""
    monkeypatch.setattr(run_stream, "_LAST_ANSWERS_S", 30.0)


@pytest.fixture
def serving() -> Iterator[Serving]:
    """An endpoint that is away, until it is started."""
    serving = Serving(Peer())
    serving.start()
    serving.stop()
    yield serving
    serving.stop()


@pytest.fixture
def chain(serving: Serving, tmp_path: Path) -> Path:
    """As sure as the least element of its input; two stages that defer to one outbox."""
    (tmp_path / "inner.toml").write_text(INNER)
    stages = "".join(
        f'[[stages]]\nname = "{name}"\nchain = "inner.toml"\ninputs = {{ x = "x" }}\noutputs = {{ y = "{name}" }}\n'
        f'[stages.fallback]\nurl = "grpc://{serving.address}/{name}"\nthreshold = {threshold}\n'
        'deadline_ms = 200\nunanswered = "defer"\noutbox = "outbox.db"\nbreaker = { open_s = 0.05 }\n'
        for name, threshold in (("first", 0.5), ("second", 0.1))
    )
    path = tmp_path / "chain.toml"
    path.write_text(f'outputs = ["first", "second"]\n{stages}')
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A sure one, two that the first stage is unsure about, and one that both are."""
    path = tmp_path / "inputs.jsonl"
    path.write_text("".join(json.dumps({"x": [low, 2.0]}) + "\n" for low in (0.9, 0.3, 0.4, 0.0)))
    return path


@pytest.fixture
def deferred(chain: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Request ids of four questions that a run has left."""
    with monkeypatch.context() as patch:
        patch.setattr(run_stream, "_LAST_ANSWERS_S", 0.1)
        result = _invoke(run, chain, "--input", inputs, "--format", "json")
    assert f"4 questions wait in the outbox; to ask: hybridge fallback drain {chain}\n" in result.stderr
    return [each for line in _lines(result.stdout) for each in line.get("request_ids", ())]


def _invoke(verb: Any, *words: object) -> Any:
    return CliRunner().invoke(verb, [str(word) for word in words], catch_exceptions=False)


def _refusal(*words: object) -> HybridgeError:
    with pytest.raises(HybridgeError) as caught:
        _invoke(drain, *words)
    return caught.value


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def _depth(chain: Path) -> int:
    with Outbox(chain.parent / "outbox.db") as outbox:
        figures = outbox.figures()
    return figures.depth + figures.unacknowledged


def test_a_run_writes_the_answers_to_what_an_earlier_one_deferred(
    chain: Path, inputs: Path, serving: Serving, deferred: list[str]
) -> None:
    assert len(set(deferred)) == 4
    assert _depth(chain) == 4
    inputs.write_text('{"x": [0.9, 2.0]}\n')
    with serving:
        result = _invoke(run, chain, "--input", inputs, "--format", "json")
    lines = _lines(result.stdout)
    assert [line["index"] for line in lines if "index" in line] == [0]
    late = {line["request_id"]: line for line in lines if "request_id" in line}
    assert sorted(late) == sorted(deferred)
    assert sorted(line["stage"] for line in late.values()) == ["first", "first", "first", "second"]
    assert {line["number"] for line in late.values()} == {1}
    for line in late.values():
        assert list(line["outputs"]) == ["y"]
    assert "outbox" not in result.stderr
    assert _depth(chain) == 0


def test_a_run_in_text_names_what_it_deferred_and_the_answer(
    chain: Path, inputs: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs.write_text('{"x": [0.3, 2.0]}\n')
    with monkeypatch.context() as patch:
        patch.setattr(run_stream, "_LAST_ANSWERS_S", 0.1)
        first = _invoke(run, chain, "--input", inputs)
    request_id = first.stdout.partition("deferred as ")[2].partition(",")[0]
    assert "1 question waits in the outbox" in first.stderr
    inputs.write_text('{"x": [0.9, 2.0]}\n')
    with serving:
        second = _invoke(run, chain, "--input", inputs)
    assert f"late: {request_id} of stage 'first', y: [" in second.stdout


def test_lines_on_standard_output_are_all_json_where_it_is_asked_for_them(
    chain: Path, inputs: Path, serving: Serving, deferred: list[str]
) -> None:
    inputs.write_text('{"x": [0.9, 2.0]}\n')
    with serving:
        result = _invoke(run, chain, "--input", inputs, "--out", "-")
    assert len(_lines(result.stdout)) == 1 + len(deferred)


def test_a_run_on_one_input_drains_nothing_and_says_what_waits_and_how_to_ask_it(
    chain: Path, serving: Serving, tmp_path: Path
) -> None:
    unsure, sure = tmp_path / "unsure.npy", tmp_path / "sure.npy"
    np.save(unsure, np.array([0.3, 2.0], np.float32))
    np.save(sure, np.array([0.9, 2.0], np.float32))
    assert "outbox" not in hybridge("run", chain, "--input", sure).stderr
    first = hybridge("run", chain, "--input", unsure)
    assert "deferred as " in first.stdout
    assert f"1 question waits in the outbox; to ask: hybridge fallback drain {chain}\n" in first.stderr
    with serving:
        # Also of one that had nothing to defer, and whose endpoint is there again.
        second = hybridge("run", chain, "--input", sure, "--format", "json")
        assert second.json["source"] == "device"
        assert f"1 question waits in the outbox; to ask: hybridge fallback drain {chain}\n" in second.stderr
        assert _depth(chain) == 1
        drained = hybridge(*second.stderr.partition("to ask: hybridge ")[2].split())
        assert f"late: {first.stdout.partition('deferred as ')[2].split()[0]} of stage" in drained.stdout
        assert "outbox" not in hybridge("run", chain, "--input", sure).stderr


@pytest.mark.usefixtures("deferred")
def test_an_answer_that_nobody_took_waits_too(chain: Path, serving: Serving, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([0.9, 2.0], np.float32))

    def gone(_late: LateAnswer) -> None:
        raise BrokenPipeError

    with load_chain(chain) as loaded, serving:
        fallbacks = late_answers.deferring(loaded)
        with late_answers.draining(fallbacks, gone) as left:
            limit_s = time.monotonic() + 20
            while left() != {"": 4} and time.monotonic() < limit_s:
                time.sleep(0.02)
    result = _invoke(run, chain, "--input", tmp_path / "x.npy")
    assert "4 questions wait in the outbox" in result.stderr


def test_a_stream_that_fails_says_what_waits_too(chain: Path, inputs: Path, deferred: list[str]) -> None:
    inputs.write_text('{"x": "no numbers"}\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_stream, "_LAST_ANSWERS_S", 0.1)
        result = CliRunner().invoke(run, [str(chain), "--input", str(inputs)])
    assert isinstance(result.exception, HybridgeError)
    assert f"{len(deferred)} questions wait in the outbox" in result.stderr


def test_a_drain_asks_all_that_waits_and_ends(chain: Path, serving: Serving, deferred: list[str]) -> None:
    with serving:
        result = hybridge("fallback", "drain", chain, "--format", "json")
    assert result.exit_code == 0, result.stderr
    assert sorted(line["request_id"] for line in _lines(result.stdout)) == sorted(deferred)
    assert "4 answers" in result.stderr
    assert _depth(chain) == 0
    # With nothing left nobody is asked, and nobody has to be there.
    assert (_invoke(drain, chain).exit_code, _depth(chain)) == (0, 0)


def test_a_drain_needs_no_chain(chain: Path, serving: Serving, deferred: list[str]) -> None:
    outbox, url = chain.parent / "outbox.db", f"grpc://{serving.address}"
    with serving:
        # The other stage's question is for another model.
        error = _refusal("--outbox", outbox, "--fallback", f"{url}/first")
        assert error.code is ErrorCode.FALLBACK_UNKNOWN
        assert f"{serving.address}/second" in error.message
        assert _depth(chain) == 1
        result = _invoke(drain, "--outbox", outbox, "--fallback", f"{url}/second")
    assert result.exit_code == 0
    assert len(deferred) == 4
    assert result.stdout.startswith("late: ")
    assert _depth(chain) == 0


@pytest.mark.usefixtures("deferred")
def test_a_drain_gives_up_when_nobody_answers_and_nothing_is_lost(chain: Path) -> None:
    error = _refusal(chain, "--wait-s", 0.3)
    assert error.code is ErrorCode.CLOUD_UNAVAILABLE
    assert "4 left in the outbox: received no answer for 0.3 s" in error.message
    assert _depth(chain) == 4


def test_what_the_cloud_refuses_for_good_is_written_as_such(
    chain: Path, serving: Serving, deferred: list[str]
) -> None:
    def infer(request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such model")

    serving.peer.infer = infer
    with serving:
        result = _invoke(drain, chain, "--format", "json")
    lines = _lines(result.stdout)
    assert {line["request_id"]: line["error"]["code"] for line in lines} == dict.fromkeys(
        deferred, "model-unknown"
    )
    assert _depth(chain) == 0


def test_a_drain_says_what_it_cannot_drain(chain: Path, tmp_path: Path) -> None:
    outbox = tmp_path / "none.db"
    assert _refusal("--outbox", outbox, "--fallback", "grpc://h:1/m").code is ErrorCode.FILE_NOT_FOUND
    assert not outbox.exists()
    for words in (
        (),
        (chain, "--outbox", outbox),
        ("--outbox", outbox),
        (chain, "--fallback", "grpc://h:1/m"),
    ):
        assert _refusal(*words).code is ErrorCode.USAGE
    chain.write_text(chain.read_text().replace('outbox = "outbox.db"\n', ""))
    assert _refusal(chain).code is ErrorCode.CHAIN_INVALID
    with Outbox(tmp_path / "open.db"):
        code = _refusal("--outbox", tmp_path / "open.db", "--fallback", "grpc://h:1/m").code
        assert code is ErrorCode.FILE_UNWRITABLE


def test_a_reader_that_is_gone_loses_no_answer(
    chain: Path, serving: Serving, deferred: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    def gone(_line: str) -> None:
        raise BrokenPipeError

    with serving, monkeypatch.context() as patch:
        patch.setattr(late_answers, "emit_line", gone)
        with pytest.raises(BrokenPipeError):
            _invoke(drain, chain)
        assert _depth(chain) == len(deferred)
        patch.undo()
        result = _invoke(drain, chain, "--format", "json")
    assert sorted(line["request_id"] for line in _lines(result.stdout)) == sorted(deferred)


def test_fallbacks_of_chains_within_are_drained_too(chain: Path, serving: Serving) -> None:
    outer = chain.parent / "outer.toml"
    outer.write_text(
        'outputs = ["y"]\n[[stages]]\nname = "all"\nchain = "chain.toml"\noutputs = { first = "y" }\n'
    )
    with load_chain(outer) as loaded:
        prediction = loaded.run({"x": np.array([0.0, 2.0], np.float32)})
        assert len(prediction.request_ids) == 2
        late: list[LateAnswer] = []
        fallbacks = late_answers.deferring(loaded)
        with serving, late_answers.draining(fallbacks, late.append) as left:
            late_answers.wait_until_empty(left, 10)
            assert not left()
    assert {each.request_id for each in late} == set(prediction.request_ids)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_late_answer_is_one_line_whatever_is_in_it(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    outputs = {
        "text": np.array([[b"gr\xc3\xb6\xc3\x9fe", b"\xff\n"]], object),
        "scores": np.array([np.nan, 1 / 3], np.float32),
        "map": np.zeros((40, 50), np.float32),
    }
    late_answers.write_late(LateAnswer("id", "read", outputs, None, 2), as_json=as_json)
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "größe" in line
    if as_json:
        written = json.loads(line)
        assert (written["request_id"], written["stage"], written["number"]) == ("id", "read", 2)
        assert written["outputs"]["text"] == [["größe", "\\xff\n"]]
        assert written["outputs"]["scores"][0] is None
        # It will not come again, so nothing is left out.
        assert np.shape(written["outputs"]["map"]) == (40, 50)
    else:
        assert "scores: [   nan, 0.3333]" in line
        assert "map: float32(40, 50)" in line
