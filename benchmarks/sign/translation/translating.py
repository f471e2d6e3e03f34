"""The operator that makes a translation of what the network found in the book."""

from __future__ import annotations

import re

import numpy as np

from benchmarks.sign.translation.letter_case import case_of
from benchmarks.sign.translation.phrase_book import Phrase, phrase_book
from benchmarks.sign.translation.placeholders import DAYS, find_values
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.operators import operator
from edge_runtime.tensor_spec import Array

__all__ = ["translate", "translated_as"]

_PLACEHOLDER = re.compile(r"\{[^{}]*\}")


@operator(
    "sign-translate",
    takes={"text": "text[]", "phrases": "float32[1, classes]"},
    gives={"translation": "text[]", "confidence": "float32[]", "translated": "bool[]"},
)
def translate(text: Array, phrases: Array, *, threshold: float = 0.0) -> dict[str, Array]:
    """The translation of a text by its most likely phrase, in the case of the text, with its values carried over.

    Args:
        text: One text, as it was read.
        phrases: How likely it is each phrase of the book, float32 of shape (1, phrases).
        threshold: Below this confidence the text stays as it is.

    Returns:
        `translation`, or the text itself; `confidence`, which is 0 where a value of the phrase is not in the text; and
        whether it was `translated`. All of shape ().
    """
    book = phrase_book()
    if phrases.shape != (1, len(book)):
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "likelihoods of phrases",
            received=f"shape {phrases.shape}",
            expected=f"(1, {len(book)}), a number for each phrase of the book",
            fix="train the network on this book",
        )
    original, best = text.item(), int(phrases.argmax())
    confidence = float(phrases[0, best]) if np.isfinite(phrases).all() else 0.0
    sure = confidence > 0 and confidence >= threshold
    made = translated_as(book[best], original) if sure else None
    if sure and made is None:
        confidence = 0.0
    return {
        "translation": np.array(original if made is None else made, np.str_),
        "confidence": np.array(confidence, np.float32),
        "translated": np.array(made is not None),
    }


def translated_as(phrase: Phrase, text: str) -> str | None:
    """A text's translation if it is that phrase; None when the phrase's values are not in it."""
    values = find_values(phrase.literals, phrase.kinds, text) if phrase.kinds else ()
    if values is None:
        return None
    cased = case_of(text)
    shown = [
        cased(DAYS[value]) if kind == "day" else value
        for kind, value in zip(phrase.kinds, values, strict=True)
    ]
    # Values are as the sign has them, whatever the case around them.
    parts = cased("\0".join(_PLACEHOLDER.split(phrase.spanish))).split("\0")
    made = "".join(part + value for part, value in zip(parts, [*shown, ""], strict=True))
    return made[:1].upper() + made[1:] if text[:1].isupper() else made
