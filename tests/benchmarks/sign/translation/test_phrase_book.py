"""The book: what stands in it can be used, and what cannot be is refused with the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.sign.translation import Phrase, PhraseBook
from benchmarks.sign.translation.phrase_book import phrase_book
from edge_runtime import ErrorCode, HybridgeError


def test_the_book_has_signs_of_all_places() -> None:
    book = phrase_book()
    assert len(book) >= 400
    categories = [phrase.category for phrase in book.phrases]
    for category in (
        "traffic", "doors", "shops", "hours", "stations", "airports", "hospitals", "parks", "safety", "museums",
        "restaurants", "building sites", "beaches", "offices",
    ):  # fmt: skip
        assert categories.count(category) >= 25, category
    assert {"number", "code", "time", "price", "day", "name"} == {
        kind for phrase in book.phrases for kind in phrase.kinds
    }


def test_translations_are_as_signs_in_spain_have_them() -> None:
    spanish = {phrase.english: phrase.spanish for phrase in phrase_book().phrases}
    assert spanish["No parking"] == "Prohibido aparcar"
    assert spanish["Wet floor"] == "Suelo mojado"
    assert spanish["Push"] == "Empujar"
    assert spanish["Give way"] == "Ceda el paso"


def test_a_phrase_says_what_stands_around_its_values() -> None:
    phrase = Phrase("Open {time} - {time}", "Abierto de {time} a {time}", "hours")
    assert phrase.kinds == ("time", "time")
    assert phrase.literals == ("open ", " - ", "")
    assert phrase.filled(("9:00", "17:00")) == "Abierto de 9:00 a 17:00"
    assert phrase.filled(("9:00", "17:00"), english=True) == "Open 9:00 - 17:00"


def test_the_digest_is_that_of_the_phrases() -> None:
    one = PhraseBook((Phrase("Exit", "Salida", "doors"),))
    other = PhraseBook((Phrase("Exit", "Salidas", "doors"),))
    assert one.digest == PhraseBook(one.phrases).digest != other.digest


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Exit\tSalida", "line 1"),
        ("Exit\t\tdoors", "line 1"),
        ("Gate {letter}\tPuerta {letter}\tairports", "{letter}"),
        ("Gate {code}\tPuerta\tairports", "same values"),
        ("Exit\tSalida\tdoors\nEXIT\tSalida\tdoors", "twice"),
        (f"{'No entry ' * 8}\tNo\tdoors", "at most"),
        ("", "no phrases"),
    ],
)
def test_a_book_that_cannot_be_is_refused(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "book.tsv"
    path.write_text(line)
    with pytest.raises(HybridgeError, match=said) as caught:
        PhraseBook.load(path)
    assert caught.value.code is ErrorCode.DATA_INVALID
