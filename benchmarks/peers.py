"""Environments of their own for the packages that hybridge is measured beside.

They want versions of libraries that clash with ours, so each gets a virtual environment in the cache, made on first
use.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_runtime import ErrorCode, HybridgeError

__all__ = ["peer_python"]


def peer_python(
    name: str,
    requirements: Sequence[str],
    *,
    without_dependencies: Sequence[str] = (),
    say: Callable[[str], None],
) -> Path:
    """The Python of an environment that has a peer installed.

    Args:
        name: What to call the environment.
        requirements: What pip installs, with what these need.
        without_dependencies: What pip installs alone, such as a package that asks for a second OpenCV.
        say: Takes a line of progress when it has to be made.

    Raises:
        HybridgeError: `file-not-found` when pip cannot install them.
    """
    wanted = "\n".join([sys.version, *requirements, *without_dependencies])
    key = hashlib.sha256(wanted.encode()).hexdigest()[:12]
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "hybridge" / "peers" / f"{name}-{key}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    say(f"installing {', '.join([*requirements, *without_dependencies])} in an environment of its own")
    venv.EnvBuilder(with_pip=True, clear=True).create(folder)
    for packages, flags in ((requirements, ()), (without_dependencies, ("--no-deps",))):
        if packages:
            _pip(python, [*flags, *packages])
    (folder / "complete").touch()
    return python


def _pip(python: Path, arguments: Sequence[str]) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise HybridgeError(
            ErrorCode.FILE_NOT_FOUND,
            f"packages {', '.join(arguments)}",
            received=run.stderr.strip().splitlines()[-1] if run.stderr.strip() else "a failure of pip",
            expected="an index that has them",
        )
