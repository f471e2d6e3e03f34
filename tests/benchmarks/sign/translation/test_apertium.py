"""Apertium behind an endpoint: what it translates, what it does not, and what happens when it ends or is not there."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.sign.translation.apertium import ApertiumModel, english_spanish
from benchmarks.sign.translation.apertium_pipeline import Pipeline
from cloud_fallback import CloudFallback, EndpointProcess
from edge_runtime import ErrorCode, HybridgeError, Query, Reason, Source

Array = np.ndarray[Any, Any]

SPEC = "benchmarks.sign.translation.apertium:english_spanish"
HAS_APERTIUM = (
    shutil.which("apertium") is not None
    and (
        Path(str(shutil.which("apertium"))).resolve().parents[1] / "share/apertium/modes/eng-spa.mode"
    ).exists()
)
needs_apertium = pytest.mark.skipif(
    not HAS_APERTIUM, reason="Apertium is not installed: apt-get install apertium apertium-eng-spa"
)


@pytest.fixture(scope="module")
def model() -> Iterator[ApertiumModel]:
    model = english_spanish()
    yield model
    model.close()


@pytest.fixture
def without_apertium(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A PATH without Apertium."""
    monkeypatch.setenv("PATH", str(tmp_path))


def _ask(model: ApertiumModel, text: str | bytes) -> tuple[str, float, bool]:
    content = text.encode() if isinstance(text, str) else text
    answer = model.infer({"text": np.array(content, object)})
    return answer["translation"].item(), answer["confidence"].item(), answer["translated"].item()


def _unsure(text: str) -> Query:
    device = {
        "translation": np.array(text),
        "confidence": np.array(0.1, np.float32),
        "translated": np.array(False),
    }
    return Query("translate", {"text": np.array(text)}, device, confidence=0.1, threshold=0.5)


def _stages(model: ApertiumModel) -> list[int]:
    """Process ids of the stages of its first pipeline."""
    return [stage.pid for stage in model._pipelines[0]._stages]


@needs_apertium
@pytest.mark.parametrize(
    ("text", "translation"),
    [
        ("LIVE MUSIC", "MÚSICA VIVA"),
        ("Wet sand", "Arena mojada"),
        ("blue house\nred house", "casa azul\ncasa roja"),
    ],
)
def test_it_translates_in_the_case_of_the_text(model: ApertiumModel, text: str, translation: str) -> None:
    assert _ask(model, text) == (translation, 1.0, True)


@needs_apertium
def test_words_that_it_does_not_know_are_counted_and_carry_no_mark(model: ApertiumModel) -> None:
    translation, confidence, translated = _ask(model, "Gate closed by Krzysztof")
    assert "Krzysztof" in translation
    assert "*" not in translation
    assert confidence == pytest.approx(0.75)
    assert translated
    assert _ask(model, "Xyzzy plugh") == ("Xyzzy plugh", 0.0, False)


@needs_apertium
@pytest.mark.parametrize("text", ["", "  ", "12:30", "!!!", "日本"])
def test_what_has_no_words_of_english_comes_back_as_it_was(model: ApertiumModel, text: str) -> None:
    assert _ask(model, text) == (text, 0.0, False)


@needs_apertium
@pytest.mark.parametrize(
    "special",
    ["*house*", "@house", "#house", "[house]", "{house}", "^house$", "house\\", "<b>house</b>", "house/n", "house~",
     "[n1] house", "[<STREAMCMD:SETVAR:x>] house", "house\0", "house\x01"],
)  # fmt: skip
def test_control_characters_of_the_stream_stay_text(model: ApertiumModel, special: str) -> None:
    translation, _, _ = _ask(model, special)
    assert [each for each in translation if not each.isalpha()] == [
        each for each in special if not each.isalpha()
    ]
    # And the next answer is that to the next question.
    assert _ask(model, "red house") == ("casa roja", 1.0, True)


@needs_apertium
def test_a_crash_is_survived(model: ApertiumModel) -> None:
    for kill in (0, 5, -1):
        assert _ask(model, "red house")[0] == "casa roja"
        os.kill(_stages(model)[kill], signal.SIGKILL)
        assert _ask(model, "blue house")[0] == "casa azul"


@needs_apertium
def test_an_answer_that_takes_too_long_is_given_up_and_does_not_come_later(model: ApertiumModel) -> None:
    assert _ask(model, "red house")[0] == "casa roja"
    os.kill(_stages(model)[1], signal.SIGSTOP)
    start = time.perf_counter()
    with pytest.raises(HybridgeError) as caught:
        model.infer({"text": np.array(b"green house", object)}, time_left=lambda: 0.2)
    assert caught.value.code is ErrorCode.CLOUD_DEADLINE
    assert time.perf_counter() - start < 2.0
    assert _ask(model, "blue house")[0] == "casa azul"


@needs_apertium
def test_closing_ends_every_process() -> None:
    model = english_spanish(instances=2)
    _ask(model, "red house")
    stages = [stage.pid for pipeline in model._pipelines for stage in pipeline._stages]
    assert len(stages) > 10
    model.close()
    assert not [pid for pid in stages if Path(f"/proc/{pid}").exists()]


def test_what_is_no_text_is_refused(model: ApertiumModel) -> None:
    def code(inputs: dict[str, Array]) -> ErrorCode:
        with pytest.raises(HybridgeError) as caught:
            model.infer(inputs)
        return caught.value.code

    text = np.array(b"exit", object)
    assert code({}) is ErrorCode.INPUT_MISSING
    assert code({"text": text, "language": text}) is ErrorCode.INPUT_UNKNOWN
    assert code({"text": np.zeros(())}) is ErrorCode.INPUT_DTYPE
    assert code({"text": text.reshape(1)}) is ErrorCode.INPUT_SHAPE
    assert code({"text": np.array(b"\xff", object)}) is ErrorCode.INPUT_INVALID
    assert code({"text": np.array(b"exit " * 500, object)}) is ErrorCode.INPUT_INVALID


@needs_apertium
def test_an_endpoint_answers_a_device_that_is_unsure() -> None:
    with (
        EndpointProcess([SPEC]) as endpoint,
        CloudFallback(endpoint.address, model="english-spanish", deadline_s=10.0) as fallback,
    ):
        answer = fallback.resolve(_unsure("LIVE MUSIC"))
        assert (answer.source, answer.reason) == (Source.CLOUD, Reason.UNSURE)
        assert answer.outputs is not None
        assert answer.outputs["translation"].dtype.kind == "U"
        assert answer.outputs["translation"].item() == "MÚSICA VIVA"
        assert answer.outputs["translated"].item() is True
        unknown = fallback.resolve(_unsure("Xyzzy"))
        assert unknown.outputs is not None
        assert (unknown.outputs["translation"].item(), unknown.outputs["translated"].item()) == (
            "Xyzzy",
            False,
        )


@pytest.mark.usefixtures("without_apertium")
def test_an_endpoint_without_apertium_says_so_and_the_device_keeps_its_text() -> None:
    with (
        EndpointProcess([SPEC]) as endpoint,
        CloudFallback(endpoint.address, model="english-spanish", deadline_s=10.0) as fallback,
    ):
        answer = fallback.resolve(_unsure("LIVE MUSIC"))
        assert (answer.outputs, answer.source, answer.reason) == (None, Source.DEVICE, Reason.CLOUD_REFUSED)
        assert "apt-get install apertium" in answer.detail


@pytest.mark.usefixtures("without_apertium")
def test_a_model_without_apertium_warns_when_it_is_made(caplog: pytest.LogCaptureFixture) -> None:
    model = english_spanish()
    assert "no 'apertium' on the PATH" in caplog.text
    with pytest.raises(HybridgeError) as caught:
        _ask(model, "red house")
    assert caught.value.code is ErrorCode.EXTRA_MISSING
    model.close()


def test_a_pair_that_is_not_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "apertium").write_text("#!/bin/sh\n")
    (tmp_path / "apertium").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HybridgeError, match="without the pair") as caught:
        Pipeline("eng-spa").start()
    assert caught.value.code is ErrorCode.EXTRA_MISSING
