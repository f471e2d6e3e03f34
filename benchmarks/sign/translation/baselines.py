"""What the network is measured beside: the book looked up by the text itself, and by the nearest of its phrases."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from benchmarks.sign.translation.encoding import normalized
from benchmarks.sign.translation.phrase_book import PhraseBook
from edge_runtime.tensor_spec import Array

__all__ = ["ExactLookup", "NearestPhrase"]

_VALUE = re.compile(r"\S*\d\S*")


class ExactLookup:
    """Finds a phrase that a text is, but for case, accents and spaces; a value is any word with a digit in it."""

    def __init__(self, book: PhraseBook):
        self._phrases = {text: index for index, text in enumerate(_texts(book))}

    def find(self, text: str) -> tuple[int, float]:
        """The phrase's index and 1, or 0 and 0 for a text that is in no phrase."""
        for form in _forms(text):
            if form in self._phrases:
                return self._phrases[form], 1.0
        return 0, 0.0


class NearestPhrase:
    """Finds the phrase of the least edit distance (Levenshtein, 1966) for its length, all phrases in step in NumPy."""

    def __init__(self, book: PhraseBook):
        texts = _texts(book)
        self._lengths = np.array([len(text) for text in texts])
        self._places = np.arange(self._lengths.max() + 1)
        self._characters = np.zeros((len(texts), self._lengths.max()), np.int32)
        for row, text in zip(self._characters, texts, strict=True):
            row[: len(text)] = [ord(character) for character in text]

    def find(self, text: str) -> tuple[int, float]:
        """The nearest phrase's index, and the share of characters that are right, in 0..1."""
        likeness = np.max([self._likeness(form) for form in _forms(text)], axis=0)
        best = int(likeness.argmax())
        return best, float(likeness[best])

    def _likeness(self, text: str) -> Array:
        rows = np.arange(len(self._lengths))
        before = np.broadcast_to(self._places, (len(rows), len(self._places))).copy()
        for count, character in enumerate(text, 1):
            here = np.empty_like(before)
            here[:, 0] = count
            here[:, 1:] = np.minimum(before[:, 1:] + 1, before[:, :-1] + (self._characters != ord(character)))
            # A character left out costs one more than its neighbour on the left: a running minimum.
            before = np.minimum.accumulate(here - self._places, axis=1) + self._places
        distance = before[rows, self._lengths]
        likeness: Array = 1 - distance / np.maximum(np.maximum(self._lengths, len(text)), 1)
        return likeness


def _texts(book: PhraseBook) -> list[str]:
    return [normalized(re.sub(r"\{\w+\}", "#", phrase.english)) for phrase in book.phrases]


def _forms(text: str) -> Sequence[str]:
    """The text, and with its values put open."""
    plain = normalized(text)
    return list(dict.fromkeys((plain, _VALUE.sub("#", plain))))
