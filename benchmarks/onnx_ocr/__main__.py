"""PP-OCR's ONNX models as published: conversion, agreement and latency beside onnxruntime, as one table.

    python -m benchmarks.onnx_ocr

The models come from the packages that ship them, lines and pages of text are drawn. Latencies are medians of runs of
both in turn, one thread each, in one process; a ratio below one means that the converted model is faster.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
import numpy as np

from benchmarks.onnx_ocr.measuring import Row, measured
from benchmarks.onnx_ocr.models import MODELS, fetch
from edge_runtime.console import say

_ROOT = Path(__file__).parents[2]
_RECIPES = (
    ("float32", None),
    ("float16", None),
    ("weight-only-int8", None),
    ("dynamic-int8", None),
    ("dynamic-int8", "gptq"),
    ("int8", None),
)


def main() -> None:
    """Converts and measures each model with each recipe."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onnx_ocr", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("bench-out/onnx-ocr"), help="folder of the models")
    parser.add_argument("--docs", type=Path, default=_ROOT / "docs", help="folder of the table")
    parser.add_argument("--only", default="", help="part of a model's name")
    given = parser.parse_args()

    given.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for model in MODELS:
        if given.only not in model.name:
            continue
        path = fetch(model, given.work)
        for recipe, method in _RECIPES:
            start = time.perf_counter()
            rows.append(measured(model, path, recipe, method))
            say(f"{model.name}, {rows[-1].recipe}: {time.perf_counter() - start:.0f} s")
    page = _page(rows)
    if not given.only:
        (given.docs / "onnx-ocr.md").write_text(page)
        content = msgspec.json.encode([msgspec.to_builtins(row) for row in rows])
        (given.work / "results.json").write_bytes(msgspec.json.format(content, indent=1))
    click.echo(page)


def _page(rows: Sequence[Row]) -> str:
    import onnxruntime

    from edge_runtime.interpreter import runtime_version

    lines = [
        "# PP-OCR from ONNX",
        "",
        f"Written by `python -m benchmarks.onnx_ocr`: {runtime_version()} beside onnxruntime "
        f"{onnxruntime.__version__}, one thread each,",
        "medians of runs in turn. Detection takes 320x320, direction 48x192, recognition 48x320 pixels. *Error* is the",
        "largest of any output element on the drawn lines or pages; *same* is the share of lines with the same text,",
        "of pages' text area (intersection over union), or of lines with the same direction, as onnxruntime gives for",
        "the float model. *Convert* is the whole conversion, its comparison with onnxruntime included.",
        "",
        "| model | recipe | file, of ONNX | error | SNR (dB) | same | ms | of onnxruntime | convert (s) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.model} | {row.recipe} | {row.size / row.source_size:.2f} | {row.max_abs_error:.1e} "
        f"| {'-' if row.snr_db is None else f'{row.snr_db:.0f}'} | {row.same:.1%} | {row.median_ms:.1f} "
        f"| {row.ratio:.2f} | {row.seconds:.0f} |"
        for row in rows
    ]
    best = {
        name: min((row for row in rows if row.model == name), key=lambda row: row.ratio)
        for name in dict.fromkeys(row.model for row in rows)
    }
    lines += [
        "",
        "Fastest: " + ", ".join(f"{name} {row.ratio:.2f} ({row.recipe})" for name, row in best.items()) + ".",
    ]
    mean = float(np.exp(np.mean([np.log(row.ratio) for row in best.values()])))
    lines += [f"Geometric mean of the fastest: {mean:.2f} of onnxruntime's latency."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
