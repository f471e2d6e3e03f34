"""Operators on text: from a reader's output to characters, from indices to names, and among phrases.

Text is an array of NumPy's kind ``U``: one string of shape (), or several of shape (n,). A setting that may be long is
given as a list, or in a file of its own with an entry a line.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.operators.registry import operator
from edge_runtime.operators.text_file import text_lines
from edge_runtime.tensor_spec import Array

__all__ = ["ctc_decode", "join_text", "labels", "phrase_lookup", "split_text"]

# They join what they stand between: "don't" and "dont" are alike.
_APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"


@operator(
    "ctc-decode",
    takes={"steps": "float32[..., steps, classes]"},
    gives={"texts": "text[...]", "confidences": "float32[...]"},
)
def ctc_decode(
    steps: Array,
    *,
    characters: Sequence[str] = (),
    characters_file: str = "",
    blank: int = 0,
    logits: bool = False,
) -> dict[str, Array]:
    """Greedy CTC decoding (Graves et al., 2006): the best class of each step, repetitions joined, blanks left out.

    Args:
        steps: A score for each class at each step, shape (n, steps, classes), or (steps, classes) for one text. NaN is
            less than anything.
        characters: What each class stands for, without the blank, in the order of the classes; a string or a list.
        characters_file: The same in a file.
        blank: Which class is the blank; -1 for the last.
        logits: Whether scores are logits; otherwise they are probabilities.

    Returns:
        `texts`, of shape (n,) or (), and `confidences` alike: the mean probability of the steps that gave a character,
        as PP-OCR counts it; 0 for an empty text.

    Raises:
        HybridgeError: `input-shape` when there is not one class more than characters.
    """
    letters: Sequence[str] = text_lines(characters_file) if characters_file else characters
    if steps.ndim < 2 or steps.shape[-1] != len(letters) + 1:
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "steps",
            received=f"shape {steps.shape}",
            expected=f"(n, steps, {len(letters) + 1}): a class for each of {len(letters)} characters and the blank",
            fix="give every character but the blank, with the space where the model has one",
        )
    blank %= steps.shape[-1]
    rows = steps.reshape(math.prod(steps.shape[:-2]), *steps.shape[-2:])
    best = _argmax(rows)
    kept = best != blank
    kept[:, 1:] &= best[:, 1:] != best[:, :-1]
    texts, confidences = [], np.zeros(len(rows), np.float32)
    for index, row in enumerate(rows):
        places = np.flatnonzero(kept[index])
        classes = best[index, places]
        texts.append("".join([letters[at - (at > blank)] for at in classes.tolist()]))
        if places.size:
            chances = _softmax_at(row[places], classes) if logits else row[places, classes]
            confidences[index] = np.nan_to_num(chances.mean(dtype=np.float32))
    shape = steps.shape[:-2]
    return {"texts": _text(texts).reshape(shape), "confidences": confidences.reshape(shape)}


@operator("labels", takes={"indices": "int64|int32|uint8[...]"}, gives={"texts": "text[...]"})
def labels(indices: Array, *, labels: Sequence[str] = (), labels_file: str = "", unknown: str = "") -> Array:
    """The name of each index; `unknown` for one beyond the names."""
    names: Sequence[str] = text_lines(labels_file) if labels_file else labels
    texts = [names[at] if 0 <= at < len(names) else unknown for at in indices.reshape(-1).tolist()]
    return _text(texts).reshape(indices.shape)


@operator(
    "phrase-lookup",
    takes={"texts": "text[...]"},
    gives={"texts": "text[...]", "found": "bool[...]"},
)
def phrase_lookup(
    texts: Array,
    *,
    phrases: Mapping[str, str] | None = None,
    phrases_file: str = "",
    exact: bool = False,
    unknown: str | None = None,
) -> dict[str, Array]:
    """Each phrase as a table has it, such as its translation.

    Phrases meet when they agree in letters and digits: case, accents, width, punctuation and spacing do not count, as
    in "NO  ENTRY!" and "No entry". An exact match goes before such a one.

    Args:
        texts: The phrases.
        phrases: The table.
        phrases_file: The same in a file: on each line a phrase, a tab, and what it becomes.
        exact: Whether only phrases that are the same to the letter meet.
        unknown: What a phrase becomes that is not in the table; without it, it stays as it is.

    Returns:
        The `texts` that were looked up, and whether each was `found`.

    Raises:
        HybridgeError: `input-invalid` for a line of the file that is no pair.
    """
    lines = text_lines(phrases_file) if phrases_file else ()
    same, alike = _table(tuple((phrases or {}).items()), phrases_file, lines)
    given = texts.reshape(-1).tolist()
    answers = [same.get(text, None if exact else alike.get(_essence(text))) for text in given]
    found = np.array([answer is not None for answer in answers], bool).reshape(texts.shape)
    results = [
        answer if answer is not None else text if unknown is None else unknown
        for text, answer in zip(given, answers, strict=True)
    ]
    return {"texts": _text(results).reshape(texts.shape), "found": found}


@operator("join-text", takes={"texts": "text[n]"}, gives={"text": "text[]"})
def join_text(texts: Array, *, separator: str = " ") -> Array:
    """Several texts as one, with a separator between them."""
    return np.array(separator.join(texts.reshape(-1).tolist()))


@operator("split-text", takes={"text": "text[]"}, gives={"texts": "text[n]"})
def split_text(text: Array, *, separator: str = "") -> Array:
    """One text as several, at each separator, or at white space without one; empty parts are left out."""
    parts = text.item().split(separator or None)
    return _text([part for part in parts if part])


@lru_cache(maxsize=8)
def _table(
    pairs: tuple[tuple[str, str], ...], path: str, lines: tuple[str, ...]
) -> tuple[dict[str, str], dict[str, str]]:
    """The table by the phrases themselves, and by what is essential of them; the first of two alike counts."""
    rows = list(pairs)
    for number, line in enumerate(lines, 1):
        phrase, tab, answer = line.partition("\t")
        if not tab and line.strip():
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                f"file '{path}', line {number}",
                received=repr(line),
                expected="a phrase, a tab, and what it becomes",
            )
        if tab:
            rows.append((phrase, answer))
    same: dict[str, str] = {}
    alike: dict[str, str] = {}
    for phrase, answer in rows:
        same.setdefault(phrase, answer)
        alike.setdefault(_essence(phrase), answer)
    # A phrase without a letter or digit is alike every other such one.
    alike.pop("", None)
    return same, alike


def _essence(phrase: str) -> str:
    letters = unicodedata.normalize("NFKD", phrase.casefold())
    spaced = "".join(
        letter if letter.isalnum() else "" if unicodedata.combining(letter) or letter in _APOSTROPHES else " "
        for letter in letters
    )
    return " ".join(spaced.split())


def _argmax(rows: Array) -> Array:
    best: Array = rows.argmax(axis=-1)
    # NumPy takes NaN for the greatest.
    if np.isnan(np.take_along_axis(rows, best[..., np.newaxis], axis=-1)).any():
        best = np.where(np.isnan(rows), -np.inf, rows).argmax(axis=-1)
    return best


def _softmax_at(logits: Array, classes: Array) -> Array:
    """Probability of one class in each row; that of a row's best is one over the sum of the others' ratios to it."""
    top = logits[np.arange(len(classes)), classes, np.newaxis]
    with np.errstate(invalid="ignore", over="ignore"):
        ratios = np.exp(logits.astype(np.float32) - top)
    chances: Array = 1 / np.nansum(ratios, axis=-1)
    return chances


def _text(texts: Sequence[str]) -> Array:
    return np.array(texts, np.str_) if len(texts) else np.empty(0, "<U1")
