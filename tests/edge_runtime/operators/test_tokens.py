from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from tests.edge_runtime.operators.running import run

_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "able", "!", "the"]


def test_characters_become_numbers_and_the_rest_padding() -> None:
    given = run("tokenize", np.array(["Héllo", "lo?", ""]), length=6, vocabulary="_#helo")
    assert given["tokens"].tolist() == [[2, 3, 4, 4, 5, 0], [4, 5, 1, 0, 0, 0], [0] * 6]
    assert given["lengths"].tolist() == [5, 3, 0]
    as_is = run("tokenize", np.array("Hé"), length=2, vocabulary="_#he", lowercase=False)
    assert as_is["tokens"].tolist() == [1, 1]


def test_a_long_text_is_cut_and_keeps_its_end_token() -> None:
    given = run("tokenize", np.array("hello"), length=4, vocabulary="_#helo", start=7, end=8)
    assert given["tokens"].tolist() == [7, 2, 3, 8]
    assert given["lengths"] == 4


def test_words_are_the_longest_pieces_from_the_left() -> None:
    given = run(
        "tokenize", np.array(["Unaffable, the!", "unable thexyz"]), length=9, vocabulary=_PIECES, unit="wordpiece",
        start=2, end=3,
    )  # fmt: skip
    assert given["tokens"].tolist() == [[2, 4, 5, 6, 1, 9, 8, 3, 0], [2, 4, 6, 1, 3, 0, 0, 0, 0]]
    endless = run("tokenize", np.array("un" * 200), length=3, vocabulary=_PIECES, unit="wordpiece")
    assert endless["tokens"].tolist() == [1, 0, 0]


def test_a_vocabulary_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_text("\n".join(_PIECES))
    given = run("tokenize", np.array("the"), length=2, vocabulary_file=str(path), unit="wordpiece")
    assert given["tokens"].tolist() == [9, 0]


def test_no_texts_have_no_tokens_and_impossible_settings_are_refused() -> None:
    none = run("tokenize", np.empty((0, 2), "<U1"), length=3, vocabulary="ab")
    assert (none["tokens"].shape, none["lengths"].shape) == ((0, 2, 3), (0, 2))
    for wrong in ({"length": 0}, {"length": 2, "start": 0, "end": 0}, {"length": 4, "unit": "sentence"}):
        with pytest.raises(HybridgeError) as caught:
            run("tokenize", np.array("a"), vocabulary="ab", **wrong)
        assert caught.value.code is ErrorCode.INPUT_INVALID
