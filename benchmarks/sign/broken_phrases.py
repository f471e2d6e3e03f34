"""Phrases that a sign breaks over two or three lines: found, translated as one text, and set in these lines again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from edge_runtime import operator
from edge_runtime.tensor_spec import Array

__all__ = ["line_runs", "spread_translations", "whole_phrases"]

_MOST_LINES = 3
# Lines of one phrase are about as high as each other,
_MOST_HIGHER = 1.9
# point the same way, the cosine of 12 degrees,
_LEAST_ALIKE = 0.98
# lie one under the other with less between them than this share of their height,
_LARGEST_GAP = 1.0
# and next to each other for this share of the shorter one.
_LEAST_SHARED = 0.5
# So sure the network is only of what the book says to the letter, or nearly.
_BEYOND_DOUBT = 0.99


@operator(
    "sign-line-runs",
    takes={"quads": "float32[n, 4, 2]", "texts": "text[n]"},
    gives={"runs": "int64[m, 3]", "texts": "text[m]"},
)
def line_runs(quads: Array, texts: Array) -> dict[str, Array]:
    """Every line, and every two or three lines that may be one phrase, since each is right under the one before.

    Args:
        quads: Corners of each line, clockwise from the top left of its text.
        texts: What each says.

    Returns:
        `runs`, numbers of lines from the top, filled up with -1; and what each says as one text.
    """
    under = _lines_under(quads)
    runs = [[index] for index in range(len(quads))]
    for run in runs:
        # Longer ones are put behind, and looked at in their turn.
        below = under[run[-1]]
        if below is not None and len(run) < _MOST_LINES:
            runs.append([*run, below])
    return {
        "runs": np.array([run + [-1] * (_MOST_LINES - len(run)) for run in runs], np.int64).reshape(-1, 3),
        "texts": np.array([" ".join(str(texts[index]) for index in run) for run in runs], np.str_),
    }


@operator(
    "sign-whole-phrases",
    takes={"runs": "int64[m, 3]", "texts": "text[m]", "confidences": "float32[m]", "translated": "bool[m]"},
    gives={"runs": "int64[phrases, 3]", "texts": "text[phrases]"},
)
def whole_phrases(runs: Array, texts: Array, confidences: Array, translated: Array) -> dict[str, Array]:
    """The runs that are phrases: each line is in one.

    Lines belong together when together they are a phrase, and either one of them alone is none or there is no doubt
    of it: *Emergency* and *exit* are phrases, too. Of runs with a line in common the longer counts, then the surer.

    Args:
        runs: As `sign-line-runs` gives them.
        texts: What each says.
        confidences: How sure its translation is.
        translated: Whether it has one.
    """
    lines = [[line for line in run if line >= 0] for run in runs.tolist()]
    alone = {line[0]: bool(done) for line, done in zip(lines, translated, strict=True) if len(line) == 1}
    whole = [
        number
        for number, run in enumerate(lines)
        if len(run) > 1
        and translated[number]
        and (confidences[number] >= _BEYOND_DOUBT or not all(alone[line] for line in run))
    ]
    whole.sort(key=lambda number: (-len(lines[number]), -confidences[number]))
    taken: set[int] = set()
    chosen = []
    for number in [*whole, *(number for number, run in enumerate(lines) if len(run) == 1)]:
        if taken.isdisjoint(lines[number]):
            taken.update(lines[number])
            chosen.append(number)
    chosen.sort(key=lambda number: lines[number][0])
    return {"runs": runs[chosen], "texts": texts[chosen]}


@operator(
    "sign-spread",
    takes={
        "texts": "text[n]",
        "runs": "int64[phrases, 3]",
        "translations": "text[phrases]",
        "confidences": "float32[phrases]",
        "translated": "bool[phrases]",
        "translators": "text[phrases]",
    },
    gives={
        "translations": "text[n]",
        "confidences": "float32[n]",
        "translated": "bool[n]",
        "translators": "text[n]",
    },
)
def spread_translations(
    texts: Array,
    runs: Array,
    translations: Array,
    confidences: Array,
    translated: Array,
    translators: Array,
) -> dict[str, Array]:
    """For each line its part of the translation of the phrase that it is in.

    Words are shared out so that the fullest line, beside what it said, is as little full as can be; a phrase that has
    fewer words than lines leaves the last ones empty.

    Args:
        texts: What each line says.
        runs: The lines of each phrase, each line in one.
        translations: Of each phrase.
        confidences: How sure each is.
        translated: Whether each is one.
        translators: Who made each.
    """
    owner = np.zeros(len(texts), np.int64)
    parts = [""] * len(texts)
    for number, run in enumerate(runs.tolist()):
        lines = [line for line in run if line >= 0]
        owner[lines] = number
        said = [str(texts[line]) for line in lines]
        shares = _shared_out(str(translations[number]), said) if translated[number] else said
        for line, share in zip(lines, shares, strict=True):
            parts[line] = share
    return {
        "translations": np.array(parts, np.str_),
        "confidences": confidences[owner],
        "translated": translated[owner],
        "translators": translators[owner],
    }


def _shared_out(translation: str, lines: Sequence[str]) -> list[str]:
    if len(lines) == 1:
        return [translation]
    words = translation.split()
    count = min(len(lines), len(words))

    def split(cuts: Sequence[int]) -> list[str]:
        ends = zip((0, *cuts), (*cuts, len(words)), strict=True)
        return [" ".join(words[start:end]) for start, end in ends]

    def fullest(parts: Sequence[str]) -> float:
        return max(len(part) / max(len(line), 1) for part, line in zip(parts, lines, strict=False))

    shares = min((split(cuts) for cuts in combinations(range(1, len(words)), max(count - 1, 0))), key=fullest)
    return shares + [""] * (len(lines) - len(shares))


def _lines_under(quads: Array) -> list[int | None]:
    """For each line the nearest that could go on with what it says."""
    corners = quads.astype(np.float64)
    across = (corners[:, 1] - corners[:, 0] + corners[:, 2] - corners[:, 3]) / 2
    with np.errstate(invalid="ignore"):
        widths = np.linalg.norm(across, axis=1)
        heights = np.linalg.norm(corners[:, 3] - corners[:, 0] + corners[:, 2] - corners[:, 1], axis=1) / 2
    # What has no size, or none that is a number, is no line.
    sound = np.minimum(widths, heights) >= 1
    across /= np.where(sound, widths, 1)[:, np.newaxis]
    under: list[int | None] = []
    for index, quad in enumerate(corners):
        if not sound[index]:
            under.append(None)
            continue
        height, width = heights[index], widths[index]
        down = np.array([-across[index, 1], across[index, 0]])
        # Along this line and away from it, from the middle of its lower side.
        places = corners - (quad[2] + quad[3]) / 2
        along, away = places @ across[index], places @ down
        shared = np.minimum(along.max(axis=1), width / 2) - np.maximum(along.min(axis=1), -width / 2)
        gaps = away[:, :2].mean(axis=1) / np.maximum(heights, height)
        fits = (
            sound
            & (across @ across[index] >= _LEAST_ALIKE)
            & (np.maximum(heights, height) <= _MOST_HIGHER * np.minimum(heights, height))
            & (shared >= _LEAST_SHARED * np.minimum(widths, width))
            & (gaps > -0.5)
            & (gaps < _LARGEST_GAP)
        )
        # Its own upper side lies a whole height above its lower one.
        nearest = int(np.where(fits, gaps, np.inf).argmin())
        under.append(nearest if fits[nearest] else None)
    return under
