"""The mistakes that readers of signs make, made on purpose.

Each character of a text is misread with one probability, its character error rate: taken for one or two that look
like it, taken for any other, left out, doubled, or preceded by one that is not there; spaces are lost and found, ends
cut off.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["HELD_OUT", "TRAINED", "Mistakes", "misread"]


@dataclass(frozen=True, slots=True)
class Mistakes:
    """How one reader errs: how its mistakes divide, and what it takes characters for.

    Attributes:
        alike: What a character, or two, may be taken for.
        as_alike: Share of mistakes that are of that sort, where a character has any.
        as_other: Of the rest, the share where it is taken for any letter or digit.
        lost: Where it is left out.
        doubled: Where it is read twice; what remains is a character too many.
        cut: Probability, for each unit of the error rate, that an end is cut off.
    """

    alike: Mapping[str, tuple[str, ...]]
    as_alike: float
    as_other: float
    lost: float
    doubled: float
    cut: float


_COMMON = {
    "0": ("O", "o", "D"), "O": ("0", "Q", "D"), "o": ("0", "c", "a"), "D": ("0", "O"), "Q": ("O",),
    "1": ("l", "I", "i"), "l": ("1", "I", "i"), "I": ("1", "l", "|"), "i": ("1", "l", "j"), "J": ("I",),
    "5": ("S", "s"), "S": ("5",), "s": ("5", "z"), "8": ("B",), "B": ("8", "3"), "2": ("Z",), "Z": ("2",),
    "z": ("2",), "6": ("G", "b"), "G": ("6", "C"), "9": ("g", "q"), "g": ("9", "q"), "q": ("9", "g"),
    "rn": ("m",), "m": ("rn",), "cl": ("d",), "d": ("cl",), "vv": ("w",), "w": ("vv",), "W": ("VV",),
    "e": ("c",), "c": ("e",), "C": ("G",), "E": ("F",), "F": ("P",), "T": ("7",), "7": ("T",), "a": ("o",),
    "h": ("b",), "u": ("v",), "v": ("u",), "U": ("V",), "V": ("U",), "t": ("f",), "f": ("t",), "A": ("4",),
    "4": ("A",), "-": (" ", "."), ".": (",", ""), ",": (".",), ":": (".",), "'": ("",), "%": ("96",),
}  # fmt: skip

TRAINED = Mistakes(_COMMON, as_alike=0.5, as_other=0.4, lost=0.3, doubled=0.1, cut=0.5)
"""The reader that the network is trained with."""

# Other confusions, and in other shares; some are the same, as readers' are.
HELD_OUT = Mistakes(
    {
        "0": ("O", "U"), "O": ("0", "C", "G"), "o": ("e", "6", "u"), "1": ("l", "7", "!"),
        "l": ("1", "t", "|"), "I": ("l", "1", "T"), "i": ("l", "t", ":"), "5": ("S", "6"), "S": ("5", "8"),
        "s": ("5", "a"), "8": ("B", "S"), "B": ("8", "R", "E"), "rn": ("m",), "m": ("rn", "nn"),
        "nn": ("m",), "n": ("r", "h"), "h": ("n",), "R": ("P", "B"), "P": ("R", "F"), "E": ("B", "L", "F"),
        "N": ("H", "M"), "H": ("N", "M"), "M": ("N", "H"), "K": ("X", "H"), "X": ("K",), "Y": ("V",),
        "y": ("v", "g"), "g": ("y", "a"), "r": ("t", "f"), "t": ("r", "l"), "c": ("o", "("),
        "C": ("(", "O"), "L": ("I", "E"), "T": ("I", "Y"), "A": ("R", "H"), "a": ("s", "e"),
        "e": ("o", "a"), "W": ("N",), "w": ("u", "v"), "d": ("o", "a"), "b": ("h", "6"), "p": ("o", "n"),
        "f": ("r",), "u": ("o", "n"), "k": ("l<", "x"), "3": ("8", "B"), "6": ("8",), "9": ("8", "0"),
        "7": ("1", "?"), "-": ("~", "_", ""), ":": (";", ""), ".": ("", "-"),
    },
    as_alike=0.65, as_other=0.25, lost=0.45, doubled=0.05, cut=0.3,
)  # fmt: skip
"""A reader that training has not seen: to measure with."""

_ANY = string.ascii_letters + string.digits
# A space is lost or found more often than another character is misread.
_SPACES = 1.5


def misread(text: str, rate: float, mistakes: Mistakes, random: np.random.Generator) -> str:
    """The text as a reader with that character error rate may give it.

    Args:
        text: What the sign says.
        rate: Probability that a character is misread, in 0..1.
        mistakes: What happens then.
        random: Where chance comes from.
    """
    read: list[str] = []
    at = 0
    chances = random.random((len(text) + 1, 4))
    while at < len(text):
        chance, kind, which, found = chances[at]
        pair, single = text[at : at + 2], text[at]
        at += 1
        if chance >= rate * (_SPACES if single == " " else 1.0):
            # Between letters, a space that is not there is seen now and then.
            read.append(f" {single}" if found < rate * 0.1 else single)
            continue
        if single == " ":
            continue
        alike = mistakes.alike.get(pair)
        if alike and len(pair) == 2 and kind < mistakes.as_alike:
            at += 1
        else:
            alike = mistakes.alike.get(single)
        if alike and kind < mistakes.as_alike:
            read.append(alike[int(which * len(alike))])
            continue
        sort = random.random()
        other = _ANY[int(which * len(_ANY))]
        if sort < mistakes.as_other:
            read.append(other)
        elif sort < mistakes.as_other + mistakes.lost:
            continue
        elif sort < mistakes.as_other + mistakes.lost + mistakes.doubled:
            read.append(single * 2)
        else:
            read.append(other + single)
    made = "".join(read)
    if len(made) > 5:
        first, last = random.random(2) < mistakes.cut * rate
        made = made[int(first) * int(random.integers(1, 3)) :]
        made = made[: len(made) - int(last) * int(random.integers(1, 3))]
    return made
