"""Labelled examples for a fit: what a stage is given, and the true class."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.sources.file_value import read_arrays
from edge_runtime.tensor_spec import Array
from edge_runtime.tensor_type import Bindings, TensorType

__all__ = ["LABEL", "LabelledData", "classes_of", "read_labelled", "read_predictions"]

LABEL = "label"
# Names that arrays of scores go by in a file of predictions.
_SCORES = ("probabilities", "logits", "scores")


@dataclass(frozen=True)
class LabelledData:
    """Examples with their classes.

    Attributes:
        inputs: For each input an array of shape (examples, ...).
        labels: True classes, integers of shape (examples,).
        notes: What was left out, a sentence each.
    """

    inputs: dict[str, Array]
    labels: Array
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.labels)

    def items(self) -> Iterator[dict[str, Array]]:
        """The inputs of each example."""
        for index in range(len(self)):
            yield {name: array[index] for name, array in self.inputs.items()}

    def digest(self, cloud: Array) -> str:
        """SHA-256 of inputs, true classes, and the classes that the cloud says: 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for name, array in (*sorted(self.inputs.items()), (LABEL, self.labels), ("cloud", cloud)):
            # Whole numbers of one size, whatever size a file or an endpoint has them in.
            values = np.ascontiguousarray(array if name in self.inputs else array.astype(np.int64))
            digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
            digest.update(values.data)
        return digest.hexdigest()


def read_labelled(path: str | PathLike[str], takes: Mapping[str, TensorType]) -> LabelledData:
    """Reads an `.npz` file as `hybridge convert --eval` does.

    For each input an array under its name, of shape (examples, ...), and the true classes under ``label``. Further
    arrays are left out with a note.

    Args:
        path: The file.
        takes: The type of each of a stage's inputs, before any preprocessing; where the first dimension is one example
            or a batch of any size, the axis of examples stands in its place.

    Raises:
        HybridgeError: `file-not-found`; `input-invalid` for a file that is no such archive; `data-invalid` for wrong
            names, shapes, types or lengths, no examples, or values that are not finite.
    """
    name = f"dataset '{Path(path).name}'"
    arrays = read_arrays(path, name=LABEL)
    wanted = [*takes, LABEL]
    if missing := [key for key in wanted if key not in arrays]:
        raise _invalid(
            name,
            received=f"arrays named {', '.join(sorted(arrays)) or 'nothing'}",
            expected=", ".join(wanted),
            fix=f"add {', '.join(missing)}, or name the arrays so",
        )
    labels = classes_of(name, arrays[LABEL], len(arrays[LABEL]) if arrays[LABEL].ndim else 0)
    given = {
        key: _rows(f"array '{key}' of {name}", arrays[key], kind, len(labels)) for key, kind in takes.items()
    }
    unused = sorted(arrays.keys() - set(wanted))
    return LabelledData(given, labels, (f"{name}: not used: {', '.join(unused)}",) if unused else ())


def read_predictions(path: str | PathLike[str], examples: int) -> Array:
    """The classes that a file says the cloud answers.

    An `.npz` file with integers of shape (examples,) under ``label``, or scores of shape (examples, classes) under
    ``probabilities``, ``logits`` or ``scores``, whose largest is the answer; or an `.npy` file with either.

    Args:
        path: The file.
        examples: How many answers there must be.

    Raises:
        HybridgeError: `file-not-found`, `input-invalid`, `data-invalid`.
    """
    name = f"predictions '{Path(path).name}'"
    arrays = read_arrays(path, name=LABEL)
    found = next((arrays[key] for key in (LABEL, *_SCORES) if key in arrays), None)
    if found is None:
        raise _invalid(
            name,
            received=f"arrays named {', '.join(sorted(arrays)) or 'nothing'}",
            expected=f"one named {', '.join((LABEL, *_SCORES))}",
            fix=f"name the predicted classes {LABEL}",
        )
    if found.ndim != 2:
        return classes_of(name, found, examples)
    if len(found) != examples or not found.shape[1] or not np.isfinite(found).all():
        raise _invalid(
            name,
            received=f"{found.dtype} of shape {found.shape}",
            expected=f"finite scores of shape ({examples}, classes)",
            fix="give one row for each example of the data, in its order",
        )
    best: Array = found.argmax(1)
    return best


def classes_of(name: str, values: Array, examples: int) -> Array:
    """The values, if they are a class for each example.

    Raises:
        HybridgeError: `data-invalid`.
    """
    if values.shape != (examples,) or not examples or values.dtype.kind not in "iu" or values.min() < 0:
        raise _invalid(
            f"array '{LABEL}' of {name}",
            received=f"{values.dtype} of shape {values.shape}",
            expected=f"the index of a class, an integer of shape ({examples or 'examples'},), for each example",
            fix="turn one-hot rows into indices with .argmax(1)",
        )
    return values


def _rows(what: str, array: Array, kind: TensorType, examples: int) -> Array:
    """An input's array with what one call takes in each row."""
    shape = kind.shape or ()
    batched = bool(shape) and (shape[0] == 1 or isinstance(shape[0], str))
    if batched and array.ndim == len(shape):
        array = array[:, np.newaxis]
    if not array.ndim or len(array) != examples:
        raise _invalid(
            what,
            received=f"shape {array.shape}",
            expected=f"{examples} examples, as many as labels",
            fix="give every array one row for each example",
        )
    dtype = "text" if array.dtype.kind == "U" else str(array.dtype)
    if Bindings().mismatch(kind, TensorType(dtype, array.shape[1:], items=False)):
        sizes = ", ".join(map(str, ("examples", *(shape[1:] if batched else shape))))
        raise _invalid(
            what,
            received=f"{dtype} of shape {array.shape}",
            expected=f"{kind.dtype} of shape ({sizes})",
            fix="cast or reshape it, or preprocess in the bundle",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        first = int(np.argwhere(~np.isfinite(array))[0][0])
        raise _invalid(
            what,
            received=f"values that are not finite, first in example {first}",
            expected="finite numbers",
            fix="drop or repair those examples",
        )
    return array


def _invalid(what: str, *, received: str, expected: str, fix: str) -> HybridgeError:
    return HybridgeError(ErrorCode.DATA_INVALID, what, received=received, expected=expected, fix=fix)
