"""How much of what stands on signs a reader reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_runtime.tensor_spec import Array

__all__ = ["ReadLine", "Score", "edit_distance", "score_scene"]


@dataclass(frozen=True, slots=True)
class ReadLine:
    """A line that a reader found: its corners, float32 of shape (4, 2), and its text."""

    quad: Array
    text: str


@dataclass(frozen=True, slots=True)
class Score:
    """Characters of a scene that had to be read, and how many edits away what was read is.

    Lines that are there and were not found cost all their characters, those found where none is cost theirs. A line is
    whole when not even a space is wrong.
    """

    characters: int
    edits: int
    lines: int
    whole_lines: int

    def __add__(self, other: Score) -> Score:
        return Score(
            self.characters + other.characters,
            self.edits + other.edits,
            self.lines + other.lines,
            self.whole_lines + other.whole_lines,
        )

    @property
    def accuracy(self) -> float:
        """Share of characters that are right, 0 at least."""
        return max(0.0, 1.0 - self.edits / max(self.characters, 1))


def score_scene(truth: Sequence[ReadLine], read: Sequence[ReadLine], *, spaces: bool = True) -> Score:
    """Holds what was read against what is there, as the character error rate counts it.

    A line that was read belongs to the true line that its middle lies nearest to, if it lies within that line or no
    further from its middle than half its width; several that belong to one, such as its words, are joined from left to
    right.

    Args:
        truth: What is there.
        read: What was read.
        spaces: Whether spaces between words are characters, or are left out on both sides.
    """
    letters = _spaced if spaces else _letters
    belonging: list[list[ReadLine]] = [[] for _ in truth]
    stray = 0
    for line in read:
        owner = _owner(truth, line)
        if owner is None:
            stray += len(letters(line.text))
        else:
            belonging[owner].append(line)
    edits = whole = characters = 0
    for true, parts in zip(truth, belonging, strict=True):
        along = true.quad[1] - true.quad[0]
        ordered = sorted(parts, key=lambda part: float(part.quad.mean(0) @ along))
        wanted = letters(true.text)
        distance = edit_distance(wanted, letters(" ".join(part.text for part in ordered)))
        characters += len(wanted)
        edits += distance
        whole += distance == 0
    return Score(characters, edits + stray, len(truth), whole)


def edit_distance(wanted: str, received: str) -> int:
    """Levenshtein's distance."""
    before = np.arange(len(received) + 1)
    letters = np.array(list(received), dtype=np.str_)
    for number, letter in enumerate(wanted, 1):
        changed = np.minimum(before[1:] + 1, before[:-1] + (letters != letter))
        # What insertions allow: the least of what stands before, one more for each step.
        steps = np.arange(len(received) + 1)
        now = np.concatenate([[number], changed])
        before = np.minimum.accumulate(now - steps) + steps
    return int(before[-1])


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _letters(text: str) -> str:
    return "".join(text.split())


def _owner(truth: Sequence[ReadLine], line: ReadLine) -> int | None:
    middle = line.quad.mean(0)
    best, nearest = None, np.inf
    for index, true in enumerate(truth):
        across, down = true.quad[1] - true.quad[0], true.quad[3] - true.quad[0]
        offset = middle - true.quad.mean(0)
        # In units of the line's own half width and height.
        sides = np.linalg.solve(np.stack([across, down], 1) / 2, offset)
        distance = float(np.abs(sides).max())
        if distance < min(nearest, 1.0):
            best, nearest = index, distance
    return best
