"""What importing the runtime costs, beside importing NumPy and the interpreter alone.

``python -m benchmarks.import_cost`` starts fresh processes in turn and compares the time inside them from just before
the import to just after it; the interpreter's own start-up is in neither.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

import click

from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, table

__all__ = ["import_cost"]

_TIMED = "import time; start = time.perf_counter(); {imports}; print(time.perf_counter() - start)"
_CASES = {
    "numpy + interpreter": "import numpy; import ai_edge_litert.interpreter",
    "edge_runtime": "import edge_runtime",
}


@click.command()
@click.option("--runs", default=21, show_default=True, type=click.IntRange(min=3), help="Pairs of processes.")
@format_option
def import_cost(runs: int) -> None:
    """Compares the import of edge_runtime with that of NumPy and the interpreter."""
    for imports in _CASES.values():
        _seconds(imports)  # byte code and file caches
    pairs = [{case: _seconds(imports) for case, imports in _CASES.items()} for _ in range(runs)]
    base, ours = _CASES
    medians = {case: statistics.median(pair[case] for pair in pairs) * 1e3 for case in _CASES}
    ratio = statistics.median(pair[ours] / pair[base] for pair in pairs)
    emit(
        {"runs": runs, "median_ms": medians, "ratio": ratio},
        lambda: (
            table([(case, f"{medians[case]:.1f}") for case in _CASES], header=("import", "median ms"))
            + f"\nratio, median of {runs} pairs: {ratio:.2f}"
        ),
    )


def _seconds(imports: str) -> float:
    run = subprocess.run(
        [sys.executable, "-c", _TIMED.format(imports=imports)], check=True, capture_output=True, text=True
    )
    return float(run.stdout)


if __name__ == "__main__":
    run_verb(import_cost)
