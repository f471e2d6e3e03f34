"""The shapes that a model's inputs are fixed at, as flags give them and as a conversion needs them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

from convert.batch import batch_of
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["Shape", "freed", "parse_input", "pinned"]

Shape: TypeAlias = tuple[int | str, ...]
"""A whole shape; a dimension that stays free is given by its name and a size, such as ``width=320``."""

# What a first dimension that may vary is called everywhere.
_BATCH = "batch"


def parse_input(text: str) -> tuple[str, Shape]:
    """Name and shape of an input from a flag such as ``image:1,224,224,3``; the name itself may hold colons.

    A dimension such as ``width=320`` stays free under that name, and is 320 where the conversion has to choose.

    Raises:
        HybridgeError: `usage`.
    """
    name, separator, sizes = text.rpartition(":")
    shape = tuple(int(size) if size.isdecimal() else size for size in map(str.strip, sizes.split(",")))
    if not (name and separator and all(map(_is_size, shape))):
        raise HybridgeError(
            ErrorCode.USAGE,
            "shape of an input",
            received=f"'{text}'",
            expected="a name and its whole shape, such as image:1,224,224,3",
            fix="give every dimension as a positive number, the batch first, or as name=number to keep it free",
        )
    return name, shape


def _is_size(size: int | str) -> bool:
    if isinstance(size, str):
        return re.fullmatch(r"[A-Za-z_]\w*=[1-9][0-9]*", size) is not None
    return size > 0


def _is_named(size: int | str) -> bool:
    """Whether a dimension has a name of its own, and not one for its place, which says nothing of other inputs."""
    return isinstance(size, str) and re.fullmatch(r"dim\d+", size) is None


def _chosen(shape: Shape) -> tuple[int, ...]:
    return tuple(int(size.partition("=")[2]) if isinstance(size, str) else size for size in shape)


def freed(
    inputs: tuple[TensorSpec, ...], fixed: tuple[TensorSpec, ...], shapes: Mapping[str, Shape] | None = None
) -> tuple[TensorSpec, ...]:
    """What the converted model takes: the fixed inputs, with the dimensions free that `shapes` names.

    Args:
        inputs: What the source takes.
        fixed: What `pinned` made of them.
        shapes: As for `pinned`; a dimension given as ``name=size`` is free, in every input in which the source calls it
            the same.
    """
    names: dict[tuple[str, int] | str, str] = {}
    for spec in inputs:
        for axis, (size, given) in enumerate(
            zip(spec.shape, (shapes or {}).get(spec.name, ()), strict=False)
        ):
            if isinstance(given, str) and isinstance(size, str):
                names[spec.name, axis] = given.partition("=")[0]
                if _is_named(size):
                    names[size] = names[spec.name, axis]
    return tuple(
        replace(
            each,
            shape=tuple(
                names.get((spec.name, axis)) or (names.get(size) if isinstance(size, str) else None) or chosen
                for axis, (size, chosen) in enumerate(zip(spec.shape, each.shape, strict=True))
            ),
        )
        for spec, each in zip(inputs, fixed, strict=True)
    )


def pinned(
    inputs: tuple[TensorSpec, ...],
    batch_size: int,
    name: str,
    shapes: Mapping[str, Shape] | None = None,
) -> tuple[TensorSpec, ...]:
    """The inputs with every dimension fixed: those in `shapes` as it says, else the batch at `batch_size`.

    A dimension that has the same name in several inputs gets the same size in all.

    Args:
        inputs: What the model takes.
        batch_size: Size of the batch; that of `shapes` goes before it where it is 1.
        name: What to call the model in errors.
        shapes: Whole shapes, the batch included, by name of the input; of a free dimension, the size that is chosen.

    Raises:
        HybridgeError: `source-invalid` for a dimension that is not known, or that is fixed at another size; `usage` for
            a shape of an input that is none, or for shapes that contradict each other.
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
    chosen = {each: _chosen(shape) for each, shape in shapes.items()}
    given = {spec.name: _given(spec, chosen[spec.name], name) for spec in inputs if spec.name in chosen}
    sizes = _named_sizes(inputs, chosen, batch_size, name)
    batched = batch_of(inputs) is not None
    return tuple(
        given[spec.name] if spec.name in given else _sized(spec, sizes, name, batched=batched)
        for spec in inputs
    )


def _named_sizes(
    inputs: tuple[TensorSpec, ...], shapes: Mapping[str, tuple[int, ...]], batch_size: int, name: str
) -> dict[str, int]:
    """Sizes of dimensions by their names, as given shapes and the batch size say them."""
    sizes: dict[str, set[int]] = {}
    batched = batch_of(inputs) is not None
    for spec in inputs:
        for axis, (size, given) in enumerate(zip(spec.shape, shapes.get(spec.name, ()), strict=False)):
            if (batched and axis == 0) or _is_named(size):
                sizes.setdefault(_BATCH if batched and axis == 0 else str(size), set()).add(given)
    if batch_size != 1:  # one is what the flag says when nobody gave it
        sizes.setdefault(_BATCH, set()).add(batch_size)
    sizes.setdefault(_BATCH, {batch_size})
    for dimension, several in sizes.items():
        if len(several) > 1:
            shown = ", ".join(map(str, sorted(several)))
            batch = dimension == _BATCH
            raise HybridgeError(
                ErrorCode.USAGE,
                f"shapes for source model '{name}'",
                received=f"batches of {shown}" if batch else f"{shown} for its dimension '{dimension}'",
                expected="one batch size" if batch else "one size for each dimension",
                fix="give every input the same first dimension, the batch size"
                if batch
                else "give the dimension the same size in every input that has it",
            )
    return {dimension: several.pop() for dimension, several in sizes.items()}


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


def _sized(spec: TensorSpec, sizes: Mapping[str, int], name: str, *, batched: bool) -> TensorSpec:
    batch_size = sizes[_BATCH]
    shape = tuple(sizes.get(size, size) if isinstance(size, str) else size for size in spec.shape)
    if any(isinstance(size, str) for size in shape):
        example = ",".join(str(size if isinstance(size, int) else 224) for size in shape)
        raise HybridgeError(
            ErrorCode.SOURCE_INVALID,
            _what(spec, name),
            received=f"shape {_shown(spec.shape)}",
            expected="fixed sizes after the batch",
            fix=f"give its shape, such as --input {spec.name}:{example}",
        )
    if batched and shape[0] != batch_size:
        raise HybridgeError(
            ErrorCode.SOURCE_INVALID,
            _what(spec, name),
            received=f"shape {_shown(spec.shape)}",
            expected=f"a first dimension that is the batch, of size {batch_size}",
            fix="convert it with the batch size that it has (--batch-size)",
        )
    return replace(spec, shape=shape)


def _what(spec: TensorSpec, name: str) -> str:
    return f"input '{spec.name}' of source model '{name}'"


def _shown(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
