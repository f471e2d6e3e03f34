"""Trains the translator, converts it, and measures it beside looking phrases up."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from benchmarks.sign.translation.apertium_pipeline import Pipeline
from benchmarks.sign.translation.chain import translation_chain
from benchmarks.sign.translation.evaluation import RATES, Row, error_rate, evaluate, held_out_examples
from benchmarks.sign.translation.ocr_readings import ocr_readings
from benchmarks.sign.translation.phrase_book import PhraseBook, phrase_book
from benchmarks.sign.translation.samples import other_signs, sign_text
from benchmarks.sign.translation.training import Examples, translation_bundle
from edge_runtime import Bundle, HybridgeError
from edge_runtime.console import say, table
from edge_runtime.timing import Timing

_CHAIN_RUNS = 2000


def main() -> None:
    """Makes the bundle, or takes one, and prints what it reaches."""
    from convert import hide_native_logs

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench-out/sign"), help="folder of the bundle")
    parser.add_argument("--bundle", type=Path, help="measure this one and train none")
    parser.add_argument(
        "--work", type=Path, default=Path("bench-out/onnx-ocr"), help="folder of the recogniser"
    )
    parser.add_argument("--skip-ocr", action="store_true", help="leave out the texts that a recogniser reads")
    given = parser.parse_args()

    book = phrase_book()
    if given.bundle is None:
        given.out.mkdir(parents=True, exist_ok=True)
        with hide_native_logs():
            trained = translation_bundle(say=say)
        bundle = trained.bundle
        path = bundle.save(given.out, overwrite=True)
        spent = ", ".join(f"{what} {seconds:.0f} s" for what, seconds in trained.seconds.items())
        click.echo(f"{path}: {path.stat().st_size:,} bytes, temperature {trained.temperature:.2f}, {spent}")
    else:
        path, bundle = given.bundle, Bundle.open(given.bundle)
    click.echo(f"{len(book)} phrases; the chain takes {_chain_ms(path, book):.2f} ms a text")
    if (apertium := _apertium(book)) is not None:
        click.echo(f"Apertium gives the book's own words for {apertium:.0%} of the phrases without a value")
    say("measuring with a simulated reader")
    readings = [held_out_examples(book, rate) for rate in RATES]
    click.echo(
        "\n" + _table([f"{rate:.0%}" for rate in RATES], evaluate(bundle, book, readings, other_signs()))
    )
    if not given.skip_ocr:
        say("measuring with PP-OCRv4")
        click.echo("\n" + _read_by_ocr(bundle, book, given.work))


def _read_by_ocr(bundle: Bundle, book: PhraseBook, work: Path) -> str:
    work.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(7)
    written = [sign_text(phrase, random) for phrase in book.phrases]
    read = ocr_readings(written, work)
    signs = ocr_readings(other_signs(), work, seed=1)
    # Texts that it read well, and those that it did not.
    errors = np.array([error_rate([one], [two]) for one, two in zip(written, read, strict=True)])
    everything = np.arange(len(book))
    sets = {
        f"all, {error_rate(written, read):.0%} of characters wrong": everything,
        "no mistake": everything[errors == 0],
        "up to 15%": everything[(errors > 0) & (errors <= 0.15)],
        "15% to 50%": everything[(errors > 0.15) & (errors <= 0.5)],
    }
    readings = [Examples(tuple(read[index] for index in chosen), chosen) for chosen in sets.values()]
    headers = [f"{what} ({len(chosen)})" for what, chosen in sets.items()]
    return _table(headers, evaluate(bundle, book, readings, signs))


def _table(headers: Sequence[str], rows: Sequence[Row]) -> str:
    return table(
        [
            (
                row.name,
                f"{row.threshold:.2f}",
                *(f"{right:.1%} / {wrong:.1%}" for right, wrong in zip(row.right, row.wrong, strict=True)),
                f"{row.false_signs:.1%}",
                f"{row.false_strangers:.1%}",
                f"{row.median_ms:.2f}",
            )
            for row in rows
        ],
        header=("right / wrong", "threshold", *headers, "other signs", "made-up texts", "ms"),
    )


def _chain_ms(path: Path, book: PhraseBook) -> float:
    import time

    random = np.random.default_rng(5)
    texts = [np.array(sign_text(phrase, random)) for phrase in book.phrases]
    chain = translation_chain(path)
    seconds = []
    for index in range(_CHAIN_RUNS):
        start = time.perf_counter()
        chain.run({"text": texts[index % len(texts)]})
        seconds.append(time.perf_counter() - start)
    return Timing.from_seconds(np.array(seconds)).median_ms


def _apertium(book: PhraseBook) -> float | None:
    """Share of phrases that Apertium translates as the book does; None where it is not installed."""
    phrases = [phrase for phrase in book.phrases if not phrase.kinds]
    try:
        with Pipeline("eng-spa") as pipeline:
            made = [pipeline.translate(phrase.english, timeout_s=10)[0] for phrase in phrases]
    except HybridgeError as error:
        say(error.message)
        return None
    same = [one.casefold() == phrase.spanish.casefold() for one, phrase in zip(made, phrases, strict=True)]
    return sum(same) / len(same)


if __name__ == "__main__":
    main()
