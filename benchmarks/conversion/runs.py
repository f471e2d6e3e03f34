"""Running the command as a user does, and reading what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

__all__ = ["Run", "hybridge"]

Run = dict[str, Any]


def hybridge(*words: object) -> Run:
    """What ``hybridge WORDS --format json`` printed, with ``exit_code`` and ``seconds`` of the whole process."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "edge_runtime", *map(str, words), "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    printed: Run = (
        json.loads(done.stdout) if done.stdout.strip() else {"error": {"message": done.stderr[-500:]}}
    )
    return {**printed, "exit_code": done.returncode, "seconds": time.perf_counter() - start}
