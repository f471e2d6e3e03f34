"""How often phrases that a sign breaks over two lines are taken for one, and lines that have nothing in common are not.

``python -m benchmarks.sign.broken_phrase_quality``: texts alone, two lines under each other, through the operators and
the network of the demo. Each phrase of the book of two words or more, broken once; pairs of phrases; pairs of a
phrase and a sign that is in no phrase.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

import click
import numpy as np

from benchmarks.sign.broken_phrases import line_runs, whole_phrases
from benchmarks.sign.models import BUNDLES, cache_folder, prepare
from benchmarks.sign.translation import bundle_file, translation_chain
from benchmarks.sign.translation.phrase_book import phrase_book
from edge_runtime import Chain
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, say, table

__all__ = ["broken_phrase_quality"]

# A text's translation, how sure it is, and whether it is one.
Translate: TypeAlias = Callable[[str], tuple[str, float, bool]]

_OTHERS = Path(__file__).with_name("translation") / "other_signs.txt"
_QUADS = np.array([[[0, top], [100, top], [100, top + 20], [0, top + 20]] for top in (0, 26)], np.float32)


@click.command()
@click.option("--pairs", default=3000, show_default=True, type=click.IntRange(min=1), help="Of each kind.")
@format_option
def broken_phrase_quality(pairs: int) -> None:
    """Counts the lines that are joined and should be, and those that are and should not."""
    needed = [model for model in BUNDLES if model.file == bundle_file()]
    with translation_chain(prepare(cache_folder(), say=say, models=needed) / bundle_file()) as chain:
        translated = _translator(chain)
        broken = [
            (_is_joined(lines, translated), translated(" ".join(lines))[0].lower() == spanish.lower())
            for lines, spanish in _broken(np.random.default_rng(0))
        ]
        apart = {
            "two_phrases": _share(_pairs(pairs, np.random.default_rng(1), others=False), translated),
            "phrase_and_other_sign": _share(_pairs(pairs, np.random.default_rng(2), others=True), translated),
        }
    result = {
        "broken_phrases": len(broken),
        "joined_and_right": float(np.mean([all(each) for each in broken])),
        "wrongly_joined": apart,
        "pairs": pairs,
    }
    emit(
        result,
        lambda: table(
            [
                ("phrases broken in two", f"{len(broken):,}", f"{result['joined_and_right']:.1%}"),
                ("two phrases", f"{pairs:,}", f"{apart['two_phrases']:.1%}"),
                ("a phrase and another sign", f"{pairs:,}", f"{apart['phrase_and_other_sign']:.1%}"),
            ],
            header=("lines", "of them", "taken for one"),
        ),
    )


def _translator(chain: Chain) -> Translate:
    @cache
    def translated(text: str) -> tuple[str, float, bool]:
        outputs = chain.run({"text": np.array(text)}).outputs
        return str(outputs["translation"]), float(outputs["confidence"]), bool(outputs["translated"])

    return translated


def _is_joined(lines: Sequence[str], translated: Translate) -> bool:
    runs = line_runs(_QUADS, np.array(lines))
    answers = [translated(str(text)) for text in runs["texts"]]
    confidences = np.array([confidence for _, confidence, _ in answers], np.float32)
    done = np.array([done for _, _, done in answers])
    return len(whole_phrases(runs["runs"], runs["texts"], confidences, done)["runs"]) == 1


def _share(pairs: Iterator[Sequence[str]], translated: Translate) -> float:
    return float(np.mean([_is_joined(lines, translated) for lines in pairs]))


def _broken(random: np.random.Generator) -> Iterator[tuple[tuple[str, str], str]]:
    for phrase in phrase_book():
        words = phrase.english.split()
        if len(words) > 1 and not phrase.kinds:
            cut = int(random.integers(1, len(words)))
            yield (" ".join(words[:cut]), " ".join(words[cut:])), phrase.spanish


def _pairs(count: int, random: np.random.Generator, *, others: bool) -> Iterator[tuple[str, str]]:
    phrases = [phrase.english for phrase in phrase_book() if not phrase.kinds]
    signs = [line.strip() for line in _OTHERS.read_text(encoding="utf-8").splitlines()]
    signs = [line for line in signs if line and not line.startswith("#")]
    for _ in range(count):
        first, second = random.choice(phrases, 2, replace=False)
        if others:
            second = signs[random.integers(len(signs))]
        yield (str(first), str(second)) if random.random() < 0.5 else (str(second), str(first))


if __name__ == "__main__":
    run_verb(broken_phrase_quality)
