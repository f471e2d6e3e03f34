"""A page's worth of content, made by hand."""

from __future__ import annotations

import numpy as np

from convert.budget import Budget
from convert.quantization import Coverage, LayerSensitivity, SparseWeight, SparsityReport, ValueRange
from convert.report import EpochRow, ReportContent, TrialRow
from convert.verification import measure_confusion, measure_drop, measure_outputs
from edge_runtime import TensorSpec
from edge_runtime.manifest import (
    SCHEMA_VERSION,
    Accuracy,
    Latency,
    Lineage,
    Manifest,
    Metrics,
    Parity,
    Signature,
    Size,
    Slice,
)

HOSTILE = "<script>alert('1')</script>&"


def manifest(name: str = "digits") -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        version="1",
        signature=Signature(
            (TensorSpec("image", (1, 8, 8, 1), "int8"),), (TensorSpec(HOSTILE, (1, 3), "float32"),)
        ),
        labels=("cat", HOSTILE, "fox"),
        metrics=Metrics(
            accuracy=Accuracy(
                0.912,
                0.91,
                1000,
                (
                    Slice("writer", "ann", 0.9, 0.92, 400),
                    Slice("writer", HOSTILE, 0.93, 0.9, 600),
                ),
            ),
            parity=Parity(0.5, 0.01, 1000, "user", 38.2, 0.999, 0.993),
            size=Size(884_000, 98_000, 74_000),
            latency=(Latency("board", "runtime", 1, 0.53, 0.6, 50),),
        ),
        lineage=Lineage(
            source=HOSTILE, source_digest="0" * 64, recipe="int8", tools={"tool": "1.0"}, time="2024-01-02"
        ),
    )


def trials() -> tuple[TrialRow, ...]:
    return (
        TrialRow(name="float32", size=884_000, deflated=800_000, drop=0.0, latency_ms=1.5, on_front=True),
        TrialRow(
            name="int8",
            size=226_000,
            deflated=200_000,
            drop=0.001,
            latency_ms=0.5,
            on_front=True,
            chosen=True,
        ),
        TrialRow(
            name="int4", size=120_000, deflated=99_000, drop=0.02, within_budget=False, note="drop 0.02"
        ),
        TrialRow(name=HOSTILE, size=230_000, drop=0.0012, latency_ms=0.9, cached=True, seconds=3.0),
        TrialRow(name="qat", within_budget=False, note=f"training-failed: {HOSTILE}"),
    )


def value_range(layer: str) -> ValueRange:
    return ValueRange(layer, "CONV_2D", -1.5, 2.0, -1.0, 1.0, 3.5, tuple(range(40)))


def full_content() -> ReportContent:
    random = np.random.default_rng(0)
    source = random.random((50, 3))
    converted = source + random.normal(0, 0.2, (50, 3))
    labels = random.integers(0, 3, 50)
    return ReportContent(
        name=HOSTILE,
        version="1",
        command=f"hybridge convert {HOSTILE!r} --recipe int8",
        manifest=manifest(),
        recipe=f"name = {HOSTILE!r}",
        budget=Budget(max_drop=0.01, max_size=90_000),
        misses=("size 98,000 bytes (at most 90,000)",),
        warnings=(HOSTILE,),
        notes=(HOSTILE,),
        drop=measure_drop(source, converted, labels),
        confusion=measure_confusion(source, converted, labels),
        parity=measure_outputs({HOSTILE: source, "same": source}, {HOSTILE: converted, "same": source}),
        coverage=Coverage({"CONV_2D": 3}, {HOSTILE: 1}, float_layers=(HOSTILE,), not_builtin=("CUSTOM x",)),
        sparsity=SparsityReport(900, 700, (SparseWeight(HOSTILE, "INT8", 0.8, 500, 500, HOSTILE),)),
        training=(
            EpochRow(part="prune", epoch=1, loss=1.0, accuracy=0.9, sparsity=0.3),
            EpochRow(part="prune", epoch=2, loss=0.5, accuracy=0.91, sparsity=0.5),
            EpochRow(part=HOSTILE, epoch=3, loss=0.4),
        ),
        sensitivity=(
            LayerSensitivity(HOSTILE, "CONV_2D", 21.3, 0.5, 0.98, 4000, 1000),
            LayerSensitivity("dense", "FULLY_CONNECTED", None, 0.0, None, 400, 100),
        ),
        weights=(value_range(HOSTILE),),
        activations=(value_range("dense"),),
        trials=trials(),
    )
