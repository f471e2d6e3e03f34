from __future__ import annotations

import numpy as np
import pytest

from benchmarks.sign.broken_phrases import line_runs, spread_translations, whole_phrases
from edge_runtime.tensor_spec import Array


def _line(left: float, top: float, width: float, height: float = 20.0, degrees: float = 0.0) -> Array:
    box = np.array([[left, top], [left + width, top], [left + width, top + height], [left, top + height]])
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    quad: Array = (box @ matrix.T).astype(np.float32)
    return quad


def _runs(*quads: Array) -> list[list[int]]:
    texts = np.array([f"t{index}" for index in range(len(quads))], np.str_)
    found = line_runs(np.array(quads, np.float32).reshape(-1, 4, 2), texts)
    runs = [[line for line in run if line >= 0] for run in found["runs"].tolist()]
    assert found["texts"].tolist() == [" ".join(f"t{line}" for line in run) for run in runs]
    return [run for run in runs if len(run) > 1]


@pytest.mark.parametrize("degrees", [0.0, 15.0, 90.0, 180.0])
def test_lines_under_each_other_may_be_one_phrase_whichever_way_they_point(degrees: float) -> None:
    quads = [
        _line(10, 0, 60, degrees=degrees),
        _line(0, 26, 80, degrees=degrees),
        _line(20, 55, 40, degrees=degrees),
        _line(20, 84, 40, degrees=degrees),
    ]
    assert _runs(*quads) == [[0, 1], [1, 2], [2, 3], [0, 1, 2], [1, 2, 3]]


@pytest.mark.parametrize(
    "other",
    [
        _line(0, 60, 80),  # far below
        _line(0, 26, 80, height=40),  # another size
        _line(90, 26, 80),  # beside
        _line(60, 26, 200),  # mostly beside
        _line(0, 26, 80, degrees=20),  # another direction
        _line(0, -26, 80, degrees=180),  # upside down
        np.full((4, 2), np.nan, np.float32),
        np.zeros((4, 2), np.float32),
    ],
)
def test_other_lines_are_not(other: Array) -> None:
    assert _runs(_line(0, 0, 80), other) == []


def test_the_nearest_line_goes_on() -> None:
    assert _runs(_line(0, 0, 80), _line(0, 46, 80, 30), _line(0, 22, 80))[0] == [0, 2]
    assert _runs() == []


def _whole(runs: list[list[int]], translated: list[bool], confidences: list[float]) -> list[list[int]]:
    padded = np.array([run + [-1] * (3 - len(run)) for run in runs], np.int64)
    texts = np.array([str(run) for run in runs], np.str_)
    chosen = whole_phrases(padded, texts, np.array(confidences, np.float32), np.array(translated))
    found = [[line for line in run if line >= 0] for run in chosen["runs"].tolist()]
    assert chosen["texts"].tolist() == [str(run) for run in found]
    return found


@pytest.mark.parametrize(
    ("translated", "expected"),
    [
        ([False, False, False, True], [[0, 1], [2]]),
        ([True, False, False, True], [[0, 1], [2]]),
        ([True, True, False, True], [[0], [1], [2]]),  # each says something of its own
        ([False, False, False, False], [[0], [1], [2]]),
    ],
)
def test_lines_belong_together_when_only_together_they_are_a_phrase(
    translated: list[bool], expected: list[list[int]]
) -> None:
    assert _whole([[0], [1], [2], [0, 1]], translated, [0.9] * 4) == expected


def test_of_phrases_that_share_a_line_the_longer_counts_then_the_surer() -> None:
    pairs, none = [[0], [1], [2], [0, 1], [1, 2]], [False] * 3
    assert _whole(pairs, [*none, True, True], [0, 0, 0, 0.8, 0.9]) == [[0], [1, 2]]
    three = [*pairs, [0, 1, 2]]
    assert _whole(three, [*none, True, True, True], [0, 0, 0, 0.8, 0.9, 0.7]) == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("lines", "translation", "parts"),
    [
        (["NO", "PARKING"], "PROHIBIDO APARCAR", ["PROHIBIDO", "APARCAR"]),
        (["EMERGENCY", "EXIT"], "SALIDA DE EMERGENCIA", ["SALIDA DE", "EMERGENCIA"]),
        (["Please", "do not", "touch"], "No tocar", ["No", "tocar", ""]),
        (["Ticket office"], "Taquilla", ["Taquilla"]),
        (["Out of", "order"], "Averiado", ["Averiado", ""]),
    ],
)
def test_a_translation_is_shared_out_over_the_lines(
    lines: list[str], translation: str, parts: list[str]
) -> None:
    run = [*range(len(lines)), *[-1] * (3 - len(lines))]
    spread = spread_translations(
        np.array(lines),
        np.array([run], np.int64),
        np.array([translation]),
        np.array([0.75], np.float32),
        np.array([True]),
        np.array(["device"]),
    )
    assert spread["translations"].tolist() == parts
    assert spread["confidences"].tolist() == [0.75] * len(lines)
    assert spread["translators"].tolist() == ["device"] * len(lines)


def test_lines_without_a_translation_stay_as_they_are() -> None:
    spread = spread_translations(
        np.array(["a b", "c", "EXIT"]),
        np.array([[0, 1, -1], [2, -1, -1]], np.int64),
        np.array(["a b c", "SALIDA"]),
        np.array([0.1, 0.9], np.float32),
        np.array([False, True]),
        np.array(["device", "cloud"]),
    )
    assert spread["translations"].tolist() == ["a b", "c", "SALIDA"]
    assert spread["translated"].tolist() == [False, False, True]
    assert spread["translators"].tolist() == ["device", "device", "cloud"]
    nothing = spread_translations(
        np.empty(0, "<U1"),
        np.empty((0, 3), np.int64),
        *(np.empty(0, kind) for kind in ("<U1", "f4", "?", "<U1")),
    )
    assert nothing["translations"].shape == (0,)
