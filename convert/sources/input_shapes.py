"""The shapes that a model's inputs are fixed at, as flags give them and as a conversion needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["parse_input", "pinned"]


def parse_input(text: str) -> tuple[str, tuple[int, ...]]:
    """Name and shape of an input from a flag such as ``image:1,224,224,3``; the name itself may hold colons.

    Raises:
        HybridgeError: `usage`.
    """
    name, separator, sizes = text.rpartition(":")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = ()
    if not (name and separator and shape) or min(shape) < 1:
        raise HybridgeError(
            ErrorCode.USAGE,
            "shape of an input",
            received=f"'{text}'",
            expected="a name and its whole shape, such as image:1,224,224,3",
            fix="give every dimension as a positive number, the batch first",
        )
    return name, shape


def pinned(
    inputs: tuple[TensorSpec, ...],
    batch_size: int,
    name: str,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> tuple[TensorSpec, ...]:
    """The inputs with every dimension fixed: those in `shapes` as it says, else the first one at `batch_size`.

    Args:
        inputs: What the model takes.
        batch_size: Size of the first dimension; that of `shapes` goes before it where it is 1.
        name: What to call the model in errors.
        shapes: Whole shapes, the batch included, by name of the input.

    Raises:
        HybridgeError: `source-invalid` for a dimension that is not known, or that is fixed at another size; `usage` for
            a shape of an input that is none, or for shapes of different batch sizes.
    """
    shapes = shapes or {}
    known = [spec.name for spec in inputs]
    if unknown := [each for each in shapes if each not in known]:
        raise HybridgeError(
            ErrorCode.USAGE,
            f"shapes for source model '{name}'",
            received=f"one for {', '.join(map(repr, unknown))}",
            expected=f"names among {', '.join(known)}",
            fix="name an input of the model",
        )
    batch_size = _batch_size(shapes, batch_size, name)
    return tuple(
        _given(spec, shapes[spec.name], name) if spec.name in shapes else _batched(spec, batch_size, name)
        for spec in inputs
    )


def _batch_size(shapes: Mapping[str, tuple[int, ...]], batch_size: int, name: str) -> int:
    # One is what the flag says when nobody gave it.
    sizes = {shape[0] for shape in shapes.values() if shape} | ({batch_size} if batch_size != 1 else set())
    if len(sizes) > 1:
        raise HybridgeError(
            ErrorCode.USAGE,
            f"shapes for source model '{name}'",
            received=f"batches of {', '.join(map(str, sorted(sizes)))}",
            expected="one batch size",
            fix="give every input the same first dimension, the batch size",
        )
    return sizes.pop() if sizes else batch_size


def _given(spec: TensorSpec, shape: tuple[int, ...], name: str) -> TensorSpec:
    if not spec.admits(shape):
        raise HybridgeError(
            ErrorCode.SOURCE_INVALID,
            _what(spec, name),
            received=f"the shape {_shown(shape)} for it",
            expected=_shown(spec.shape),
            fix="give its sizes where it has names, and its own sizes elsewhere",
        )
    return replace(spec, shape=shape)


def _batched(spec: TensorSpec, batch_size: int, name: str) -> TensorSpec:
    if any(isinstance(size, str) for size in spec.shape[1:]):
        example = ",".join(str(size if isinstance(size, int) else 224) for size in spec.shape[1:])
        raise HybridgeError(
            ErrorCode.SOURCE_INVALID,
            _what(spec, name),
            received=f"shape {_shown(spec.shape)}",
            expected="fixed sizes after the batch",
            fix=f"give its shape, such as --input {spec.name}:{batch_size},{example}",
        )
    if not spec.shape or spec.shape[0] not in ("batch", batch_size):
        raise HybridgeError(
            ErrorCode.SOURCE_INVALID,
            _what(spec, name),
            received=f"shape {_shown(spec.shape)}",
            expected=f"a first dimension that is the batch, of size {batch_size}",
            fix="convert it with the batch size that it has (--batch-size)",
        )
    return replace(spec, shape=(batch_size, *spec.shape[1:]))


def _what(spec: TensorSpec, name: str) -> str:
    return f"input '{spec.name}' of source model '{name}'"


def _shown(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
