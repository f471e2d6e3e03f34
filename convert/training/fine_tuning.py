"""Fine-tuning seen from the conversion: starts the process that trains, follows it, and brings the weights back."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from convert.recipes import Training
from convert.sources.source import Architecture
from convert.training.messages import Epoch, FineTuned, Outcome, Problem, Request, read_arrays, write_arrays
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["fine_tune"]

# Of what a process that failed said last.
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
    It learns the source's outputs (distillation, Hinton et al., 2015) and, where there are any, the labels. The process
    ends with this one, however this one ends.

    Args:
        architecture: The model.
        training: What to do.
        inputs: For each input, in the model's order, an array of shape (samples, ...).
        targets: The source's own outputs on them, in its order.
        labels: Index of the true class for each sample, if known.
        scores: The output with class scores, logits or probabilities, if there is one.
        weight_bits: Bits to which rounding in training rounds weights, 8 or 4.
        max_drop: Accuracy that may be lost: training stops once what it loses is well within.
        progress: Called with a line of text after each epoch.

    Raises:
        HybridgeError: `training-failed` for layers that cannot be carried over, a copy that computes something else, a
            training that did not reach what it promises, or a process that ended early; `usage` for a custom module
            that cannot be imported.
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
    )
    with tempfile.TemporaryDirectory(prefix="hybridge-training-") as name:
        folder = Path(name)
        try:
            write_arrays(folder, "weights", architecture.weights)
            write_arrays(folder, "inputs", list(inputs.values()))
            write_arrays(folder, "targets", list(targets.values()))
            write_arrays(folder, "labels", [] if labels is None else [labels])
            (folder / "request.json").write_bytes(msgspec.json.encode(request, enc_hook=_plain))
        except OSError as error:
            raise HybridgeError(
                ErrorCode.FILE_UNWRITABLE,
                f"temporary folder '{folder.parent}'",
                received=error.strerror or str(error),
                expected="room for the training data",
                fix="free some, or name another folder (TMPDIR)",
            ) from error
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
    environment = {
        **os.environ,
        "TF_USE_LEGACY_KERAS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # What this process can import, that one can.
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    history: list[Epoch] = []
    decoder = msgspec.json.Decoder(Epoch)
    with (
        open(folder / "stderr", "wb") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "convert.training.worker", str(folder)],
            # The worker ends when this pipe does: with this process, even one that is killed.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            # An interrupt at the terminal is for this process, which then ends the worker.
            start_new_session=True,
        ) as worker,
    ):
        try:
            assert worker.stdout is not None  # noqa: S101 - it is a pipe
            for line in worker.stdout:
                history.append(decoder.decode(line))
                report(_text(history[-1]))
            code = worker.wait()
        finally:
            worker.kill()
    if (problem := folder / "problem.json").exists():
        raise msgspec.json.decode(problem.read_bytes(), type=Problem).error()
    if code != 0:
        raise _ended(code, (folder / "stderr").read_text(errors="replace"))
    return history


def _text(epoch: Epoch) -> str:
    quality = "" if epoch.quality is None else f", {epoch.quality:.1%} right"
    zeros = f", {epoch.sparsity:.0%} zeros" if epoch.sparsity else ""
    return f"{epoch.part} {epoch.epoch} of {epoch.epochs}: loss {epoch.validation_loss:.4f}{quality}{zeros}"


def _ended(code: int, errors: str) -> HybridgeError:
    said = " / ".join(line.strip() for line in errors.strip().splitlines()[-_LAST_LINES:])
    ended = f"it was killed by signal {-code}" if code < 0 else f"exit code {code}"
    return HybridgeError(
        ErrorCode.TRAINING_FAILED,
        "training process",
        received=f"{ended}{f' ({said})' if said else ''}",
        expected="trained weights",
        fix="train on fewer samples if memory ran out" if code < 0 else "",
    )


def _plain(value: object) -> object:
    # Configurations hold NumPy numbers.
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)
