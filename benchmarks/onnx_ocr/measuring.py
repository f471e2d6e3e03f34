"""One model with one recipe: converted, compared with onnxruntime, and timed beside it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.onnx_ocr.models import OcrModel, characters
from benchmarks.onnx_ocr.text import lines, pages, read
from convert import convert
from convert.recipe_options import with_options
from convert.recipes import Method, ParityBounds, load_recipe
from edge_runtime.model import Model
from edge_runtime.tensor_spec import Array

__all__ = ["Row", "measured"]

_RUNS = 40
# Above it a pixel belongs to text, as PP-OCR's own post-processing has it.
_TEXT = 0.3


@dataclass(frozen=True)
class Row:
    """What was measured; `same` is the share of results that are those of onnxruntime."""

    model: str
    recipe: str
    source_size: int
    size: int
    max_abs_error: float
    snr_db: float | None
    same: float
    median_ms: float
    reference_ms: float
    ratio: float
    seconds: float


def measured(model: OcrModel, path: Path, recipe: str, method: str | None) -> Row:
    """Converts and measures.

    Args:
        model: What the model is.
        path: Its file.
        recipe: Name of the recipe.
        method: How weights are chosen, other than the recipe does.
    """
    import onnx

    name = onnx.load(path, load_external_data=False).graph.input[0].name
    judged, representative = _images(model, 50, seed=0), _images(model, 100, seed=7)
    chosen = load_recipe(recipe)
    if method is not None:
        chosen = with_options(chosen, method=Method(method))
    start = time.perf_counter()
    conversion = convert(
        path,
        recipe=chosen,
        shapes={name: model.shape},
        evaluation={name: judged},
        representative={name: representative} if chosen.needs_representative else None,
        # What was lost is what the table shows.
        bounds=ParityBounds(),
    )
    seconds = time.perf_counter() - start
    device, session = Model(conversion.bundle), _session(path)
    output = device.outputs[0].name
    ours, theirs = [], []
    for index in range(_RUNS):
        one = {name: judged[index % len(judged)][np.newaxis]}
        ours.append(_timed(lambda one=one: device.run(one)))
        theirs.append(_timed(lambda one=one: session.run(None, one)))
    expected = np.concatenate([session.run(None, {name: image[np.newaxis]})[0] for image in judged])
    received = np.concatenate([device.run({name: image[np.newaxis]})[output] for image in judged])
    return Row(
        model=model.name,
        recipe=recipe if method is None else f"{recipe}, {method}",
        source_size=path.stat().st_size,
        size=conversion.size.model,
        max_abs_error=conversion.parity.max_abs_error,
        snr_db=conversion.parity.snr_db,
        same=_same(model, path, expected, received),
        median_ms=float(np.median(ours)) * 1e3,
        reference_ms=float(np.median(theirs)) * 1e3,
        ratio=float(np.median(np.array(ours) / np.array(theirs))),
        seconds=seconds,
    )


def _images(model: OcrModel, count: int, *, seed: int) -> Array:
    height, width = model.shape[2:]
    if model.kind == "detection":
        return pages(count // 2, size=(height, width), seed=seed + 1)
    return lines(count, size=(height, width), seed=seed)[0]


def _same(model: OcrModel, path: Path, expected: Array, received: Array) -> float:
    if model.kind == "recognition":
        known = characters(path, model)
        pairs = zip(expected, received, strict=True)
        return float(np.mean([read(want, known) == read(got, known) for want, got in pairs]))
    if model.kind == "direction":
        return float((expected.argmax(-1) == received.argmax(-1)).mean())
    want, got = expected > _TEXT, received > _TEXT
    return float((want & got).sum() / max(1, (want | got).sum()))


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
