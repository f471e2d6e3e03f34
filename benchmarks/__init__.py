"""Measurements: latency of a model, what hybridge adds to the libraries below it, and the demo of the whole way.

`measure_latency` is also `hybridge bench latency`, `run_demo` is `hybridge demo`; the comparisons that a developer of
hybridge makes are modules to run, such as ``python -m benchmarks.model_overhead``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.demo import run_demo
    from benchmarks.latency import machine_name, measure_latency, with_latency
    from benchmarks.timing import Timing, paired_ratio, time_runs

__all__ = [
    "Timing",
    "machine_name",
    "measure_latency",
    "paired_ratio",
    "run_demo",
    "time_runs",
    "with_latency",
]

# Loaded when asked for: the process that measures a model must load nothing but what the model needs.
_HOMES = {
    "Timing": "benchmarks.timing",
    "machine_name": "benchmarks.latency",
    "measure_latency": "benchmarks.latency",
    "paired_ratio": "benchmarks.timing",
    "run_demo": "benchmarks.demo",
    "time_runs": "benchmarks.timing",
    "with_latency": "benchmarks.latency",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
