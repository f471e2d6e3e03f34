"""The process that trains: reads a folder, writes epochs to standard output and weights into the folder.

A process of its own, as tfmot works on `tf_keras` models only and makes that the Keras of whatever imports it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from convert.training.fitting import Fitting
from convert.training.messages import Epoch, Outcome, Problem, Request, read_arrays, write_arrays
from convert.training.objective import Objective
from convert.training.parts import train_parts
from convert.training.rebuilding import rebuild
from convert.training.samples import Samples
from edge_runtime.errors import HybridgeError

__all__: list[str] = []


def train(folder: Path, report: Callable[[Epoch], None]) -> None:
    """Trains what the folder asks for, and leaves the result there.

    Raises:
        HybridgeError: `training-failed`.
    """
    import tf_keras

    request = msgspec.json.decode((folder / "request.json").read_bytes(), type=Request)
    tf_keras.utils.set_random_seed(request.training.seed)
    samples = Samples.read(folder, request)
    architecture = request.architecture(read_arrays(folder, "weights"))
    samples.check_copy(rebuild(architecture, architecture.weights).model)
    fitting = Fitting(request.training, samples, Objective(samples), request.max_drop, report)
    tuned = train_parts(architecture, fitting, weight_bits=request.weight_bits)
    write_arrays(folder, "tuned", tuned.weights)
    outcome = Outcome(sparsity=tuned.sparsity, skipped=tuned.skipped)
    (folder / "outcome.json").write_bytes(msgspec.json.encode(outcome))


def _end_with_parent() -> None:
    """Ends this process when the pipe to its standard input does, which its parent holds open."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _own_output() -> Callable[[Epoch], None]:
    """Standard output for epochs alone: what a function of the user's own prints goes to standard error."""
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def report(epoch: Epoch) -> None:
        stream.write(msgspec.json.encode(epoch) + b"\n")
        stream.flush()

    return report


def main() -> None:
    """Trains in the folder that is the first argument; exits with 1 after an error, which is left there."""
    _end_with_parent()
    folder = Path(sys.argv[1])
    try:
        train(folder, _own_output())
    except HybridgeError as error:
        (folder / "problem.json").write_bytes(msgspec.json.encode(Problem.of(error)))
        sys.exit(1)


if __name__ == "__main__":
    main()
