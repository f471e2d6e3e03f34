"""Datasets for calibration and evaluation: arrays named as the model's inputs, with an axis of samples in front."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.manifest import RawInput
from edge_runtime.preprocessing import Preprocessor
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["LABEL", "DataSource", "Dataset", "generate", "load_dataset"]

LABEL = "label"

DataSource: TypeAlias = Mapping[str, Array] | str | PathLike[str]


@dataclass(frozen=True)
class Dataset:
    """Samples that a model can take as they are.

    Attributes:
        inputs: For each input an array of shape (samples, ...).
        labels: For each sample the index of its true class, shape (samples,), where it is known.
        digest: SHA-256 of the inputs as they were given, before any preprocessing; 64 hexadecimal digits.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    digest: str

    def __len__(self) -> int:
        """The number of samples."""
        return len(next(iter(self.inputs.values())))

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """The inputs, `size` samples at a time; the last batch is filled up with its last sample."""
        for start in range(0, len(self), size):
            index = np.minimum(np.arange(start, start + size), len(self) - 1)
            yield {name: array[index] for name, array in self.inputs.items()}


def load_dataset(
    source: DataSource, inputs: tuple[TensorSpec, ...], preprocessing: tuple[RawInput, ...] = ()
) -> Dataset:
    """Reads samples from an `.npz` file or a mapping, and checks them against what a model takes.

    Args:
        source: For each input an array of shape (samples, ...) under the input's name, and optionally the true classes
            under ``label``, integers of shape (samples,).
        inputs: What the model takes; the first dimension is the batch.
        preprocessing: For inputs that are given raw, what one call takes and the steps that follow.

    Raises:
        HybridgeError: `file-not-found`; `data-invalid` for a file that is no `.npz`, wrong names, shapes, types or
            lengths, no samples, or values that are not finite.
    """
    name, arrays = _read(source)
    raw = {each.name: each for each in preprocessing}
    specs = {spec.name: spec for spec in inputs}
    labels = None if LABEL in specs else arrays.pop(LABEL, None)
    if arrays.keys() != specs.keys():
        raise _invalid(
            name,
            received=f"arrays named {', '.join(sorted(arrays)) or 'nothing'}",
            expected=f"{', '.join(specs)}, and optionally {LABEL}",
            fix="name each array as the model names its input",
        )
    samples = _count(name, arrays, labels)
    for key, array in arrays.items():
        takes = raw[key].takes if key in raw else specs[key]
        _check(f"array '{key}' of {name}", array, _shapes(takes, is_raw=key in raw), takes.dtype)
    ordered = {key: arrays[key] for key in specs}
    digest = _digest(ordered)
    if preprocessing:
        ordered = _preprocessed(name, ordered, specs, preprocessing, samples)
    return Dataset(ordered, None if labels is None else _checked_labels(name, labels), digest)


def generate(
    inputs: tuple[TensorSpec, ...], samples: int, preprocessing: tuple[RawInput, ...] = (), *, seed: int = 0
) -> Dataset:
    """Random inputs for a model whose data is not at hand, the same for the same seed.

    Floats are standard normal; bytes have their whole range; other integers are 0 or 1, which every vocabulary has.

    Args:
        inputs: What the model takes; the first dimension is the batch.
        samples: How many.
        preprocessing: As for `load_dataset`; a raw input whose size may vary is generated as the model takes it.
        seed: Of the generator.

    Raises:
        HybridgeError: `data-invalid` for a type that cannot be generated, such as text, or for preprocessing that
            does not make what the model takes.
    """
    random = np.random.default_rng(seed)
    used = tuple(each for each in preprocessing if not each.takes.is_dynamic)
    raw = {each.name: each.takes for each in used}
    made: dict[str, Array] = {}
    for spec in inputs:
        takes = raw.get(spec.name, spec)
        size = tuple(int(each) for each in (samples, *_shapes(takes, is_raw=spec.name in raw)[0]))
        made[spec.name] = _random_array(random, takes, size)
    digest = _digest(made)
    specs = {spec.name: spec for spec in inputs}
    return Dataset(
        _preprocessed("generated data", made, specs, used, samples) if used else made, None, digest
    )


def _random_array(random: np.random.Generator, spec: TensorSpec, size: tuple[int, ...]) -> Array:
    if spec.dtype.startswith(("float", "bfloat")):
        return random.standard_normal(size).astype(spec.dtype)
    if spec.dtype.startswith(("int", "uint", "bool")):
        return random.integers(0, 256 if spec.dtype == "uint8" else 2, size).astype(spec.dtype)
    raise _invalid(
        "generated data",
        received=f"input '{spec.name}' of type {spec.dtype}",
        expected="floats, integers or booleans",
        fix="give real data to compare the models on",
    )


def _read(source: DataSource) -> tuple[str, dict[str, Array]]:
    if isinstance(source, Mapping):
        return "dataset", {str(name): np.asarray(array) for name, array in source.items()}
    path = Path(fspath(source))
    if not path.is_file():
        raise HybridgeError(
            ErrorCode.FILE_NOT_FOUND,
            f"dataset '{path}'",
            expected="a readable .npz file",
            fix="check the path",
        )
    name = f"dataset '{path.name}'"
    try:
        # Pickled objects run code when they are read; arrays of numbers need none.
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("a single array without a name")
            return name, {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise _invalid(
            name,
            received=f"{path.stat().st_size} bytes that are no .npz file of plain arrays ({error})",
            expected="an .npz file",
            fix="write it with numpy.savez",
        ) from error


def _count(name: str, arrays: Mapping[str, Array], labels: Array | None) -> int:
    lengths = {key: len(array) if array.ndim else -1 for key, array in arrays.items()}
    if labels is not None:
        lengths[LABEL] = len(labels) if labels.ndim else -1
    if len(set(lengths.values())) > 1 or -1 in lengths.values():
        raise _invalid(
            name,
            received=", ".join(
                f"{key} with {'no' if length < 0 else length} samples" for key, length in lengths.items()
            ),
            expected="as many samples in each",
            fix="give every array one row for each sample",
        )
    samples = next(iter(lengths.values()))
    if samples == 0:
        raise _invalid(name, received="no samples", expected="at least one", fix="fill it")
    return samples


def _shapes(takes: TensorSpec, *, is_raw: bool) -> list[tuple[int | str, ...]]:
    """The shapes that one sample may have."""
    without_batch = takes.shape[1:]
    if not is_raw:
        return [without_batch]
    # A raw input may be described with a batch of one or without; the axis of samples then stands in its place.
    return [takes.shape, without_batch] if takes.shape[:1] == (1,) else [takes.shape]


def _check(what: str, array: Array, shapes: list[tuple[int | str, ...]], dtype: str) -> None:
    if str(array.dtype) != dtype:
        raise _invalid(
            what, received=str(array.dtype), expected=dtype, fix=f"cast it with .astype('{dtype}')"
        )
    if not any(TensorSpec(name="", shape=shape, dtype=dtype).admits(array.shape[1:]) for shape in shapes):
        raise _invalid(
            what,
            received=f"shape {array.shape}",
            expected=f"shape ({', '.join(map(str, ('samples', *shapes[-1])))})",
            fix="reshape it",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        sample = int(np.argwhere(~np.isfinite(array))[0][0])
        raise _invalid(
            what,
            received=f"values that are not finite, first in sample {sample}",
            expected="finite numbers",
            fix="drop or repair those samples",
        )


def _checked_labels(name: str, labels: Array) -> Array:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise _invalid(
            f"array '{LABEL}' of {name}",
            received=f"{labels.dtype} of shape {labels.shape}",
            expected="for each sample the index of its class, integers of shape (samples,)",
            fix="turn one-hot rows into indices with .argmax(1)",
        )
    return labels


def _preprocessed(
    name: str,
    arrays: Mapping[str, Array],
    specs: Mapping[str, TensorSpec],
    preprocessing: tuple[RawInput, ...],
    samples: int,
) -> dict[str, Array]:
    preprocess = Preprocessor(preprocessing)
    # Raw samples whose description has no batch lose the axis of samples.
    bare = {each.name for each in preprocessing if len(each.takes.shape) == arrays[each.name].ndim - 1}
    rows: dict[str, list[Array]] = {key: [] for key in arrays}
    for index in range(samples):
        one = {
            key: array[index] if key in bare else array[index : index + 1] for key, array in arrays.items()
        }
        for key, tensor in preprocess(one).items():
            spec = specs[key]
            if str(tensor.dtype) != spec.dtype or tensor.shape[:1] != (1,) or not spec.admits(tensor.shape):
                raise _invalid(
                    f"preprocessing of '{key}' in {name}",
                    received=f"{tensor.dtype} of shape {tensor.shape}",
                    expected=f"{spec.dtype} of shape ({', '.join(map(str, (1, *spec.shape[1:])))})",
                    fix="change its steps, for example with cast, reshape or expand-dims",
                )
            rows[key].append(tensor)
    return {key: np.concatenate(tensors) for key, tensors in rows.items()}


def _digest(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _invalid(what: str, *, received: str, expected: str, fix: str) -> HybridgeError:
    return HybridgeError(ErrorCode.DATA_INVALID, what, received=received, expected=expected, fix=fix)
