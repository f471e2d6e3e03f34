from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array
from tests.edge_runtime.operators.running import run


def _steps(classes: list[int], count: int, sure: float = 0.9) -> Array:
    steps = np.full((len(classes), count), (1 - sure) / (count - 1), np.float32)
    steps[np.arange(len(classes)), classes] = sure
    return steps


def test_repetitions_are_joined_and_blanks_left_out() -> None:
    steps = _steps([0, 1, 1, 0, 1, 2, 2, 3, 0], 4)
    read = run("ctc-decode", steps, characters="ab ")
    assert read["texts"].item() == "aab "
    assert read["confidences"] == pytest.approx(0.9)
    batch = np.stack([steps, _steps([0] * 9, 4)])
    read = run("ctc-decode", batch, characters=["a", "b", " "])
    assert read["texts"].tolist() == ["aab ", ""]
    np.testing.assert_allclose(read["confidences"], [0.9, 0])


def test_the_blank_may_be_any_class_and_characters_may_be_several_letters() -> None:
    assert run("ctc-decode", _steps([0, 3, 0, 1], 4), characters=["a", "b", "ch"], blank=-1)["texts"] == "aab"
    assert run("ctc-decode", _steps([0, 2, 1, 3], 4), characters=["a", "b", "ch"], blank=1)["texts"] == "abch"


def test_confidence_is_the_mean_probability_of_what_was_read() -> None:
    chances = np.array([[0.1, 0.6, 0.3], [0.9, 0.05, 0.05], [0.1, 0.1, 0.8]], np.float32)
    assert run("ctc-decode", chances, characters="ab")["confidences"] == pytest.approx(0.7)
    logits = np.log(chances) + np.array([[3], [700], [-50]], np.float32)
    read = run("ctc-decode", logits, characters="ab", logits=True)
    assert read["texts"].item() == "ab"
    assert read["confidences"] == pytest.approx(0.7, abs=1e-5)


def test_nan_is_never_what_was_read() -> None:
    steps = np.stack([_steps([1, 0, 2], 3), np.full((3, 3), np.nan, np.float32)])
    steps[0, 0, 2] = np.nan
    read = run("ctc-decode", steps, characters="ab")
    assert read["texts"].tolist() == ["ab", ""]
    assert read["confidences"][1] == 0
    assert run("ctc-decode", steps, characters="ab", logits=True)["texts"].tolist() == ["ab", ""]


def test_no_texts_and_no_steps_are_empty() -> None:
    assert run("ctc-decode", np.empty((0, 5, 3), np.float32), characters="ab")["texts"].shape == (0,)
    assert run("ctc-decode", np.empty((2, 0, 3), np.float32), characters="ab")["texts"].tolist() == ["", ""]


def test_classes_without_a_character_are_one_clear_error() -> None:
    with pytest.raises(HybridgeError) as caught:
        run("ctc-decode", np.zeros((5, 4), np.float32), characters="abcd")
    assert caught.value.code is ErrorCode.INPUT_SHAPE
    assert "4 characters" in caught.value.message


def test_characters_come_from_a_file_with_one_a_line_and_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "characters.txt"
    # The line separator and the no-break space are characters here, not ends of lines.
    path.write_bytes("a\r\n\u2028\n\u00a0\n \n".encode())
    steps = _steps([1, 2, 3, 4], 5)
    assert run("ctc-decode", steps, characters_file=str(path))["texts"].item() == "a\u2028\u00a0 "
    path.write_text("w\nx\ny\nz\n")
    os.utime(path, ns=(1, 1))
    assert run("ctc-decode", steps, characters_file=str(path))["texts"].item() == "wxyz"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(HybridgeError) as caught:
        run("ctc-decode", steps, characters_file=str(path))
    assert caught.value.code is ErrorCode.INPUT_INVALID
    path.unlink()
    with pytest.raises(HybridgeError) as caught:
        run("ctc-decode", steps, characters_file=str(path))
    assert caught.value.code is ErrorCode.FILE_NOT_FOUND


def test_every_index_has_a_name(tmp_path: Path) -> None:
    indices = np.array([[0, 2], [-1, 9]])
    names = run("labels", indices, labels=["cat", "dog", "owl"], unknown="?")["texts"]
    assert names.tolist() == [["cat", "owl"], ["?", "?"]]
    path = tmp_path / "labels.txt"
    path.write_text("background\ntench\n")
    assert run("labels", np.array(1), labels_file=str(path))["texts"].item() == "tench"
    assert run("labels", np.empty(0, np.int64), labels=["a"])["texts"].shape == (0,)


def test_phrases_meet_when_their_letters_do(tmp_path: Path) -> None:
    phrases = {"No entry": "Prohibido el paso", "Exit": "Salida", "Don't walk": "No cruzar", "EXIT": "SALIDA"}
    given = np.array(["NO  ENTRY!", "no éntry", "exit", "EXIT", "DONT WALK", "Cafe", "!!", ""])
    looked_up = run("phrase-lookup", given, phrases=phrases)
    assert looked_up["texts"].tolist() == [
        "Prohibido el paso", "Prohibido el paso", "Salida", "SALIDA", "No cruzar", "Cafe", "!!", "",
    ]  # fmt: skip
    assert looked_up["found"].tolist() == [True] * 5 + [False] * 3
    exactly = run("phrase-lookup", given, phrases=phrases, exact=True, unknown="?")
    assert exactly["texts"].tolist() == ["?", "?", "?", "SALIDA", "?", "?", "?", "?"]
    path = tmp_path / "phrases.tsv"
    path.write_text("Exit\tSalida\n\nStop\tAlto\n")
    assert run("phrase-lookup", np.array("stop"), phrases_file=str(path))["texts"].item() == "Alto"
    path.write_text("Exit\tSalida\nStop Alto\n")
    with pytest.raises(HybridgeError) as caught:
        run("phrase-lookup", np.array("stop"), phrases_file=str(path))
    assert "line 2" in caught.value.message
    assert run("phrase-lookup", np.empty(0, "<U1"), phrases=phrases)["found"].shape == (0,)


def test_texts_are_joined_and_split() -> None:
    lines = np.array(["NO", "ENTRY"])
    assert run("join-text", lines)["text"].item() == "NO ENTRY"
    assert run("join-text", lines, separator="\n")["text"].item() == "NO\nENTRY"
    assert run("join-text", np.empty(0, "<U1"))["text"].item() == ""
    assert run("split-text", np.array(" NO   ENTRY "))["texts"].tolist() == ["NO", "ENTRY"]
    assert run("split-text", np.array("a,,b"), separator=",")["texts"].tolist() == ["a", "b"]
    assert run("split-text", np.array(""))["texts"].shape == (0,)
