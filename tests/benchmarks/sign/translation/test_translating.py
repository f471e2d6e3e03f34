"""From likelihoods of phrases to Spanish, in the case of the sign."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.sign.translation.letter_case import case_of
from benchmarks.sign.translation.phrase_book import phrase_book
from benchmarks.sign.translation.translating import translate, translated_as
from edge_runtime import ErrorCode, HybridgeError

Array = np.ndarray[Any, Any]
PHRASES = {phrase.english: index for index, phrase in enumerate(phrase_book().phrases)}


def _likelihoods(english: str, likelihood: float = 0.9) -> Array:
    row = np.zeros((1, len(PHRASES)), np.float32)
    row[0, PHRASES[english]] = likelihood
    return row


@pytest.mark.parametrize(
    ("text", "cased"),
    [
        ("NO PARKING", "PROHIBIDO APARCAR AQUÍ"),
        ("N0 PARKlNG", "PROHIBIDO APARCAR AQUÍ"),
        ("No parking", "Prohibido aparcar aquí"),
        ("No Parking Here", "Prohibido Aparcar Aquí"),
        ("no parking", "prohibido aparcar aquí"),
        ("12", "Prohibido aparcar aquí"),
        ("", "Prohibido aparcar aquí"),
    ],
)
def test_a_translation_has_the_case_of_the_text(text: str, cased: str) -> None:
    assert case_of(text)("Prohibido aparcar aquí") == cased


@pytest.mark.parametrize(
    ("english", "text", "spanish"),
    [
        ("No parking", "N0 PARKING", "PROHIBIDO APARCAR"),
        ("Gate {code}", "GATE B12", "PUERTA B12"),
        ("Open {time} - {time}", "Open 9 am - 5 pm", "Abierto de 9 am a 5 pm"),
        ("{day} - {day} {time} - {time}", "MON-FRI 9.00-17.00", "DE LUN A VIE DE 9.00 A 17.00"),
        ("{day} closed", "Sundays closed", "Domingos cerrado"),
        ("Welcome to {name}", "welcome to York", "Bienvenidos a York"),
        ("Buy one get one free", "Buy One Get One Free", "Dos por Uno"),
        ("Gate {code}", "GATE", None),
    ],
)
def test_values_go_into_the_translation(english: str, text: str, spanish: str | None) -> None:
    assert translated_as(phrase_book()[PHRASES[english]], text) == spanish


def test_a_likely_phrase_is_the_translation() -> None:
    made = translate(np.array("EX1T"), _likelihoods("Exit"), threshold=0.5)
    assert made["translation"].item() == "SALIDA"
    assert made["confidence"].item() == pytest.approx(0.9)
    assert made["translated"].item() is True
    assert {name: array.shape for name, array in made.items()} == dict.fromkeys(made, ())


def test_an_unlikely_one_leaves_the_text_as_it_is() -> None:
    made = translate(np.array("Krzysztof"), _likelihoods("Exit", 0.3), threshold=0.5)
    assert (made["translation"].item(), made["translated"].item()) == ("Krzysztof", False)
    assert made["confidence"].item() == pytest.approx(0.3)


def test_a_phrase_without_its_value_is_not_believed() -> None:
    made = translate(np.array("GATE"), _likelihoods("Gate {code}"), threshold=0.5)
    assert (made["translation"].item(), made["confidence"].item(), made["translated"].item()) == (
        "GATE",
        0.0,
        False,
    )


def test_likelihoods_that_are_no_numbers_are_not_believed() -> None:
    made = translate(np.array("EXIT"), np.full((1, len(PHRASES)), np.nan, np.float32))
    assert (made["translation"].item(), made["confidence"].item(), made["translated"].item()) == (
        "EXIT",
        0.0,
        False,
    )


def test_likelihoods_of_another_book_are_refused() -> None:
    with pytest.raises(HybridgeError, match="phrase of the book") as caught:
        translate(np.array("EXIT"), np.zeros((1, 3), np.float32))
    assert caught.value.code is ErrorCode.INPUT_SHAPE
