"""A long run with hot swaps: whether memory grows, and whether a request is ever dropped.

``HYBRIDGE_DATA=... python -m benchmarks.soak`` runs a chain of the int8 DS-CNN of MLPerf Tiny from two threads while a
third swaps its model in again and again, and reads the process's resident memory on the way.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import click
import numpy as np

from benchmarks.data import data_file
from edge_runtime import Chain, Model
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, say, table
from edge_runtime.metrics import resident_bytes

__all__ = ["soak"]

_MODEL = "mlperf_tiny/kws_ref_model.tflite"
# Allocators and caches fill up in the first part of a run; what grows after it is a leak.
_SETTLED = 0.1


@click.command()
@click.option(
    "--runs", default=200_000, show_default=True, type=click.IntRange(min=1000), help="Runs of the chain."
)
@click.option(
    "--swaps", default=200, show_default=True, type=click.IntRange(min=0), help="Hot swaps on the way."
)
@click.option(
    "--threads", default=2, show_default=True, type=click.IntRange(min=1), help="Threads that call it."
)
@format_option
def soak(runs: int, swaps: int, threads: int) -> None:
    """Runs a chain for long, with its model swapped on the way."""
    path = data_file(_MODEL)
    model = Model(path, instances=threads)
    spec = model.inputs[0]
    shape = tuple(1 if isinstance(size, str) else size for size in spec.shape)
    inputs = np.random.default_rng(0).integers(-128, 128, (16, *shape)).astype(np.int8)
    chain = Chain.from_bundle(model)
    expected = [chain.run({spec.name: each}).outputs for each in inputs]
    counted = _Count(runs)
    errors: list[str] = []

    def call() -> None:
        while (number := counted.take()) is not None:
            try:
                outputs = chain.run({spec.name: inputs[number % len(inputs)]}).outputs
            except Exception as error:
                errors.append(repr(error))
                continue
            for name, array in expected[number % len(inputs)].items():
                if not np.array_equal(outputs[name], array):
                    errors.append(f"run {number}: another answer")

    start = time.perf_counter()
    memory: list[tuple[int, int]] = []
    with ThreadPoolExecutor(threads) as pool:
        calls = [pool.submit(call) for _ in range(threads)]
        done = 0
        while not all(each.done() for each in calls):
            now = counted.taken
            memory.append((now, resident_bytes()))
            if done < swaps and now * swaps >= done * runs:
                chain.swap(model.name, path, trial_calls=50)
                done += 1
                if done % max(swaps // 10, 1) == 0:
                    say(f"{now:,} runs, {done} swaps, {memory[-1][1] / 1e6:.1f} MB")
            else:
                time.sleep(0.01)
        for each in calls:
            each.result()
    memory.append((runs, resident_bytes()))
    settled = next(held for taken, held in memory if taken >= runs * _SETTLED)
    growth = memory[-1][1] / settled - 1
    result = {
        "runs": runs,
        "answers": chain.metrics.figures().runs - len(inputs),
        "errors": len(errors),
        "first_errors": errors[:5],
        "swaps": done,
        "settled_mb": settled / 1e6,
        "end_mb": memory[-1][1] / 1e6,
        "peak_mb": max(held for _, held in memory) / 1e6,
        "growth": growth,
        "seconds": time.perf_counter() - start,
    }
    emit(
        result,
        lambda: table(
            [
                (
                    f"{runs:,}",
                    f"{result['answers']:,}",
                    str(len(errors)),
                    str(done),
                    f"{settled / 1e6:.1f}",
                    f"{memory[-1][1] / 1e6:.1f}",
                    f"{growth:+.2%}",
                )
            ],
            header=("runs", "answers", "failed", "swaps", "MB after a tenth", "MB at the end", "growth"),
        ),
    )


class _Count:
    """Numbers that several threads take until there are no more."""

    def __init__(self, total: int):
        self._total, self.taken = total, 0
        self._lock = threading.Lock()

    def take(self) -> int | None:
        with self._lock:
            if self.taken == self._total:
                return None
            self.taken += 1
            return self.taken - 1


if __name__ == "__main__":
    run_verb(soak)
