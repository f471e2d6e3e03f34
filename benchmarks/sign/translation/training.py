"""From the phrase book to a bundle: texts made up, the network trained, converted, and its threshold chosen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from benchmarks.sign.translation.encoding import encoded
from benchmarks.sign.translation.network import fitted_temperature, phrase_network, train_network
from benchmarks.sign.translation.phrase_book import PhraseBook, phrase_book
from benchmarks.sign.translation.reading_mistakes import TRAINED, misread
from benchmarks.sign.translation.samples import Strangers, other_words, sign_text
from cloud_fallback import choose, sweep, thin
from edge_runtime import Bundle, Confidence, Model
from edge_runtime.tensor_spec import Array

__all__ = ["Examples", "Trained", "bundle_file", "make_examples", "translation_bundle"]

_NAME = "sign-translation"
# Another one for every change of texts, network or training.
_VERSION = "1"

_SEED = 0
_PER_PHRASE, _HELD_BACK = 120, 6
# Texts that are in no phrase, for each that is in one.
_STRANGERS = 0.9
_HIGHEST_RATE = 0.25
_RECIPE = "dynamic-int8"
_CURVE_POINTS = 24
# Accuracy that is given up for fewer wrong translations.
_NEARLY = 0.01

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Examples:
    """Texts as read from signs.

    Attributes:
        texts: With the reader's mistakes.
        phrases: The index of each one's phrase, or the number of phrases for none; int64 of shape (n,).
    """

    texts: tuple[str, ...]
    phrases: Array

    @property
    def characters(self) -> Array:
        """The texts encoded, int32 of shape (n, 48)."""
        return encoded(self.texts)


@dataclass(frozen=True, slots=True)
class Trained:
    """A translator for a device.

    Attributes:
        bundle: The converted network, with its threshold and the curve it was chosen from.
        temperature: What its logits were divided by.
        seconds: How long training took, and all of it.
    """

    bundle: Bundle
    temperature: float
    seconds: dict[str, float]


def translation_bundle(
    book: PhraseBook | None = None, *, seed: int = _SEED, per_phrase: int = _PER_PHRASE, say: Say
) -> Trained:
    """Trains on a book and converts.

    Args:
        book: The book; the one that comes with the package without it.
        seed: Of texts and network.
        per_phrase: Texts of a phrase to train with; one with values has more.
        say: Takes a line of progress.

    Raises:
        HybridgeError: `extra-missing` without what trains and converts; what converting raises.
    """
    from convert import convert

    started = time.monotonic()
    book = book or phrase_book()
    say(f"making texts of {len(book)} phrases")
    train = make_examples(book, per_phrase, seed=seed)
    held = make_examples(book, _HELD_BACK, seed=seed + 1)
    say(f"training on {len(train.texts):,} texts")
    begun = time.monotonic()
    network = train_network(train.characters, train.phrases, len(book), seed=seed, say=say)
    trained_s = time.monotonic() - begun
    characters = held.characters
    temperature = fitted_temperature(_logits(network, characters), held.phrases)
    known = held.phrases < len(book)
    conversion = convert(
        phrase_network(network, temperature),
        recipe=_RECIPE,
        name=_NAME,
        version=_version(book),
        evaluation={"characters": characters[known], "label": held.phrases[known]},
        labels=tuple(phrase.spanish for phrase in book.phrases),
        confidence=Confidence("phrases", activation="softmax"),
        progress=say,
    )
    bundle = _with_threshold(conversion.bundle, held, len(book))
    return Trained(bundle, temperature, {"training": trained_s, "all": time.monotonic() - started})


def bundle_file(book: PhraseBook | None = None) -> str:
    """Name of the file that a book's bundle is saved as; with another book or another training it is another."""
    return f"{_NAME}-{_version(book or phrase_book())}.edge"


def make_examples(book: PhraseBook, per_phrase: int, *, seed: int) -> Examples:
    """Texts of every phrase and of none, in the mix that is trained with, misread at all rates up to a quarter."""
    random = np.random.default_rng(seed)
    strangers = Strangers(book, other_words())
    texts, phrases = [], []
    for index, phrase in enumerate(book.phrases):
        # With values a phrase has as many faces more.
        for _ in range(per_phrase * (1 + len(phrase.kinds))):
            texts.append(misread(sign_text(phrase, random), random.random() * _HIGHEST_RATE, TRAINED, random))
            phrases.append(index)
    for _ in range(round(len(texts) * _STRANGERS)):
        # A third is read without a mistake.
        rate = random.random() * _HIGHEST_RATE * (random.random() < 2 / 3)
        texts.append(misread(strangers.make(random), rate, TRAINED, random))
        phrases.append(len(book))
    return Examples(tuple(texts), np.array(phrases))


def _version(book: PhraseBook) -> str:
    # A bundle is of one book: another has other classes.
    return f"{_VERSION}-{book.digest[:12]}"


def _logits(network: Any, characters: Array) -> Array:
    logits: Array = network.predict(characters, batch_size=512, verbose=0)
    return logits


def _with_threshold(bundle: Bundle, held: Examples, phrases: int) -> Bundle:
    """The bundle with the highest threshold at which device and cloud together are nearly as often right as at any.

    The device is right with the right phrase; the cloud with texts in no phrase, and never with a phrase's: it
    translates words, and signs have their own way to say things. The highest, for a wrong translation is worse than
    none.
    """
    model = Model(bundle)
    likelihoods = np.concatenate(
        [model.run({"characters": row[np.newaxis]})["phrases"] for row in held.characters]
    )
    curve = sweep(likelihoods.max(-1), likelihoods.argmax(-1) == held.phrases, held.phrases == phrases)
    best = choose(curve, max_offload=1.0)
    chosen = max(
        (point for point in curve if point.accuracy >= best.accuracy - _NEARLY),
        key=lambda point: point.offloaded,
    )
    kept = {point.threshold: point for point in (*thin(curve, _CURVE_POINTS), chosen)}
    confidence = Confidence(
        "phrases",
        activation="softmax",
        threshold=chosen.threshold,
        curve=tuple(kept[threshold] for threshold in sorted(kept)),
    )
    return Bundle.create(msgspec.structs.replace(bundle.manifest, confidence=confidence), bundle.files)
