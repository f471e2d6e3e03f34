"""What the signs say that the demo and the benchmark draw: the phrase book's phrases with values filled in."""

from __future__ import annotations

import numpy as np

from benchmarks.sign.translation.phrase_book import phrase_book
from benchmarks.sign.translation.samples import sign_text

__all__ = ["sign_texts"]

# A longer one would be set in several lines.
_LONGEST = 30


def sign_texts(seed: int = 0) -> list[str]:
    """A text for each phrase that fits a line of a sign, the same for the same seed."""
    random = np.random.default_rng(seed)
    texts = [sign_text(phrase, random) for phrase in phrase_book().phrases]
    return [text for text in texts if len(text) <= _LONGEST]
