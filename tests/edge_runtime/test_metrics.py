from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import (
    Answer,
    Bundle,
    Chain,
    ErrorCode,
    HybridgeError,
    Model,
    Query,
    Reason,
    Source,
    Stage,
)
from edge_runtime.metrics import Latencies, Metrics, resident_bytes
from edge_runtime.prediction import Prediction, StageTrace
from edge_runtime.tensor_spec import Array

MakeBundle = Callable[..., Bundle]


class EverySecond:
    """A fallback that answers every second question from elsewhere."""

    def __init__(self) -> None:
        self.asked = 0

    def resolve(self, query: Query) -> Answer:
        self.asked += 1
        if self.asked % 2:
            return Answer(dict(query.outputs), Source.CLOUD, Reason.UNSURE)
        return Answer.keep(Reason.CONFIDENT)

    def close(self) -> None: ...


def test_percentiles_are_of_the_last_runs_and_totals_of_all() -> None:
    latencies = Latencies()
    assert latencies.percentiles() == (0.0, 0.0, 0.0)
    for value in range(1, 101):
        latencies.add(value)
    assert latencies.percentiles() == pytest.approx(np.percentile(np.arange(1, 101), (50, 95, 99)))
    for _ in range(2_000):
        latencies.add(7)
    assert latencies.percentiles() == (7, 7, 7)
    assert latencies.count == 2_100
    assert latencies.total_ms == pytest.approx(5_050 + 14_000)


def test_counts_are_what_was_done_from_many_threads(make_bundle: MakeBundle, image: Array) -> None:
    chain = Chain(
        [
            Stage.from_model("read", Model(make_bundle())),
            Stage.from_operator(
                "never", "softmax", inputs={"logits": "logits"}, outputs={"logits": "p"}, when="0 > 1"
            ),
        ]
    )

    def work(number: int) -> None:
        for index in range(50):
            if index % 5:
                chain.run(image)
                continue
            with pytest.raises(HybridgeError):
                chain.run(image[:, :4] if index % 2 else {"photo": image})

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work, number) for number in range(4)]:
            future.result(timeout=30)
    figures = chain.metrics.figures()
    assert figures.runs == 160
    assert figures.errors == {ErrorCode.INPUT_SHAPE: 20, ErrorCode.INPUT_MISSING: 20}
    assert figures.sources == {Source.DEVICE: 160}
    read, never = figures.stages
    assert (read.runs, read.errors, read.skipped, read.sources) == (160, 20, 0, {Source.DEVICE: 160})
    assert (never.runs, never.errors, never.skipped, never.sources) == (0, 0, 160, {})
    assert 0 < read.p50_ms <= read.p95_ms <= read.p99_ms <= read.total_ms < figures.total_ms
    assert (figures.queue_depth, figures.in_flight, read.waiting) == (0, 0, 0)


def test_answers_are_counted_by_where_they_came_from(make_bundle: MakeBundle, image: Array) -> None:
    chain = Chain.from_bundle(make_bundle(), fallback=EverySecond())
    for _ in range(10):
        chain.run(image)
    figures = chain.metrics.figures()
    assert figures.sources == {Source.CLOUD: 5, Source.DEVICE: 5}
    assert figures.stages[0].sources == {Source.CLOUD: 5, Source.DEVICE: 5}


def test_items_are_counted_and_each_by_its_source(make_bundle: MakeBundle, image: Array) -> None:
    stage = Stage.from_model("read", Model(make_bundle()), foreach="image", fallback=EverySecond())
    chain = Chain([stage])
    for count in (4, 0, 2):
        chain.run({"image": [image] * count})
    (read,) = chain.metrics.figures().stages
    assert (read.runs, read.items) == (3, 6)
    assert read.sources == {Source.CLOUD: 3, Source.DEVICE: 3}


def test_stages_within_a_nested_chain_are_no_items(make_bundle: MakeBundle, image: Array) -> None:
    inner = Chain(
        [
            Stage.from_model("read", Model(make_bundle())),
            Stage.from_operator("best", "softmax", outputs={"logits": "chances"}),
        ]
    )
    chain = Chain([Stage.from_chain("inner", inner)])
    for _ in range(3):
        chain.run(image)
    (stage,) = chain.metrics.figures().stages
    assert (stage.runs, stage.items, stage.sources) == (3, 0, {Source.DEVICE: 3})
    assert inner.metrics.figures().runs == 3


def test_figures_agree_with_themselves_while_others_count() -> None:
    metrics = Metrics("chain", ["a"])
    trace = StageTrace("a", 1.0, confidence=0.5)

    def count(number: int) -> None:
        for _ in range(2_000):
            metrics.stage_ran("a", 1.0, trace)
            metrics.chain_ran(Prediction({}, stages=(trace,), elapsed_ms=1.0))

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(count, number) for number in range(3)]
        while not all(future.done() for future in futures):
            figures = metrics.figures()
            (stage,) = figures.stages
            assert sum(figures.sources.values()) == figures.runs == figures.total_ms
            assert sum(stage.sources.values()) == stage.runs == stage.total_ms
    assert metrics.figures().runs == 6_000


def test_resident_memory_is_that_of_this_process() -> None:
    if not Path("/proc/self/statm").exists():
        assert resident_bytes() == 0
        return
    before = resident_bytes()
    held = np.ones(100_000_000, np.uint8)
    assert 60_000_000 < resident_bytes() - before < 140_000_000
    assert held.size
