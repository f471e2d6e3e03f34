"""A simulated fleet: the engine's process, from its start to the last trace of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import write_file
from federated.engine import Event, Failed, RoundDone
from federated.plan import RoundReport
from federated.trainer import Weights
from federated.work_folder import WorkFolder

__all__ = ["run_fleet"]

_LOG = "engine.log"
_LAST_WORDS = 400
_PATIENCE_S = 20.0


def run_fleet(folder: WorkFolder, *, on_round: Callable[[RoundReport], None]) -> Weights:
    """Runs the work in `folder` and gives the weights after its last round.

    When this returns or raises, whatever it raises, no process that it started is left.

    Args:
        folder: Where `WorkFolder.write` was called; everything that the run writes goes there too.
        on_round: Called before the first round and after each.

    Raises:
        HybridgeError: `federation-failed` when a client or the engine fails, with the reason.
    """
    with _engine(folder.path) as engine:
        for line in engine.stdout or ():
            event = msgspec.json.decode(line, type=Event)
            if isinstance(event, Failed):
                raise HybridgeError(
                    event.code, event.what, received=event.received, expected=event.expected, fix=event.fix
                )
            if not isinstance(event, RoundDone):
                return folder.weights()
            on_round(event.report)
        raise HybridgeError(
            ErrorCode.FEDERATION_FAILED,
            "Flower's simulation engine",
            received=f"its end with code {engine.wait()}; its last words were: {_last_words(folder.path)}",
            expected=f"{folder.plan().rounds} rounds",
            fix="check the memory and processes that this machine allows",
        )


@contextmanager
def _engine(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with open(folder / _LOG, "wb") as log:
        process = subprocess.Popen(
            # -P: a module in the working folder must not take the place of one that is installed.
            [sys.executable, "-P", "-m", "federated.engine", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(folder),
            # A session of its own: an interrupt from the terminal reaches us alone, and we find all of its processes.
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _end(process)


def _environment(folder: Path) -> dict[str, str]:
    """Keeps Flower and Ray within the folder, the cores and this machine, and TensorFlow out of all processes."""
    # Flower's simulation imports TensorFlow where it can, to let GPU memory grow, which costs every process 10 s and
    # 400 MB (flwr.simulation.ray_transport.utils). This module stands before it.
    shadow = folder / "modules"
    shadow.mkdir()
    write_file(shadow / "tensorflow.py", b"raise ModuleNotFoundError('hidden', name='tensorflow')\n")
    path = [str(shadow), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "FLWR_HOME": str(folder / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TMPDIR": str(folder),
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the engine and everything in its session, and waits until they are gone."""
    for pid in _session(process.pid):
        _kill(pid)
    process.communicate()
    patience = time.monotonic() + _PATIENCE_S
    while (left := _session(process.pid)) and time.monotonic() < patience:
        for pid in left:
            _kill(pid)
        time.sleep(0.02)


def _session(leader: int) -> list[int]:
    """Processes whose session `leader` leads, itself included."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # Fields after the command's closing bracket: state, parent, group, session (proc_pid_stat(5)).
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue  # ended meanwhile
            if session == str(leader) and state != "Z":
                members.append(int(entry.name))
    return members


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _last_words(folder: Path) -> str:
    text = (folder / _LOG).read_text(errors="replace").strip()
    return " ".join(text[-_LAST_WORDS:].split()) or "none"
