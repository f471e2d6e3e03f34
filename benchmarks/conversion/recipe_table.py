"""Every recipe on one real model: what it keeps, what it saves, and how fast the result runs.

``HYBRIDGE_DATA=... python -m benchmarks.conversion.recipe_table`` trains a network on Fashion-MNIST, runs
``hybridge convert`` once for each recipe, each in a process of its own, measures the bundles' latency in turn, and
writes the table in ``docs/recipes.md``. About 20 minutes on two cores; finished recipes are kept in the work folder.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from benchmarks.conversion.fashion import Fashion, make_fashion
from benchmarks.conversion.runs import Run, hybridge
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, say, table
from edge_runtime.latency import machine_name, rank_latency

__all__ = ["recipe_table"]

_RECIPES = (
    "float32", "float16", "weight-only-int8", "dynamic-int8", "int8", "int16x8", "int4", "int4-block32",
    "prune", "prune+int8", "prune+weight-only-int8", "prune-2of4", "prune-2of4+int8", "cluster", "cluster+int8",
    "qat", "qat+int4", "prune+qat", "cluster+qat", "prune+cluster+qat",
)  # fmt: skip

# What each must reach: most accuracy lost, and most bytes as a share of the plain recipe beside it.
_BARS = {
    "int8": {"drop": 0.003},
    "int4": {"drop": 0.005},
    "prune": {"drop": 0.005, "size of float32": 0.45},
    "prune+int8": {"drop": 0.005, "deflated of int8": 0.5},
    "prune+cluster+qat": {"drop": 0.010, "deflated of int8": 0.4},
}


@click.command()
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default="bench-out/fashion",
    show_default=True,
    help="Folder for the model, its data and the bundles.",
)
@click.option(
    "--docs",
    type=click.Path(path_type=Path),
    default="docs/recipes.md",
    show_default=True,
    help="Page to write.",
)
@click.option("--recipe", multiple=True, help="Only these; the page is then not written.")
@format_option
def recipe_table(work: Path, docs: Path, recipe: tuple[str, ...]) -> None:  # fmt: skip
    """Converts one model with every recipe."""
    fashion = make_fashion(work)
    runs = {name: _converted(fashion, name) for name in recipe or _RECIPES}
    bundles = {name: fashion.folder / f"{name}.edge" for name, run in runs.items() if run["exit_code"] == 0}
    say("measuring latency, all bundles in turn")
    latency = rank_latency(list(bundles.values()))
    for name, bundle in bundles.items():
        runs[name]["latency_ms"] = latency[bundle]
    bars = _bars(runs)
    if not recipe:
        docs.write_text(_page(runs, bars))
        say(f"written: {docs}")
    emit(
        {"machine": machine_name(), "recipes": runs, "bars": bars},
        lambda: f"{table(_rows(runs), header=_HEADER)}\n\n{_bar_lines(bars)}",
    )


def _converted(fashion: Fashion, recipe: str) -> Run:
    kept = fashion.folder / f"{recipe}.json"
    if kept.exists():
        finished: Run = json.loads(kept.read_text())
        return finished
    say(f"converting with {recipe}")
    run = hybridge(
        "convert", fashion.model, "--recipe", recipe, "--representative", fashion.calibration,
        "--eval", fashion.test, "--train", fashion.train, "--labels", fashion.labels,
        "-o", fashion.folder / f"{recipe}.edge", "--report", fashion.folder / f"{recipe}.html", "--overwrite",
    )  # fmt: skip
    kept.write_text(json.dumps(run, indent=1))
    return run


def _bars(runs: dict[str, Run]) -> dict[str, dict[str, float | bool]]:
    found: dict[str, dict[str, float | bool]] = {}
    for recipe, limits in _BARS.items():
        run = runs.get(recipe)
        if run is None or run["exit_code"] != 0:
            continue
        for what, limit in limits.items():
            kind, _, other = what.partition(" of ")
            if kind == "drop":
                value = run["drop"]
            elif other in runs:
                key = {"size": "size_bytes", "deflated": "deflated_size_bytes"}[kind]
                value = run[key] / runs[other][key]
            else:
                continue
            found[f"{recipe}: {what}"] = {"limit": limit, "value": value, "reached": value < limit}
    return found


_HEADER = (
    "recipe", "accuracy", "drop, points", "bytes", "of float32", "over the air", "of int8 over the air", "ms",
    "convert s",
)  # fmt: skip


def _rows(runs: dict[str, Run]) -> list[tuple[str, ...]]:
    return [_row(name, run, runs) for name, run in runs.items()]


def _row(name: str, run: Run, runs: dict[str, Run]) -> tuple[str, ...]:
    if run["exit_code"] != 0:
        return (name, str(run["error"].get("code", "failed")), *[""] * 7)
    plain, small = runs.get("float32"), runs.get("int8")
    return (
        name,
        f"{run['accuracy']['converted']:.2%}",
        f"{run['drop'] * 100:+.2f}",
        f"{run['size_bytes']:,}",
        f"{run['size_bytes'] / plain['size_bytes']:.2f}" if plain else "",
        f"{run['deflated_size_bytes']:,}",
        f"{run['deflated_size_bytes'] / small['deflated_size_bytes']:.2f}" if small else "",
        f"{run['latency_ms']:.3f}",
        f"{run['seconds']:.0f}",
    )


def _bar_lines(bars: dict[str, dict[str, float | bool]]) -> str:
    return "\n".join(
        f"{'reached' if bar['reached'] else 'MISSED '}  {name} = {bar['value']:.4f}, under {bar['limit']}"
        for name, bar in bars.items()
    )


def _page(runs: dict[str, Run], bars: dict[str, dict[str, float | bool]]) -> str:
    source = next(run for run in runs.values() if run["exit_code"] == 0)

    def line(cells: tuple[str, ...]) -> str:
        return f"| {' | '.join(cells)} |"

    lines = [
        "# Every recipe on one model",
        "",
        "A convolutional network on Fashion-MNIST (two convolutions with batch normalisation, two dense layers; "
        f"{source['source_size_bytes']:,} bytes of weights, {source['accuracy']['source']:.2%} of 10,000 test images),",
        "converted by `hybridge convert` with 500 calibration images and, where the recipe trains, the 60,000 training",
        "images. `bytes` is the `.tflite` on disk, `over the air` the same deflated; `ms` is the median of a run on",
        f"one thread of {machine_name()}, all bundles measured in turn; `convert s` is the whole command.",
        "",
        "Written by `python -m benchmarks.conversion.recipe_table`.",
        "",
        line(_HEADER),
        line(("---",) * len(_HEADER)),
        *map(line, _rows(runs)),
        "",
        "What it must reach:",
        "",
        "| | under | measured |",
        "|---|---|---|",
        *[f"| {name} | {bar['limit']} | {bar['value']:.4f} |" for name, bar in bars.items()],
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_verb(recipe_table)
