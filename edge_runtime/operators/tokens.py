"""The operator that turns text into the numbers that a text model takes."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.operators.registry import operator
from edge_runtime.operators.text_file import line_numbers
from edge_runtime.tensor_spec import Array

__all__ = ["tokenize"]

_LONGEST_WORD = 100


@operator(
    "tokenize",
    takes={"texts": "text[...]"},
    gives={"tokens": "int32[..., length]", "lengths": "int32[...]"},
)
def tokenize(
    texts: Array,
    *,
    length: int,
    vocabulary: Sequence[str] = (),
    vocabulary_file: str = "",
    unit: str = "character",
    lowercase: bool = True,
    unknown: int = 1,
    padding: int = 0,
    start: int | None = None,
    end: int | None = None,
) -> dict[str, Array]:
    """Each text as so many tokens: a token's number is its place in the vocabulary.

    Two units, because they are what small models on devices take. ``character`` survives what a reader gets wrong: one
    false letter is one false token, and a vocabulary of characters is a few hundred bytes. ``wordpiece`` is BERT's:
    words and punctuation are split apart and each is the fewest longest pieces from the left, those within a word
    written with ``##`` before (Wu et al., "Google's Neural Machine Translation System", 2016).

    Args:
        texts: Of any shape.
        length: Tokens for each text; a longer one is cut, before its `end` token.
        vocabulary: The tokens, in the order of their numbers; a string or a list.
        vocabulary_file: The same in a file.
        unit: ``character`` or ``wordpiece``.
        lowercase: Whether case and, as in BERT, accents are taken away first.
        unknown: Token for what is not in the vocabulary.
        padding: Token after the end of a text.
        start: Token before every text, such as the number of ``[CLS]``.
        end: Token after every text, such as the number of ``[SEP]``.

    Returns:
        `tokens`, int32 with an axis of `length` behind, and `lengths`, how many of them are no padding.

    Raises:
        HybridgeError: `input-invalid` for another unit, or a length without room for a token.
    """
    if unit not in ("character", "wordpiece"):
        raise HybridgeError(ErrorCode.INPUT_INVALID, "unit", received=unit, expected="character or wordpiece")
    around = (start is not None) + (end is not None)
    if length <= around:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID, "length", received=str(length), expected=f"more than {around}"
        )
    numbers = line_numbers(vocabulary_file) if vocabulary_file else _numbers(tuple(vocabulary))
    flat = texts.reshape(-1).tolist()
    tokens = np.full((len(flat), length), padding, np.int32)
    lengths = np.zeros(len(flat), np.int32)
    for row, text in enumerate(flat):
        plain = _plain(text) if lowercase else text
        found = (
            [numbers.get(letter, unknown) for letter in plain]
            if unit == "character"
            else [number for word in _words(plain) for number in _pieces(word, numbers, unknown)]
        )
        found = [
            *([] if start is None else [start]), *found[: length - around], *([] if end is None else [end])
        ]  # fmt: skip
        tokens[row, : len(found)] = found
        lengths[row] = len(found)
    return {"tokens": tokens.reshape(*texts.shape, length), "lengths": lengths.reshape(texts.shape)}


@lru_cache(maxsize=8)
def _numbers(vocabulary: tuple[str, ...]) -> Mapping[str, int]:
    return {token: number for number, token in reversed(list(enumerate(vocabulary)))}


def _plain(text: str) -> str:
    apart = unicodedata.normalize("NFD", text.lower())
    return "".join(letter for letter in apart if unicodedata.category(letter) != "Mn")


def _words(text: str) -> Iterator[str]:
    """Words, and punctuation and symbols each for itself."""
    word = ""
    for letter in text:
        if letter.isspace() or unicodedata.category(letter)[0] in "PS":
            if word:
                yield word
            word = ""
            if not letter.isspace():
                yield letter
        else:
            word += letter
    if word:
        yield word


def _pieces(word: str, numbers: Mapping[str, int], unknown: int) -> list[int]:
    """The longest known pieces from the left; one unknown token for a word that cannot be put together."""
    found: list[int] = []
    begin = 0
    while begin < len(word) <= _LONGEST_WORD:
        for stop in range(len(word), begin, -1):
            number = numbers.get(word[begin:stop] if begin == 0 else f"##{word[begin:stop]}")
            if number is not None:
                found.append(number)
                begin = stop
                break
        else:
            return [unknown]
    return found or [unknown]
