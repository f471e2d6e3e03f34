"""What goes between the conversion and the process that trains: a folder of arrays, and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import Struct

from convert.recipes import Training
from convert.sources.source import Architecture
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["Epoch", "FineTuned", "Outcome", "Part", "Problem", "Request", "read_arrays", "write_arrays"]

Part = Literal["prune", "cluster", "qat"]


class Epoch(Struct, frozen=True, kw_only=True):
    """One pass over the training data, of at most 30,000 samples; the next pass sees others.

    Attributes:
        part: What the model was trained for.
        epoch: Its number within the part, from 1.
        epochs: How many the part has at most.
        loss: Mean training loss.
        validation_loss: The same loss on the samples held back.
        quality: Accuracy on the samples held back, or agreement with the source where there are no labels; None for
            a model without class scores.
        sparsity: Share of zeros in the kernels that were pruned.
    """

    part: Part
    epoch: int
    epochs: int
    loss: float
    validation_loss: float
    quality: float | None
    sparsity: float


class Request(Struct, frozen=True, kw_only=True):
    """What to train; arrays lie beside it."""

    library: Literal["keras", "tf_keras"]
    config: dict[str, Any]
    custom: tuple[str, ...]
    training: Training
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    labelled: bool
    scores: str | None
    weight_bits: int
    max_drop: float | None

    def architecture(self, weights: Sequence[Array]) -> Architecture:
        """The source model, with these weights."""
        return Architecture(self.library, self.config, tuple(weights), self.custom)


class Problem(Struct, frozen=True, kw_only=True):
    """An error of the training process, to be raised again."""

    code: str
    what: str
    received: str
    expected: str
    fix: str

    @classmethod
    def of(cls, error: HybridgeError) -> Problem:
        """What is to be said of an error."""
        return cls(
            code=error.code.value,
            what=error.what,
            received=error.received,
            expected=error.expected,
            fix=error.fix,
        )

    def error(self) -> HybridgeError:
        """The error, as it was."""
        return HybridgeError(
            ErrorCode(self.code), self.what, received=self.received, expected=self.expected, fix=self.fix
        )


class Outcome(Struct, frozen=True, kw_only=True):
    """What training did; the weights lie beside it."""

    sparsity: float
    skipped: dict[str, str]


@dataclass(frozen=True)
class FineTuned:
    """A model after training.

    Attributes:
        weights: Their values, in the order of `Architecture.weights`.
        history: One entry an epoch.
        sparsity: Share of zeros in the kernels that were pruned or clustered, or in all kernels after `qat` alone.
        seconds: How long it took.
        skipped: Layers that a part left as they were, as ``part: layer``, and why.
    """

    weights: tuple[Array, ...]
    history: tuple[Epoch, ...]
    sparsity: float
    seconds: float
    skipped: Mapping[str, str]


def write_arrays(folder: Path, name: str, arrays: Sequence[Array]) -> None:
    """Writes arrays under a name, for `read_arrays`."""
    for index, array in enumerate(arrays):
        np.save(folder / f"{name}-{index}.npy", np.ascontiguousarray(array), allow_pickle=False)
    (folder / f"{name}.json").write_bytes(msgspec.json.encode(len(arrays)))


def read_arrays(folder: Path, name: str) -> list[Array]:
    """Arrays that were written under a name, mapped into memory rather than read."""
    count = msgspec.json.decode((folder / f"{name}.json").read_bytes(), type=int)
    return [
        np.load(folder / f"{name}-{index}.npy", mmap_mode="r", allow_pickle=False) for index in range(count)
    ]
