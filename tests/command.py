"""Runs the `hybridge` command as a user does: a process, its output, its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Result", "hybridge"]


@dataclass(frozen=True)
class Result:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


def hybridge(
    *arguments: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None, timeout: float = 240
) -> Result:
    """Runs ``hybridge ARGUMENTS`` to its end."""
    run = subprocess.run(
        [sys.executable, "-m", "edge_runtime", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        timeout=timeout,
    )
    return Result(run.returncode, run.stdout, run.stderr)
