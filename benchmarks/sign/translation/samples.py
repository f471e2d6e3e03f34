"""Texts to train and measure with: phrases of the book as signs write them, and texts that are in no phrase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.sign.translation.encoding import normalized
from benchmarks.sign.translation.phrase_book import Phrase, PhraseBook
from benchmarks.sign.translation.placeholders import DAYS, exact_pattern
from edge_runtime.files import read_file

__all__ = ["Strangers", "other_signs", "sign_text"]

_FOLDER = Path(__file__).parent


def sign_text(phrase: Phrase, random: np.random.Generator) -> str:
    """A phrase as a sign may write it: with values, in one of the cases, in its punctuation or without."""
    values = tuple(_VALUES[kind](random) for kind in phrase.kinds)
    text = phrase.filled(values, english=True)
    chance = random.random(3)
    if chance[0] < 0.5:
        text = text.upper()
    elif chance[0] < 0.75:
        text = " ".join(word[:1].upper() + word[1:] for word in text.split(" "))
    if " - " in text and chance[1] < 0.5:
        text = text.replace(" - ", "-" if chance[1] < 0.35 else " to ")
    if chance[2] < 0.08:
        text += "!" if chance[2] < 0.03 else "."
    return text


class Strangers:
    """Texts that are in no phrase of a book.

    They are its words in other orders, its phrases changed, cut and extended, other words, names, numbers, Spanish, and
    no words at all.

    Args:
        book: The book.
        words: Words to make them of beside the book's own.
    """

    def __init__(self, book: PhraseBook, words: tuple[str, ...]):
        self._book = book
        self._words = words
        self._phrases = [
            " ".join(phrase.filled(("",) * len(phrase.kinds), english=True).split()) for phrase in book
        ]
        self._own = tuple(dict.fromkeys(word.lower() for text in self._phrases for word in text.split()))
        self._patterns = [exact_pattern(phrase.literals, phrase.kinds) for phrase in book if phrase.kinds]
        self._known = {normalized(text) for text in self._phrases} | {
            normalized(phrase.english) for phrase in book.phrases
        }
        self._makers: tuple[tuple[float, Callable[[np.random.Generator], str]], ...] = (
            (0.16, self._shuffled),
            (0.24, self._changed),
            (0.12, self._cut),
            (0.12, self._extended),
            (0.16, self._of_other_words),
            (0.06, _name),
            (0.06, _figures),
            (0.04, self._spanish),
            (0.04, _noise),
        )

    def make(self, random: np.random.Generator) -> str:
        """One text, in capitals or not."""
        shares = np.cumsum([share for share, _ in self._makers])
        while True:
            maker = self._makers[int(np.searchsorted(shares, random.random() * shares[-1]))][1]
            text = maker(random).strip()
            if text and not self._is_known(normalized(text)):
                return text.upper() if random.random() < 0.5 else text[:1].upper() + text[1:]

    def _is_known(self, text: str) -> bool:
        return text in self._known or any(pattern.fullmatch(text) for pattern in self._patterns)

    def _shuffled(self, random: np.random.Generator) -> str:
        return " ".join(random.choice(self._own, int(random.integers(2, 7))))

    def _changed(self, random: np.random.Generator) -> str:
        """A phrase with one of its words become another, so that no reader takes the one text for the other."""
        phrase = self._phrase(random)
        words = phrase.split()
        at = int(random.integers(len(words)))
        words[at] = str(random.choice(self._words if random.random() < 0.7 else self._own))
        changed = " ".join(words)
        return changed if _unlike(changed, phrase) else ""

    def _cut(self, random: np.random.Generator) -> str:
        """Some of the words of a phrase, too few to say which it is."""
        words = self._phrase(random).split()
        if len(words) < 2:
            return ""
        kept = max(1, int(random.integers(1, len(words) // 2 + 1)))
        return " ".join(words[:kept] if random.random() < 0.5 else words[-kept:])

    def _extended(self, random: np.random.Generator) -> str:
        """A phrase that goes on, or begins otherwise."""
        phrase, pool = self._phrase(random), self._words if random.random() < 0.6 else self._own
        more = " ".join(random.choice(pool, int(random.integers(1, 4))))
        if random.random() < 0.15:
            more = _figures(random)
        extended = f"{phrase} {more}" if random.random() < 0.6 else f"{more} {phrase}"
        return extended if _unlike(extended, phrase) else ""

    def _of_other_words(self, random: np.random.Generator) -> str:
        return " ".join(random.choice(self._words, int(random.integers(1, 6))))

    def _spanish(self, random: np.random.Generator) -> str:
        phrase = self._book[int(random.integers(len(self._book)))]
        return " ".join(phrase.filled(("",) * len(phrase.kinds)).split())

    def _phrase(self, random: np.random.Generator) -> str:
        phrase = self._book[int(random.integers(len(self._book)))]
        return phrase.filled(tuple(_VALUES[kind](random) for kind in phrase.kinds), english=True)


@lru_cache(maxsize=1)
def other_words() -> tuple[str, ...]:
    """Words that signs may have and the book need not."""
    return tuple(read_file(_FOLDER / "other_words.txt").decode().split())


@lru_cache(maxsize=1)
def _names() -> tuple[str, ...]:
    return tuple(read_file(_FOLDER / "names.txt").decode().split())


def other_signs() -> tuple[str, ...]:
    """Signs that are in no phrase of the book, written to measure with and seen by no training."""
    return tuple(read_file(_FOLDER / "other_signs.txt").decode().splitlines())


def _unlike(text: str, other: str) -> bool:
    """Whether no reader takes the one for the other: by the pairs of letters that they share (Dice, 1945)."""
    one, two = (Counter(pairwise(each)) for each in (normalized(text), normalized(other)))
    return 2 * (one & two).total() < 0.8 * (one.total() + two.total())


def _number(random: np.random.Generator) -> str:
    chance = random.random()
    if chance < 0.1:
        return f"{random.integers(1, 20)}{random.choice(['.', ','])}{random.integers(0, 10)}"
    return str(int(random.integers(1, 30 if chance < 0.6 else 130 if chance < 0.9 else 1000)))


def _code(random: np.random.Generator) -> str:
    letter, number = chr(65 + int(random.integers(26))), int(random.integers(1, 100))
    forms = (
        f"{letter}{number}",
        f"{number}",
        f"{number}{letter}",
        letter,
        f"{letter}{chr(65 + int(random.integers(26)))}{number}{number}",
    )
    return str(random.choice(forms, p=(0.4, 0.3, 0.1, 0.1, 0.1)))


def _time(random: np.random.Generator) -> str:
    hour, minute = int(random.integers(0, 24)), int(random.choice([0, 0, 15, 30, 45]))
    twelve = f"{(hour - 1) % 12 + 1}"
    half = "am" if hour < 12 else "pm"
    forms = (
        f"{hour}:{minute:02}", f"{hour:02}:{minute:02}", f"{hour}.{minute:02}", f"{twelve}{half}", f"{twelve} {half}",
        f"{twelve}:{minute:02} {half}", f"{twelve}.{minute:02}{half}", str(hour),
    )  # fmt: skip
    return str(random.choice(forms))


def _price(random: np.random.Generator) -> str:
    amount, cents = int(random.integers(1, 60)), int(random.choice([0, 50, 95, 99]))
    forms = (
        f"£{amount}",
        f"£{amount}.{cents:02}",
        f"${amount}.{cents:02}",
        f"{amount} €",
        f"{amount},{cents:02} €",
        f"€{amount}",
    )
    return str(random.choice(forms))


def _day(random: np.random.Generator) -> str:
    day = str(random.choice(list(DAYS)))
    return day[:1].upper() + day[1:]


def _name(random: np.random.Generator) -> str:
    name = str(random.choice(_names()))
    forms = (
        name,
        f"{name} {random.choice(_names())}",
        f"{name} Street",
        f"{name}'s",
        f"{name} & Sons",
        f"{random.integers(1, 200)} {name} Road",
        f"St {name}",
    )
    return str(random.choice(forms))


def _place(random: np.random.Generator) -> str:
    name = str(random.choice(_names()))
    forms = (
        name,
        f"{name} {random.choice(['Park', 'Castle', 'Central', 'Museum', 'Airport', 'Hill'])}",
        f"the {random.choice(other_words())}",
        f"{name} and {random.choice(_names())}",
    )
    return str(random.choice(forms))


def _figures(random: np.random.Generator) -> str:
    digits = "".join(str(each) for each in random.integers(0, 10, int(random.integers(1, 12))))
    forms = (
        digits,
        f"{digits[:2]}/{digits[2:4]}/{digits[4:8]}",
        f"{digits[:5]} {digits[5:]}",
        _code(random),
        _price(random),
        _time(random),
        f"www.{random.choice(other_words())}.com",
    )
    return str(random.choice(forms))


def _noise(random: np.random.Generator) -> str:
    length, sort = int(random.integers(1, 40)), random.random()
    # Letters of another alphabet are one character to the network.
    letters = "жд" if sort < 0.2 else "abcdefghijklmnopqrstuvwxyz0123456789 .-"
    if sort > 0.8:
        return letters[int(random.integers(len(letters)))] * length
    return "".join(letters[index] for index in random.integers(0, len(letters), length))


_VALUES: dict[str, Callable[[np.random.Generator], str]] = {
    "number": _number,
    "code": _code,
    "time": _time,
    "price": _price,
    "day": _day,
    "name": _place,
}
