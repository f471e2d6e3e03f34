"""Text on its way into the network."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.sign.translation.encoding import LENGTH, VOCABULARY, encode_text, encoded, normalized


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("  CAFÉ —  Open\n", "cafe - open"),
        ("Doctor\u2019s", "doctor's"),
        ("\u26d4 NO ENTRY \u2728", "no entry"),
        ("STRASSE", "strasse"),
        ("\u2026", "..."),
        ("", ""),
    ],
)
def test_case_accents_spaces_and_symbols_do_not_count(text: str, plain: str) -> None:
    assert normalized(text) == plain


def test_a_text_is_the_indices_of_its_characters() -> None:
    row = encode_text(np.array("Gate 7"))
    assert row.shape == (1, LENGTH)
    assert row.dtype == np.int32
    assert "".join(VOCABULARY[index] for index in row[0, :6]) == "gate 7"
    assert not row[0, 6:].any()


@pytest.mark.parametrize("text", ["日本語", "выход", "\ud800"])
def test_letters_of_other_alphabets_are_one_unknown(text: str) -> None:
    row = encode_text(np.array(text))[0]
    assert set(row.tolist()) <= {0, 1}


def test_long_texts_are_cut_and_many_encode_alike() -> None:
    assert encode_text(np.array("a" * 500)).shape == (1, LENGTH)
    texts = ["exit", "", "x" * 100]
    np.testing.assert_array_equal(
        encoded(texts), np.concatenate([encode_text(np.array(text)) for text in texts])
    )
    assert encoded([]).shape == (0, LENGTH)
