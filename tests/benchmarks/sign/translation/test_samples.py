"""Texts that training and measuring are done with, and what these are compared with."""

from __future__ import annotations

import re

import numpy as np
import pytest

from benchmarks.sign.translation import Phrase, PhraseBook
from benchmarks.sign.translation.baselines import ExactLookup, NearestPhrase
from benchmarks.sign.translation.encoding import normalized
from benchmarks.sign.translation.evaluation import error_rate
from benchmarks.sign.translation.phrase_book import phrase_book
from benchmarks.sign.translation.reading_mistakes import HELD_OUT, TRAINED, Mistakes, misread
from benchmarks.sign.translation.samples import Strangers, other_signs, other_words, sign_text

BOOK = PhraseBook(
    (
        Phrase("No parking", "Prohibido aparcar", "traffic"),
        Phrase("No smoking", "Prohibido fumar", "safety"),
        Phrase("Gate {code}", "Puerta {code}", "airports"),
    )
)


@pytest.mark.parametrize("mistakes", [TRAINED, HELD_OUT])
def test_mistakes_are_about_as_many_as_asked_for(mistakes: Mistakes) -> None:
    texts = [phrase.filled(("1",) * len(phrase.kinds), english=True) for phrase in phrase_book().phrases]
    for rate in (0.0, 0.05, 0.1, 0.2):
        random = np.random.default_rng(0)
        read = [misread(text, rate, mistakes, random) for text in texts]
        assert error_rate(texts, read) == pytest.approx(rate, rel=0.35)
        random = np.random.default_rng(0)
        assert read == [misread(text, rate, mistakes, random) for text in texts]


def test_an_empty_text_is_read_as_one() -> None:
    assert misread("", 0.5, TRAINED, np.random.default_rng(0)) == ""


def test_strangers_are_in_no_phrase() -> None:
    random = np.random.default_rng(0)
    strangers = Strangers(BOOK, other_words())
    made = [strangers.make(random) for _ in range(2000)]
    assert all(made)
    assert not {normalized(text) for text in made} & {"no parking", "no smoking", "gate {code}"}
    assert not [text for text in made if re.fullmatch(r"(?i)gate [a-z]?\d+", text)]
    assert len(set(made)) > 1000


def test_the_signs_to_measure_with_are_in_no_phrase() -> None:
    lookup, signs = ExactLookup(phrase_book()), other_signs()
    assert len(signs) > 400
    assert len({normalized(sign) for sign in signs}) == len(signs)
    assert [sign for sign in signs if lookup.find(sign)[1]] == []


def test_every_phrase_is_found_as_signs_write_it() -> None:
    book, random = phrase_book(), np.random.default_rng(0)
    nearest = NearestPhrase(book)
    texts = [sign_text(phrase, random) for phrase in book.phrases]
    found = [nearest.find(text)[0] == index for index, text in enumerate(texts)]
    assert np.mean(found) > 0.9


def test_the_nearest_phrase_is_by_edit_distance() -> None:
    nearest = NearestPhrase(BOOK)
    assert nearest.find("NO PARKING") == (0, 1.0)
    for text, phrase, likeness in (("N0 SMOKlNG", 1, 0.8), ("no parkin", 0, 0.9)):
        found, sure = nearest.find(text)
        assert found == phrase
        assert sure == pytest.approx(likeness)
    assert nearest.find("Gate B12") == (2, 1.0)
    assert nearest.find("")[1] == 0.0


def test_exact_lookup_takes_a_value_but_no_mistake() -> None:
    lookup = ExactLookup(BOOK)
    assert lookup.find("gate  B12") == (2, 1.0)
    assert lookup.find("NO PARKlNG")[1] == 0.0
