"""The values that a phrase leaves open, found in a text that was read with mistakes, and put right where they can be.

A phrase's words and the text are aligned with the least cost (Wagner and Fischer, "The String-to-String Correction
Problem", JACM 21, 1974), in which a value takes any characters of its kind for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

from benchmarks.sign.translation.encoding import normalized

__all__ = ["DAYS", "KINDS", "Kind", "exact_pattern", "find_values"]

# What a reader takes digits for.
_DIGITS = str.maketrans("OoDQIli|!ZzSsGBgq", "00001111122556899")
# How signs write what lies between two values, beside a dash.
_BETWEEN = " - "
_RANGE = re.compile(r"(?i)\s+(?:to|till|until)\s+")
_SUFFIX = re.compile(r"(?i)\s*(?:[ap]\.?\s?m\.?|hrs?\.?|h\.?|noon|midnight)$")

DAYS = {
    "monday": "lunes",
    "tuesday": "martes",
    "wednesday": "miércoles",
    "thursday": "jueves",
    "friday": "viernes",
    "saturday": "sábado",
    "sunday": "domingo",
    "mon": "lun",
    "tue": "mar",
    "tues": "mar",
    "wed": "mié",
    "thu": "jue",
    "thur": "jue",
    "thurs": "jue",
    "fri": "vie",
    "sat": "sáb",
    "sun": "dom",
    "mondays": "lunes",
    "tuesdays": "martes",
    "wednesdays": "miércoles",
    "thursdays": "jueves",
    "fridays": "viernes",
    "saturdays": "sábados",
    "sundays": "domingos",
}
"""Days of the week as signs write them, and in Spanish."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value may be.

    Attributes:
        pattern: A value that is right.
        own: Characters that belong to one, in small letters.
        spare: Characters that may, at a small cost: digits misread, a space within.
    """

    pattern: re.Pattern[str]
    own: frozenset[str]
    spare: frozenset[str] = frozenset()

    def cost(self, character: str) -> float:
        """What it costs to have a character in the value."""
        if character in self.own:
            return 0.0
        return 0.3 if character in self.spare else 1.0


_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz")
_FIGURES = frozenset("0123456789.,")
_MISREAD = frozenset("odqil|!zsgbq")

KINDS: Mapping[str, Kind] = {
    "number": Kind(re.compile(r"\d+(?:[.,:]\d+)*"), _FIGURES, _MISREAD),
    "code": Kind(
        re.compile(
            r"(?i)(?:[a-z]{1,2}[-. /]?\d{1,4}[a-z]?|\d{1,4}[-. /]?(?:\d{1,4}|[a-z]{1,2})?|[a-z]{1,2})"
        ),
        _LETTERS | _FIGURES - {","},
        frozenset(" -/"),
    ),
    "time": Kind(
        re.compile(r"(?i)\d{1,2}(?:[:.]?\d\d)?(?:\s?(?:[ap]\.?\s?m\.?|hrs?\.?|h\.?))?"),
        _FIGURES | {":"},
        _MISREAD | frozenset("apmhr "),
    ),
    "price": Kind(
        re.compile(r"[£$€]?\s?\d+(?:[.,]\d{1,2})?\s?(?:[€p]|EUR)?"),
        _FIGURES | frozenset("£$€"),
        _MISREAD | {" "},
    ),
    "day": Kind(re.compile(rf"(?i)(?:{'|'.join(sorted(DAYS, reverse=True))})"), _LETTERS, frozenset("01.")),
    "name": Kind(re.compile(r"\S.{1,30}"), _LETTERS | frozenset(" '-"), frozenset("0123456789.&")),
}


def find_values(literals: tuple[str, ...], kinds: tuple[str, ...], text: str) -> tuple[str, ...] | None:
    """The values of a phrase in a text, put right; None when one is not there or is none of its kind.

    Args:
        literals: What the phrase has before, between and after its values.
        kinds: What its values are.
        text: The text as it was read, with its mistakes.

    Example:
        >>> find_values(("platform ", ""), ("number",), "PLATF0RM l2")
        ('12',)
    """
    single = " ".join(text.split())
    if _BETWEEN in literals:
        single = _RANGE.sub(_BETWEEN, single)
    exact = exact_pattern(literals, kinds).fullmatch(single)
    found = exact.groups() if exact else _aligned(literals, kinds, single)
    if found is None:
        return None
    values = tuple(_repaired(kind, value) for kind, value in zip(kinds, found, strict=True))
    return None if None in values else values  # type: ignore[return-value]


@lru_cache(maxsize=1024)
def exact_pattern(literals: tuple[str, ...], kinds: tuple[str, ...]) -> re.Pattern[str]:
    """What a text is that has a phrase's words without a mistake, and a group for each of its values."""
    parts = [re.escape(literals[0])]
    for kind, literal in zip(kinds, literals[1:], strict=True):
        between = r"\s*-\s*" if literal == _BETWEEN else re.escape(literal)
        parts += [f"({KINDS[kind].pattern.pattern.removeprefix('(?i)')})", between]
    return re.compile("".join(parts), re.IGNORECASE)


def _aligned(literals: tuple[str, ...], kinds: tuple[str, ...], text: str) -> list[str] | None:
    """What the text has at the values, by the cheapest alignment; None when its words are not those of the phrase."""
    steps: list[str | Kind] = list(literals[0])
    for kind, literal in zip(kinds, literals[1:], strict=True):
        steps += [KINDS[kind], *literal]
    cost, moves = _cheapest(steps, [normalized(character) or " " for character in text])
    # With so many of its words' characters wrong it is another text.
    if cost > 0.4 * sum(map(len, literals)) + 0.5 * len(kinds):
        return None
    values: list[str] = []
    step, at, end = len(steps), len(text), 0
    while step or at:
        move = moves[step][at]
        if isinstance(steps[step - 1], Kind) and move in (_TAKE, _MATCH):
            end = end or at
            if move == _MATCH:
                if _within_word(text, at - 1):
                    return None
                values.append(text[at - 1 : end])
                end = 0
        step -= move in (_MATCH, _MISSING)
        at -= move in (_MATCH, _TAKE, _EXTRA)
    return values[::-1]


def _within_word(text: str, at: int) -> bool:
    """Whether letters of a word stand before and at a place: a value does not begin there, unless with a digit."""
    return at > 0 and text[at - 1].isalpha() and text[at].isalpha() and not text[at + 1 : at + 2].isdigit()


# One step back in an alignment: a step meets a character, a value takes one more, a character is too many, or too few.
_MATCH, _TAKE, _EXTRA, _MISSING = range(4)


def _cheapest(steps: list[str | Kind], characters: list[str]) -> tuple[float, list[list[int]]]:
    """The least cost of aligning all of both, and the move by which each cell of the table is reached cheapest."""
    extra = [0.5 if character == " " else 1.0 for character in characters]
    above = [0.0]
    for cost in extra:
        above.append(above[-1] + cost)
    moves = [[_EXTRA] * len(above)]
    for step in steps:
        value = isinstance(step, Kind)
        missing = _LOST if value else 0.5 if step == " " else 1.0
        row, ways = [above[0] + missing], [_MISSING]
        for at, character in enumerate(characters):
            own = step.cost(character) if isinstance(step, Kind) else float(step != character)
            ways_here = [
                (above[at] + own, _MATCH),
                (row[at] + extra[at], _EXTRA),
                (above[at + 1] + missing, _MISSING),
            ]
            if value:
                ways_here.append((row[at] + own, _TAKE))
            cost, move = min(ways_here)
            row.append(cost)
            ways.append(move)
        moves.append(ways)
        above = row
    return above[-1], moves


# A phrase without its value is another phrase.
_LOST = 1e3


def _repaired(kind: str, value: str) -> str | None:
    """A value as it stands on the sign, or None for what cannot be one."""
    value = value.strip(" -,;!?")
    if not value.casefold().endswith("m."):
        value = value.rstrip(".")
    if kind == "day":
        named = get_close_matches(normalized(value).strip("."), DAYS, n=1, cutoff=0.6)
        return named[0] if named else None
    if kind in ("number", "price"):
        value = value.translate(_DIGITS)
    elif kind == "time":
        suffix = _SUFFIX.search(value)
        end = suffix.start() if suffix else len(value)
        value = value[:end].translate(_DIGITS).replace(" ", "") + value[end:]
    elif kind == "code" and any(character.isdigit() for character in value):
        # Codes are in capitals: these small letters are digits that were misread.
        value = value.translate(str.maketrans("lo|", "101"))
    return value if KINDS[kind].pattern.fullmatch(value) else None
