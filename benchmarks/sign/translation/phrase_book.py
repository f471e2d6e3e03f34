"""The phrase book: what signs say in English, and what such a sign says in Spain.

``phrase_book.tsv`` has a line a phrase: English, Spanish and category, with tabs between them. A phrase may leave
open a value, such as ``Gate {code}``; the values that a text has there go into the translation in the same order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from os import PathLike
from pathlib import Path
from typing import Self

from benchmarks.sign.translation.encoding import LENGTH, normalized
from benchmarks.sign.translation.placeholders import KINDS
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file

__all__ = ["Phrase", "PhraseBook", "phrase_book"]

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
# Characters that a phrase's own words may have, so that there is room for values.
_LONGEST = LENGTH - 4


@dataclass(frozen=True, slots=True)
class Phrase:
    """One line of the book.

    Attributes:
        english: What a sign says, in sentence case; ``{kind}`` stands for a value.
        spanish: What it says in Spanish, with the same values.
        category: Where such signs stand.
    """

    english: str
    spanish: str
    category: str

    @property
    def kinds(self) -> tuple[str, ...]:
        """What its values are, in order."""
        return tuple(_PLACEHOLDER.findall(self.english))

    @property
    def literals(self) -> tuple[str, ...]:
        """What stands before, between and after its values, normalised; one more than values."""
        return tuple(_plain(part) for part in _PLACEHOLDER.split(self.english)[::2])

    def filled(self, values: tuple[str, ...], *, english: bool = False) -> str:
        """The translation, or the English text, with values in their places."""
        left = list(values)
        return _PLACEHOLDER.sub(lambda _: left.pop(0), self.english if english else self.spanish)


class PhraseBook:
    """Phrases by index, which is the class that a network trained on the book gives them.

    Args:
        phrases: The phrases.

    Raises:
        HybridgeError: `data-invalid` for no phrase, two of one text, one that is too long, or values that the two
            languages do not share.
    """

    def __init__(self, phrases: tuple[Phrase, ...]):
        self.phrases = phrases
        seen: dict[str, Phrase] = {}
        for phrase in phrases:
            _check(phrase)
            first = seen.setdefault(normalized(phrase.english), phrase)
            if first is not phrase:
                raise _invalid(f"'{phrase.english}' twice", "each text once")
        if not phrases:
            raise _invalid("no phrases", "a line for each phrase")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Reads a file of tab-separated lines.

        Raises:
            HybridgeError: `file-not-found`, `data-invalid`.
        """
        phrases = []
        for number, line in enumerate(read_file(path).decode("utf-8", errors="replace").splitlines(), 1):
            fields = [field.strip() for field in line.split("\t")]
            if len(fields) != 3 or not all(fields):
                raise _invalid(f"line {number}: '{line[:80]}'", "English, Spanish and category, tabs between")
            phrases.append(Phrase(*fields))
        return cls(tuple(phrases))

    def __len__(self) -> int:
        return len(self.phrases)

    def __iter__(self) -> Iterator[Phrase]:
        return iter(self.phrases)

    def __getitem__(self, index: int) -> Phrase:
        return self.phrases[index]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that a network trained on the book depends on, and of the translations."""
        lines = "\n".join(f"{each.english}\t{each.spanish}" for each in self.phrases)
        return hashlib.sha256(lines.encode()).hexdigest()


@lru_cache(maxsize=1)
def phrase_book() -> PhraseBook:
    """The book that comes with the package."""
    return PhraseBook.load(Path(__file__).with_name("phrase_book.tsv"))


def _plain(part: str) -> str:
    # The spaces at a value's sides say where it begins.
    text = normalized(part)
    return f"{' ' * (part[:1] == ' ')}{text}{' ' * (part[-1:] == ' ' and bool(text))}"


def _check(phrase: Phrase) -> None:
    if unknown := sorted(set(phrase.kinds) - KINDS.keys()):
        raise _invalid(
            f"'{phrase.english}' with {{{unknown[0]}}}",
            f"values among {', '.join(f'{{{kind}}}' for kind in KINDS)}",
        )
    if phrase.kinds != tuple(_PLACEHOLDER.findall(phrase.spanish)):
        raise _invalid(
            f"'{phrase.english}' with the translation '{phrase.spanish}'", "the same values in both"
        )
    if len(normalized(_PLACEHOLDER.sub("", phrase.english))) > _LONGEST:
        raise _invalid(f"'{phrase.english}'", f"at most {_LONGEST} characters beside the values")


def _invalid(received: str, expected: str) -> HybridgeError:
    return HybridgeError(ErrorCode.DATA_INVALID, "phrase book", received=received, expected=expected)
