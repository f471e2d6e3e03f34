"""A translation in the case of the text that was read: capitals, capitals in front, small letters, or a sentence."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["case_of"]

# Words that stay small where others begin with a capital.
_SMALL = frozenset(
    (
        "a",
        "al",
        "con",
        "de",
        "del",
        "e",
        "el",
        "en",
        "la",
        "las",
        "los",
        "o",
        "para",
        "por",
        "su",
        "un",
        "una",
        "y",
    )
)
# A reader takes some capitals for small letters, l for I before all.
_SHARE = 0.75


def case_of(text: str) -> Callable[[str], str]:
    """What gives a text the case that `text` has; a sentence stays as it is.

    Example:
        >>> case_of("NO SMOKlNG")("Prohibido fumar")
        'PROHIBIDO FUMAR'
    """
    letters = [character for character in text if character.isalpha()]
    if not letters:
        return _sentence
    capitals = sum(character.isupper() for character in letters) / len(letters)
    # One letter says nothing of the others.
    if capitals >= _SHARE and len(letters) > 1:
        return str.upper
    if capitals == 0:
        return str.lower
    words = text.split()
    long = [word[0].isupper() for word in words if word[0].isalpha() and len(word) > 3]
    if len(words) > 1 and long and all(long) and any(word[0].isupper() for word in words[1:]):
        return _title
    return _sentence


def _sentence(text: str) -> str:
    return text


def _title(text: str) -> str:
    words = text.split(" ")
    return " ".join(
        word if index and word.lower() in _SMALL else word[:1].upper() + word[1:]
        for index, word in enumerate(words)
    )
