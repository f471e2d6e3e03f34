"""Measurements: what hybridge adds to the libraries below it, and the demo of the whole way.

`run_demo` is `hybridge demo`, and `edge_runtime.latency` measures for `hybridge bench latency`; the comparisons that a
developer of hybridge makes are modules to run, such as ``python -m benchmarks.model_overhead``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.demo import run_demo

__all__ = ["run_demo"]


def __getattr__(name: str) -> Any:
    # The demo brings plots and TensorFlow, which no other measurement waits for.
    if name != "run_demo":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from benchmarks.demo import run_demo

    return run_demo
