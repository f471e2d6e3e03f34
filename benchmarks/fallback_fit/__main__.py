"""Whether fitted thresholds keep their promise, and what they save, over random splits of Fashion-MNIST.

``HYBRIDGE_DATA=... python -m benchmarks.fallback_fit`` trains two device models (converted to int8 and run by the
device runtime) and a cloud model on 40,000 images. Of the 30,000 that none was trained on, it draws validation images
a hundred times, chooses thresholds on them, and measures these on all the others. Training takes about ten minutes on
two cores and is kept in the work folder; the splits take about two minutes. It exits with 1 where a bar is missed.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.fallback_fit.models import DEVICE, HeldOut, make_held_out
from benchmarks.fallback_fit.splits import CONFIDENCE, Outcome, breaks_promise, draw_fit, run_split
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, say, table
from edge_runtime.files import write_file

__all__ = ["fallback_fit"]

_ARRANGEMENTS = (("tiny",), DEVICE, ("middle",))
_ONE, _TWO = "fit tiny", f"fit {'+'.join(DEVICE)}"
# The bars are for the first target; the others are shown beside it.
_TARGETS = (0.90, 0.88, 0.91)
_DRAWS = 500


@click.command()
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default="bench-out/fallback_fit",
    show_default=True,
    help="Folder for the models and their answers.",
)
@click.option("--splits", type=click.IntRange(min=1), default=100, show_default=True, help="Random splits.")
@click.option(
    "--validation", type=click.IntRange(min=2), default=3000, show_default=True, help="Images to choose on."
)
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Draw the first split's curve of one tier: a .png."
)
@format_option
def fallback_fit(work: Path, splits: int, validation: int, plot: Path | None) -> None:
    """Fits thresholds on random splits and measures them on the images that were not seen."""
    held_out = make_held_out(work)
    if plot is not None:
        picture = draw_fit(held_out, validation=validation, target=_TARGETS[0], names=_ARRANGEMENTS[0])
        write_file(plot, picture, overwrite=True)
    results = {}
    for target in _TARGETS:
        say(f"target {target:.0%}: {splits} splits of {validation:,} validation images")
        runs = [
            run_split(held_out, seed, validation=validation, target=target, arrangements=_ARRANGEMENTS)
            for seed in range(splits)
        ]
        results[target] = {name: _summary([run[name] for run in runs], target) for name in runs[0]}
    say(f"the same from a known population: {_DRAWS} draws")
    broken = {
        "+".join(names): sum(
            breaks_promise(held_out, seed, validation=validation, target=_TARGETS[0], names=names)
            for seed in range(_DRAWS)
        )
        / _DRAWS
        for names in _ARRANGEMENTS[:2]
    }
    bars = _bars(results[_TARGETS[0]], splits)
    accuracy = {name: held_out.accuracy(name) for name in (*DEVICE, "cloud")}
    emit(
        {
            "images": len(held_out.labels),
            "validation": validation,
            "splits": splits,
            "confidence": CONFIDENCE,
            "accuracy_alone": accuracy,
            "targets": {f"{target:g}": found for target, found in results.items()},
            "broken_of_known_population": broken,
            "bars": bars,
        },
        lambda: _text(held_out, results, broken, bars, splits),
    )
    if not all(bar["reached"] for bar in bars.values()):
        sys.exit(1)


def _summary(outcomes: list[Outcome | None], target: float) -> dict[str, Any]:
    """Counts and means over the splits; those without a promise count as not held and are in no mean."""
    found = [each for each in outcomes if each is not None]
    columns = {
        name: np.array([asdict(each)[name] for each in found]) for name in Outcome.__dataclass_fields__
    }
    if not found:
        return {"held": 0, "refused": len(outcomes)}
    slack = columns["accuracy"] - target
    return {
        "held": int((slack >= 0).sum()),
        "refused": len(outcomes) - len(found),
        "slack": float(slack.mean()),
        "worst_slack": float(slack.min()),
        "accuracy": float(columns["accuracy"].mean()),
        "offloaded": float(columns["offloaded"].mean()),
        "needed": float(columns["needed"].mean()),
        "needed_by_hand": float(columns["by_hand"].mean()),
        "answered": columns["answered"].mean(axis=0).tolist(),
    }


def _bars(found: dict[str, dict[str, Any]], splits: int) -> dict[str, dict[str, Any]]:
    one, two = found[_ONE], found[_TWO]
    # At the accuracy that each split reached, whichever threshold reaches it.
    share = one["needed"] / one["needed_by_hand"]
    both = two["needed"] / two["needed_by_hand"] / share
    least = 0.93 * splits
    return {
        "one tier holds its target": _bar(one["held"], least, reached=one["held"] >= least),
        "two tiers hold their target": _bar(two["held"], least, reached=two["held"] >= least),
        "offloaded, of max softmax by hand": _bar(share, 1.0, reached=round(share, 2) <= 1.0),
        "offloaded by two tiers, of one": _bar(both, 0.8, reached=both <= 0.8),
    }


def _bar(value: float, limit: float, *, reached: bool) -> dict[str, Any]:
    return {"value": value, "limit": limit, "reached": reached}


def _text(
    held_out: HeldOut,
    results: dict[float, dict[str, dict[str, Any]]],
    broken: dict[str, float],
    bars: dict[str, dict[str, Any]],
    splits: int,
) -> str:
    alone = ", ".join(f"{name} {held_out.accuracy(name):.2%}" for name in (*DEVICE, "cloud"))
    rows = [
        _row(f"{target:.0%}  {name}", summary)
        for target, found in results.items()
        for name, summary in found.items()
    ]
    header = (
        "target",
        f"held of {splits}",
        "refused",
        "slack",
        "worst",
        "accuracy",
        "offloaded",
        "same: own",
        "by hand",
    )
    lines = [
        f"{'reached' if bar['reached'] else 'MISSED '}  {name}: {bar['value']:.4g} (bar {bar['limit']:g})"
        for name, bar in bars.items()
    ]
    known = ", ".join(f"{name} {share:.1%}" for name, share in broken.items())
    promise = f"promises of {_TARGETS[0]:.0%} broken, of {_DRAWS} draws from a known population: {known}"
    return f"right alone: {alone}\n\n{table(rows, header=header)}\n\n{promise}\n\n" + "\n".join(lines)


def _row(name: str, summary: dict[str, Any]) -> tuple[str, ...]:
    if "slack" not in summary:
        return (name, "0", str(summary["refused"]), *[""] * 6)
    return (
        name,
        str(summary["held"]),
        str(summary["refused"]),
        f"{summary['slack'] * 100:+.2f}",
        f"{summary['worst_slack'] * 100:+.2f}",
        f"{summary['accuracy']:.2%}",
        f"{summary['offloaded']:.2%}",
        f"{summary['needed']:.2%}",
        f"{summary['needed_by_hand']:.2%}",
    )


if __name__ == "__main__":
    run_verb(fallback_fit)
