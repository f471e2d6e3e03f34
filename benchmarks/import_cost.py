"""What importing the runtime costs, beside importing NumPy and the interpreter alone.

``python -m benchmarks.import_cost`` starts fresh processes in turn and compares the time inside them from just before
the import to just after it; Python's own start-up is in neither. A device program imports `Chain` or `Model`; what
reads manifests and chain files is loaded with the first of them, and is in the row with everything.
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
_BASE = "numpy and the interpreter"
_CASES = {
    _BASE: "import numpy; import ai_edge_litert.interpreter",
    "from edge_runtime import Chain, Model": "from edge_runtime import Chain, Model",
    "everything in edge_runtime": "from edge_runtime import *",
    "import edge_runtime": "import edge_runtime",
}


@click.command()
@click.option(
    "--runs", default=31, show_default=True, type=click.IntRange(min=3), help="Runs of each, in turn."
)
@format_option
def import_cost(runs: int) -> None:
    """Compares the import of edge_runtime with that of NumPy and the interpreter."""
    for imports in _CASES.values():
        _seconds(imports)  # byte code and file caches
    rounds = [{case: _seconds(imports) for case, imports in _CASES.items()} for _ in range(runs)]
    results = {
        case: {
            "median_ms": statistics.median(each[case] for each in rounds) * 1e3,
            "ratio": statistics.median(each[case] / each[_BASE] for each in rounds),
        }
        for case in _CASES
    }
    emit(
        {"runs": runs, "cases": results},
        lambda: table(
            [
                (case, f"{result['median_ms']:.1f}", f"{result['ratio']:.2f}")
                for case, result in results.items()
            ],
            header=("import", "median ms", f"ratio, median of {runs}"),
        ),
    )


def _seconds(imports: str) -> float:
    run = subprocess.run(
        [sys.executable, "-c", _TIMED.format(imports=imports)], check=True, capture_output=True, text=True
    )
    return float(run.stdout)


if __name__ == "__main__":
    run_verb(import_cost)
