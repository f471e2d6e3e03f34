"""Text as the network takes it: without case and accents, one number a character, always of one length."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import numpy as np

from edge_runtime.operators import operator
from edge_runtime.tensor_spec import Array

__all__ = ["LENGTH", "VOCABULARY", "encode_text", "encoded", "normalized"]

LENGTH = 48
"""Characters of a text that the network sees; the longest phrase of the book has fewer."""

# Index 0 is no character, 1 one that is not listed.
VOCABULARY = "\0\1 abcdefghijklmnopqrstuvwxyz0123456789.,:;-/\\|'\"!?%&()[]+#*=@_€$£°"

_UNKNOWN = 1
_INDEX = {character: index for index, character in enumerate(VOCABULARY) if index > _UNKNOWN}
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201b\u00b4`", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u00d7\u2715", "x"),
        **dict.fromkeys("\u00b7\u2022\u25cf", "."),
        "\u00ba": "\u00b0",
    }
)


def normalized(text: str) -> str:
    """The text in small letters without accents, with plain quotes and dashes, single spaces, and no other symbols.

    Example:
        >>> normalized("  CAFÉ —  Open")
        'cafe - open'
    """
    decomposed = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    letters = "".join(each for each in decomposed.casefold() if not unicodedata.combining(each))
    known = "".join(each if each in _INDEX or each.isalnum() else " " for each in letters)
    return " ".join(known.split())


def encoded(texts: Iterable[str]) -> Array:
    """Texts as the indices of their characters in the vocabulary, int32 of shape (texts, 48), cut off or filled up."""
    rows = []
    for text in texts:
        indices = [_INDEX.get(character, _UNKNOWN) for character in normalized(text)[:LENGTH]]
        rows.append(indices + [0] * (LENGTH - len(indices)))
    return np.array(rows, np.int32).reshape(-1, LENGTH)


@operator("sign-encode-text", takes={"text": "text[]"}, gives={"characters": f"int32[1, {LENGTH}]"})
def encode_text(text: Array) -> Array:
    """One text as the network takes it: the indices of its characters, int32 of shape (1, 48)."""
    return encoded([text.item()])
