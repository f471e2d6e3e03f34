"""Fine-tuning seen from the conversion: starts the process that trains, follows it, and brings the weights back."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import msgspec
import numpy as np

from convert.recipes import Training
from convert.sources.source import Architecture
from convert.training.messages import Epoch, FineTuned, Outcome, Problem, Request, read_arrays, write_arrays
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["fine_tune"]

_LAST_LINES = 5


def fine_tune(
    architecture: Architecture,
    training: Training,
    *,
    inputs: Mapping[str, Array],
    targets: Mapping[str, Array],
    labels: Array | None,
    scores: str | None,
    weight_bits: int = 8,
    max_drop: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> FineTuned:
    """Trains a copy of a model in a process of its own, and gives back its weights.

    The copy is built in `tf_keras`, which tfmot needs, and must compute what the source computes before it is trained.
    It learns the source's outputs (distillation, Hinton et al., 2015) and, where there are any, the labels.

    Args:
        architecture: The model.
        training: What to do.
        inputs: For each input an array of shape (samples, ...).
        targets: The source's own outputs on them, in its order.
        labels: Index of the true class for each sample, if known.
        scores: The output with class scores, if there is one.
        weight_bits: Bits to which rounding in training rounds weights, 8 or 4.
        max_drop: Accuracy that may be lost: training stops once what it loses is well within.
        progress: Called with a line of text after each epoch.

    Raises:
        HybridgeError: `training-failed` for layers that cannot be carried over, a copy that computes something else, a
            training that did not reach what it promises, or a process that ended early.
    """
    start = time.monotonic()
    request = Request(
        library=architecture.library,
        config=architecture.config,
        custom=architecture.custom,
        training=training,
        inputs=tuple(inputs),
        outputs=tuple(targets),
        labelled=labels is not None,
        scores=scores,
        weight_bits=weight_bits,
        max_drop=max_drop,
        paths=tuple(sys.path),
    )
    with tempfile.TemporaryDirectory(prefix="hybridge-training-") as name:
        folder = Path(name)
        write_arrays(folder, "weights", architecture.weights)
        write_arrays(folder, "inputs", list(inputs.values()))
        write_arrays(folder, "targets", list(targets.values()))
        write_arrays(folder, "labels", [] if labels is None else [labels])
        (folder / "request.json").write_bytes(msgspec.json.encode(request, enc_hook=_plain))
        history = _run(folder, progress or (lambda _: None))
        outcome = msgspec.json.decode((folder / "outcome.json").read_bytes(), type=Outcome)
        # Read in full: the folder goes.
        weights = tuple(np.array(array) for array in read_arrays(folder, "tuned"))
    return FineTuned(
        weights=weights,
        history=tuple(history),
        sparsity=outcome.sparsity,
        seconds=time.monotonic() - start,
        skipped=outcome.skipped,
    )


def _run(folder: Path, report: Callable[[str], None]) -> list[Epoch]:
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    history: list[Epoch] = []
    with (
        open(folder / "stderr", "wb") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "convert.training.worker", str(folder)],
            # The worker ends when this pipe does: with its parent, however that ends.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
        ) as worker,
    ):
        try:
            assert worker.stdout is not None  # noqa: S101 - it is a pipe
            for epoch in _epochs(worker.stdout):
                history.append(epoch)
                report(_line(epoch))
            code = worker.wait()
        finally:
            # An interrupt must not leave it training.
            worker.kill()
    if (problem := folder / "problem.json").exists():
        found = msgspec.json.decode(problem.read_bytes(), type=Problem)
        raise HybridgeError(
            ErrorCode(found.code),
            found.what,
            received=found.received,
            expected=found.expected,
            fix=found.fix,
        )
    if code != 0 or not (folder / "outcome.json").exists():
        raise _ended(code, (folder / "stderr").read_text(errors="replace"))
    return history


def _epochs(stream: IO[bytes]) -> list[Epoch] | map[Epoch]:
    # What the user's own function prints comes here too.
    lines = (line for line in stream if line.startswith(b'{"part":'))
    return map(msgspec.json.Decoder(Epoch).decode, lines)


def _line(epoch: Epoch) -> str:
    quality = "" if epoch.quality is None else f", {epoch.quality:.2%} right on samples held back"
    zeros = f", {epoch.sparsity:.0%} zeros" if epoch.sparsity >= 0.01 else ""
    return f"{epoch.part} {epoch.epoch} of {epoch.epochs}: loss {epoch.loss:.4f}{quality}{zeros}"


def _ended(code: int, errors: str) -> HybridgeError:
    said = " / ".join(errors.strip().splitlines()[-_LAST_LINES:])
    ended = f"signal {-code}" if code < 0 else f"exit code {code}"
    return HybridgeError(
        ErrorCode.TRAINING_FAILED,
        "training process",
        received=f"{ended}{f' ({said})' if said else ''}",
        expected="trained weights",
        fix="check the memory that is free, and train on fewer samples" if code < 0 else "",
    )


def _plain(value: object) -> object:
    # Configurations hold NumPy numbers and tuples of them.
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)
