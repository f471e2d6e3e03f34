"""Samples in arrays: `.npz` files and mappings."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from convert.data.dataset import LABEL, invalid
from convert.data.given import Given, slice_values
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["checked_labels", "from_mapping", "read_npz"]


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of an `.npz` file, by name.

    Raises:
        HybridgeError: `data-invalid` for a file that is none, or holds anything but plain arrays.
    """
    try:
        # Pickled objects run code when they are read; arrays of numbers need none.
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("a single array without a name")
            return {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise invalid(
            f"dataset '{path.name}'",
            received=f"{path.stat().st_size} bytes that are no .npz file of plain arrays ({error})",
            expected="an .npz file",
            fix="write it with numpy.savez",
        ) from error


def from_mapping(
    name: str, arrays: Mapping[str, Array], inputs: tuple[TensorSpec, ...], slices: tuple[str, ...]
) -> Given:
    """Samples from arrays with an axis of samples in front.

    Arrays that are neither an input, the labels nor a slice are left out with a note: files for evaluation carry more
    than a model takes. They are named in the error when an input is missing, for then one of them is likely it.

    Args:
        name: Of the dataset, for errors.
        arrays: By name.
        inputs: What the model takes.
        slices: Names of arrays that group samples.

    Raises:
        HybridgeError: `data-invalid` for missing arrays, different lengths, no samples, or labels that are none.
    """
    names = [spec.name for spec in inputs]
    arrays = {str(key): np.asarray(array) for key, array in arrays.items()}
    wanted = tuple(key for key in slices if key != LABEL)
    known = {*names, *wanted, LABEL}
    unused = sorted(arrays.keys() - known)
    if missing := [key for key in (*names, *wanted) if key not in arrays]:
        raise invalid(
            name,
            received=f"arrays named {', '.join(sorted(arrays)) or 'nothing'}",
            expected=f"{', '.join(dict.fromkeys((*names, *wanted)))}, and optionally {LABEL}",
            fix="name each array as the model names its input"
            if set(missing) & set(names)
            else f"add {', '.join(missing)}, or leave out --slice {missing[0]}",
        )
    labels = None if LABEL in names else arrays.get(LABEL)
    used = {key: arrays[key] for key in dict.fromkeys((*names, *wanted))}
    if labels is not None:
        used[LABEL] = labels
    samples = _count(name, used)
    return Given(
        name,
        columns={key: arrays[key] for key in names},
        labels=None if labels is None else checked_labels(name, labels),
        slices={key: slice_values(name, key, arrays[key], samples) for key in wanted},
        notes=_unused_note(name, unused, {key: arrays[key] for key in unused}, samples),
    )


def checked_labels(name: str, labels: Array) -> Array:
    """The labels, if they are class indices.

    Raises:
        HybridgeError: `data-invalid`.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise invalid(
            f"array '{LABEL}' of {name}",
            received=f"{labels.dtype} of shape {labels.shape}",
            expected="for each sample the index of its class, integers of shape (samples,)",
            fix="turn one-hot rows into indices with .argmax(1)",
        )
    return labels


def _unused_note(name: str, unused: list[str], arrays: Mapping[str, Array], samples: int) -> tuple[str, ...]:
    if not unused:
        return ()
    note = f"{name}: not used: {', '.join(unused)}"
    groups = [
        key for key, array in arrays.items() if array.shape == (samples,) and array.dtype.kind in "iubUS"
    ]
    if groups:
        note += f" (--slice {groups[0]} breaks accuracy down by it; the truth must be named {LABEL})"
    return (note,)


def _count(name: str, arrays: Mapping[str, Array]) -> int:
    lengths = {key: len(array) if array.ndim else -1 for key, array in arrays.items()}
    if len(set(lengths.values())) > 1 or -1 in lengths.values():
        raise invalid(
            name,
            received=", ".join(
                f"{key} with {'no' if length < 0 else length} samples" for key, length in lengths.items()
            ),
            expected="as many samples in each",
            fix="give every array one row for each sample",
        )
    samples = next(iter(lengths.values()))
    if samples == 0:
        raise invalid(name, received="no samples", expected="at least one", fix="fill it")
    return samples
