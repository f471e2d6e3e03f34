"""The process that trains: reads a folder, writes epochs to standard output and weights into the folder.

It must be a process of its own: tfmot works on `tf_keras` models only, which it makes the Keras of the whole process.
"""

from __future__ import annotations

import os
import sys
import threading
from importlib import import_module
from pathlib import Path

import msgspec
import numpy as np

from convert.training.copying import copy_model
from convert.training.learning import Learning
from convert.training.messages import Epoch, Outcome, Problem, Request, read_arrays, write_arrays
from convert.training.techniques import train_parts
from edge_runtime.errors import HybridgeError

__all__: list[str] = []


def main(folder: Path) -> None:
    """Trains what the folder asks for."""
    request = msgspec.json.decode((folder / "request.json").read_bytes(), type=Request)
    sys.path += [path for path in request.paths if path not in sys.path]
    for module in request.custom:
        import_module(module)
    import tf_keras

    tf_keras.utils.set_random_seed(request.training.seed)
    copied = copy_model(request, read_arrays(folder, "weights"))
    learning = Learning.from_folder(request, folder)
    learning.check_copy(copied.model)
    tuned = train_parts(copied, learning, request, report=_report)
    write_arrays(folder, "tuned", tuned.weights)
    outcome = Outcome(sparsity=tuned.sparsity, skipped=tuned.skipped)
    (folder / "outcome.json").write_bytes(msgspec.json.encode(outcome))


def _report(epoch: Epoch) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(epoch) + b"\n")
    sys.stdout.buffer.flush()


def _end_with_parent() -> None:
    def watch() -> None:
        # Not through `sys.stdin`, whose lock a thread may not hold when the interpreter ends.
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    _end_with_parent()
    place = Path(sys.argv[1])
    np.seterr(all="ignore")
    try:
        main(place)
    except HybridgeError as error:
        described = Problem(
            code=error.code.value,
            what=error.what,
            received=error.received,
            expected=error.expected,
            fix=error.fix,
        )
        (place / "problem.json").write_bytes(msgspec.json.encode(described))
        sys.exit(1)
