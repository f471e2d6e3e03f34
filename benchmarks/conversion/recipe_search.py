"""The search on one real model: how long it takes, and whether it beats choosing a plain recipe by hand.

``HYBRIDGE_DATA=... python -m benchmarks.conversion.recipe_search`` searches the Fashion-MNIST network for the smallest
model that loses at most a given share, from an empty cache, and compares it with the smallest of plain litert-quantizer
recipes that loses no more.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from benchmarks.conversion.fashion import make_fashion
from benchmarks.conversion.runs import Run, hybridge
from convert.recipes import Precision
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, say, table

__all__ = ["recipe_search"]


@click.command()
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default="bench-out/fashion",
    show_default=True,
    help="Folder for the model, its data and what is found.",
)
@click.option(
    "--max-drop",
    type=float,
    multiple=True,
    default=(0.002, 0.005, 0.01),
    show_default=True,
    help="Accuracy that may be lost; may be repeated.",
)
@format_option
def recipe_search(work: Path, max_drop: tuple[float, ...]) -> None:  # fmt: skip
    """Searches for the smallest model within a loss, and compares it with plain recipes."""
    fashion = make_fashion(work)
    found: dict[str, Run] = {}
    for limit in max_drop:
        say(f"searching within a drop of {limit}")
        cache = work / f"cache-{limit}"
        shutil.rmtree(cache, ignore_errors=True)
        found[str(limit)] = hybridge(
            "convert", fashion.model, "--search", "--max-drop", limit, "--representative", fashion.calibration,
            "--eval", fashion.test, "--train", fashion.train, "--cache", cache, "--overwrite",
            "-o", work / f"search-{limit}.edge", "--report", work / f"search-{limit}.html",
        )  # fmt: skip
    results = {limit: _compared(run, float(limit)) for limit, run in found.items()}
    emit(
        {"searches": results},
        lambda: table([_row(limit, each) for limit, each in results.items()], header=_HEADER),
    )


def _compared(run: Run, max_drop: float) -> Run:
    if run["exit_code"]:
        raise click.ClickException(run["error"]["message"])
    trials = run["search"]["trials"]
    plain = [
        trial
        for trial in trials
        if trial["name"] in set(Precision) and trial["drop"] is not None and trial["drop"] <= max_drop
    ]
    best = min(plain, key=lambda trial: trial["size_bytes"])
    return {
        "seconds": run["seconds"],
        "trials": len(trials),
        "chosen": run["search"]["chosen"],
        "size_bytes": run["size_bytes"],
        "deflated_size_bytes": run["deflated_size_bytes"],
        "drop": run["drop"],
        "plain": best["name"],
        "plain_size_bytes": best["size_bytes"],
        "plain_drop": best["drop"],
        "in_time": run["seconds"] <= 600,
        "no_larger": run["size_bytes"] <= best["size_bytes"],
    }


_HEADER = ("drop at most", "found", "bytes", "drop", "best plain recipe", "its bytes", "trials", "seconds")


def _row(limit: str, each: Run) -> tuple[str, ...]:
    return (
        limit,
        each["chosen"],
        f"{each['size_bytes']:,}",
        f"{each['drop']:+.4f}",
        each["plain"],
        f"{each['plain_size_bytes']:,}",
        str(each["trials"]),
        f"{each['seconds']:.0f}",
    )


if __name__ == "__main__":
    run_verb(recipe_search)
