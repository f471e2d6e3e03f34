"""Samples that a user's function yields: `module:function`."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from convert.data.arrays import checked_labels
from convert.data.dataset import LABEL, invalid
from convert.data.given import Given, slice_values
from edge_runtime.errors import HybridgeError
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["MOST_SAMPLES", "is_function", "read_function"]

MOST_SAMPLES = 10_000
"""How many samples are taken from a function when no limit is given; it may yield for ever."""


def is_function(source: str) -> bool:
    """Whether text names a function of a module."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", source) is not None


def read_function(
    source: str, inputs: tuple[TensorSpec, ...], slices: tuple[str, ...], limit: int | None
) -> Given:
    """Calls a function without arguments and takes what it yields: one dictionary a sample.

    A sample has an array for each input, without the batch axis, and optionally ``label``, the index of its class, and
    a value for each slice. Modules of the current folder can be named.

    Args:
        source: ``module:function``.
        inputs: What the model takes.
        slices: Names of values that group samples.
        limit: How many samples to take, at most `MOST_SAMPLES` without it.

    Raises:
        HybridgeError: `data-invalid` for what cannot be imported, raises, or yields anything else.
    """
    name = f"dataset '{source}'"
    most = MOST_SAMPLES if limit is None else limit
    names = [spec.name for spec in inputs]
    groups = [key for key in slices if key not in names and key != LABEL]
    samples: list[dict[str, Array]] = []
    notes: tuple[str, ...] = ()
    with _current_folder_importable():
        for sample in _yielded(name, _function(name, source)):
            if len(samples) == most:
                if limit is None:
                    notes = (f"{name}: used its first {most:,} samples; it yields more",)
                break
            samples.append(_checked(name, len(samples), sample, names, groups, samples))
    if not samples:
        raise invalid(name, received="no samples", expected="at least one", fix="yield some")
    labels = None
    if LABEL not in names and LABEL in samples[0]:
        labels = checked_labels(name, np.stack([sample[LABEL] for sample in samples]))
    return Given(
        name,
        columns={key: [sample[key] for sample in samples] for key in names},
        labels=labels,
        slices={
            key: slice_values(name, key, np.stack([sample[key] for sample in samples]), len(samples))
            for key in slices
            if key != LABEL
        },
        notes=notes,
    )


@contextlib.contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = os.getcwd()
    sys.path.insert(0, folder)
    # A file may have been written since this folder was last looked through.
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # A module may have changed the path as well.
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _function(name: str, source: str) -> Any:
    module, _, function = source.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except Exception as error:
        # Importing a module runs it, and that may raise anything.
        raise invalid(
            name,
            received=f"{type(error).__name__}: {error}",
            expected="module:function, a module that can be imported and a function of it",
            fix="run it in the module's folder, or install the module",
        ) from error


def _yielded(name: str, function: Any) -> Iterator[Any]:
    expected, fix = (
        "a function without arguments that yields a dictionary a sample",
        "see what it does when called",
    )
    try:
        result = function()
        if isinstance(result, Mapping | str | bytes) or not isinstance(result, Iterable):
            raise invalid(
                name, received=f"a function that returns {_kind(result)}", expected=expected, fix=fix
            )
        yield from result
    except HybridgeError:
        raise
    except Exception as error:
        # The user's code, which may raise anything.
        received = f"a function that raised {type(error).__name__}: {error}"
        raise invalid(name, received=received, expected=expected, fix=fix) from error


def _checked(
    name: str, index: int, sample: Any, names: list[str], groups: list[str], before: list[dict[str, Array]]
) -> dict[str, Array]:
    """What is used of one sample, as arrays."""
    needed = [*names, *groups]
    if not isinstance(sample, Mapping) or any(key not in sample for key in needed):
        keys = ", ".join(map(str, sample)) if isinstance(sample, Mapping) else None
        raise invalid(
            f"sample {index} of {name}",
            received=_kind(sample) if keys is None else f"a dictionary with {keys or 'nothing'}",
            expected=f"a dictionary with {', '.join(needed)}, and optionally {LABEL}",
            fix="yield one dictionary a sample, with arrays named as the model's inputs",
        )
    used = {key: np.asarray(sample[key]) for key in (*needed, LABEL) if key in sample}
    if before and used.keys() != before[0].keys():
        raise invalid(
            f"sample {index} of {name}",
            received=f"{'a' if LABEL in used else 'no'} {LABEL}",
            expected=f"{LABEL} in all samples or in none",
            fix="label every sample",
        )
    if LABEL in used and LABEL not in names and used[LABEL].shape != ():
        raise invalid(
            f"{LABEL} of sample {index} of {name}",
            received=f"shape {used[LABEL].shape}",
            expected="one number, the index of its class",
            fix="turn one-hot rows into indices with .argmax()",
        )
    for key in groups:
        if used[key].shape != ():
            raise invalid(
                f"'{key}' of sample {index} of {name}",
                received=f"shape {used[key].shape}",
                expected="one number or text",
                fix="give each sample one group",
            )
    return used


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return "nothing" if value is None else f"a {type(value).__name__}"
