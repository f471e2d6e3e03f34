"""How often the right phrase is found, how often one is found that is not there, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from benchmarks.sign.translation.baselines import ExactLookup, NearestPhrase
from benchmarks.sign.translation.encoding import encoded, normalized
from benchmarks.sign.translation.phrase_book import PhraseBook
from benchmarks.sign.translation.reading_mistakes import HELD_OUT, misread
from benchmarks.sign.translation.samples import Strangers, other_words, sign_text
from benchmarks.sign.translation.training import Examples
from edge_runtime import Bundle, Model
from edge_runtime.tensor_spec import Array

__all__ = ["RATES", "Finder", "NetworkFinder", "Row", "error_rate", "evaluate", "held_out_examples", "score"]

RATES = (0.0, 0.05, 0.1, 0.2)
"""Character error rates of the reader that is measured with."""

_SEED = 1000
_PER_PHRASE = 2


class Finder(Protocol):
    """Finds the phrase of a text."""

    def find(self, text: str) -> tuple[int, float]:
        """The phrase's index, and how sure that is in 0..1."""
        ...


class NetworkFinder:
    """The network in a bundle, as a device runs it."""

    def __init__(self, bundle: Bundle):
        self._model = Model(bundle)

    def find(self, text: str) -> tuple[int, float]:
        """The most likely phrase's index, and how likely it is."""
        phrases = self._model.run({"characters": encoded([text])})["phrases"][0]
        best = int(phrases.argmax())
        return best, float(phrases[best])


@dataclass(frozen=True, slots=True)
class Row:
    """One way to find phrases, at one threshold.

    Attributes:
        name: What it is.
        threshold: Confidence below which a text counts as in no phrase.
        right: Share of texts with the right translation, for each set of readings.
        wrong: Share of texts with a wrong one, for each.
        false_signs: Share of the signs that are in no phrase for which one was found.
        false_strangers: Share of made-up texts for which one was.
        median_ms: Time for one text.
    """

    name: str
    threshold: float
    right: tuple[float, ...]
    wrong: tuple[float, ...]
    false_signs: float
    false_strangers: float
    median_ms: float


@dataclass(frozen=True)
class _Found:
    """What a finder found for all texts."""

    name: str
    readings: tuple[tuple[Array, Array], ...]
    signs: Array
    strangers: Array
    median_ms: float


def evaluate(
    bundle: Bundle,
    book: PhraseBook,
    readings: Sequence[Examples],
    signs: Sequence[str],
    *,
    made_up: int = 2000,
) -> list[Row]:
    """The network and both baselines on the same texts.

    The nearest phrase has a threshold at which it finds phrases in no more of the foreign signs than the network does.
    Its confidence has few values, so that it may be fewer: the network is then scored a second time at a threshold that
    is as strict.

    Args:
        bundle: The network, with its threshold.
        book: The book that it was trained on.
        readings: Sets of texts that are in the book, as they were read.
        signs: Signs that are in no phrase, as they were read.
        made_up: How many other texts that are in no phrase are made up.
    """
    confidence = bundle.manifest.confidence
    threshold = 0.5 if confidence is None or confidence.threshold is None else confidence.threshold
    random = np.random.default_rng(_SEED)
    made = Strangers(book, other_words())
    strangers = [made.make(random) for _ in range(made_up)]
    network, nearest, exact = (
        _found(name, finder, readings, signs, strangers)
        for name, finder in (
            ("network", NetworkFinder(bundle)),
            ("nearest phrase", NearestPhrase(book)),
            ("exact lookup", ExactLookup(book)),
        )
    )
    equal = _as_strict(nearest.signs, int((network.signs >= threshold).sum()))
    strict = _as_strict(network.signs, int((nearest.signs >= equal).sum()))
    return [
        _row(book, network, threshold, readings),
        _row(book, replace(network, name="network, as strict"), strict, readings),
        _row(book, nearest, equal, readings),
        _row(book, exact, 0.5, readings),
    ]


def held_out_examples(book: PhraseBook, rate: float) -> Examples:
    """Texts of every phrase, read with that error rate by the reader that training has not seen."""
    random = np.random.default_rng(_SEED + int(rate * 1000))
    texts, phrases = [], []
    for index, phrase in enumerate(book.phrases):
        for _ in range(_PER_PHRASE):
            texts.append(misread(sign_text(phrase, random), rate, HELD_OUT, random))
            phrases.append(index)
    return Examples(tuple(texts), np.array(phrases))


def score(book: PhraseBook, found: Array, phrases: Array) -> Array:
    """Whether each found phrase has the translation of the right one; two phrases may share theirs."""
    spanish = np.array([phrase.spanish for phrase in book.phrases])
    right: Array = spanish[found] == spanish[phrases]
    return right


def error_rate(texts: Sequence[str], read: Sequence[str]) -> float:
    """Edit distance of what was read from what is written, by characters written, case and accents aside."""
    edits = sum(_distance(normalized(one), normalized(two)) for one, two in zip(texts, read, strict=True))
    return edits / max(1, sum(len(normalized(text)) for text in texts))


def _as_strict(confidences: Array, allowed: int) -> float:
    """The lowest threshold that no more than so many confidences reach."""
    descending = np.sort(confidences)[::-1]
    return 0.0 if allowed >= len(descending) else float(np.nextafter(descending[allowed], 2.0))


def _found(
    name: str, finder: Finder, readings: Sequence[Examples], signs: Sequence[str], strangers: Sequence[str]
) -> _Found:
    times: list[float] = []

    def find(texts: Sequence[str]) -> tuple[Array, Array]:
        results = []
        for text in texts:
            start = time.perf_counter()
            results.append(finder.find(text))
            times.append(time.perf_counter() - start)
        return np.array([index for index, _ in results]), np.array([sure for _, sure in results])

    found = tuple(find(reading.texts) for reading in readings)
    return _Found(name, found, find(signs)[1], find(strangers)[1], float(np.median(times)) * 1e3)


def _row(book: PhraseBook, found: _Found, threshold: float, readings: Sequence[Examples]) -> Row:
    right, wrong = [], []
    for (indices, sure), reading in zip(found.readings, readings, strict=True):
        accepted, correct = sure >= threshold, score(book, indices, reading.phrases)
        right.append(float((accepted & correct).mean()))
        wrong.append(float((accepted & ~correct).mean()))
    return Row(
        found.name,
        threshold,
        tuple(right),
        tuple(wrong),
        float((found.signs >= threshold).mean()),
        float((found.strangers >= threshold).mean()),
        found.median_ms,
    )


def _distance(one: str, two: str) -> int:
    before = list(range(len(two) + 1))
    for row, character in enumerate(one, 1):
        here = [row]
        for column, other in enumerate(two, 1):
            here.append(min(before[column] + 1, here[-1] + 1, before[column - 1] + (character != other)))
        before = here
    return before[-1]
