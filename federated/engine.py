"""Flower's simulation engine, in a process of its own: `python -m federated.engine FOLDER`.

The process takes its work from the folder (`WorkFolder`), writes a line of JSON for each `Event` to standard output,
and ends when its standard input does, so that it never outlives whoever started it. It holds the server; Ray starts
further processes for the clients.

`run_simulation` is deprecated in favour of `flwr run`, which leaves a SuperLink running in the background and
installs what an app depends on; neither belongs in a command that cleans up behind itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from edge_runtime.errors import ErrorCode, HybridgeError
from federated.plan import Plan, RoundReport
from federated.trainer import Weights
from federated.work_folder import WorkFolder

__all__ = ["Event", "Failed", "Finished", "RoundDone"]

# Ray takes 30% of the memory for objects if it is not told; here an object is a model, at most a few megabytes.
_OBJECT_STORE_BYTES = 128 * 1024**2


class RoundDone(Struct, frozen=True, tag="round-done"):
    """A round is over."""

    report: RoundReport


class Failed(Struct, frozen=True, tag="failed"):
    """The run failed; the fields are those of a `HybridgeError`."""

    code: ErrorCode
    what: str
    received: str
    expected: str
    fix: str


class Finished(Struct, frozen=True, tag="finished"):
    """The run is over, and the folder holds the weights."""


Event = RoundDone | Failed | Finished


def main() -> None:
    """Runs the engine and reports how it went; the exit code is 0 if that could be reported."""
    # Whatever libraries print goes to the log that standard error is; standard output carries events alone.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    folder = WorkFolder(Path(sys.argv[1]))
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()

    def send(event: Event) -> None:
        events.write(msgspec.json.encode(event) + b"\n")

    try:
        _run(folder, send)
        send(Finished())
    except HybridgeError as error:
        send(Failed(error.code, error.what, error.received, error.expected, error.fix))
    except Exception as error:
        traceback.print_exc()
        received = f"{type(error).__name__}: {error}"
        send(Failed(ErrorCode.FEDERATION_FAILED, "Flower's simulation engine", received, "", ""))


def _run(folder: WorkFolder, send: Callable[[Event], None]) -> None:
    from flwr.simulation import run_simulation

    from federated.client_app import create_client_app
    from federated.server_app import create_server_app

    plan = folder.plan()
    finished: list[Weights] = []
    server_app = create_server_app(
        plan,
        folder.trainable(),
        folder.held_back(),
        on_round=lambda report: send(RoundDone(report)),
        on_end=finished.append,
    )
    _start_ray(folder, plan)
    # Flower uses the Ray it finds, and shuts it down. Its own would start every client process anew, for an environment
    # variable that is set already.
    run_simulation(
        server_app,
        create_client_app(folder.client_samples),
        num_supernodes=plan.clients,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0}},
    )
    folder.write_weights(finished[0])


def _start_ray(folder: WorkFolder, plan: Plan) -> None:
    import ray

    ray.init(
        num_cpus=min(len(os.sched_getaffinity(0)), plan.clients),
        num_gpus=0,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        logging_level="ERROR",
        _temp_dir=str(folder.path / "ray"),
    )


def _end_with_parent(folder: WorkFolder) -> None:
    # Nothing is ever written to standard input; it ends when whoever holds its other end is gone. Ray's processes are
    # in this process's group, so they end with it.
    sys.stdin.buffer.read()
    shutil.rmtree(folder.path, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
