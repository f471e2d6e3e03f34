"""Which weights of a model a part of a training treats, and why it leaves others as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from convert.training.messages import Part
from convert.training.rebuilding import Copy

__all__ = ["Treated", "find_kernels", "kernels_of", "layers_of"]

_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_CELL = ("cell.kernel", "cell.recurrent_kernel")
# Kernels of each kind of layer, as attributes. Depthwise ones are left out: a channel has few weights, and needs them.
_KERNELS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_CONVOLUTIONS, ("kernel",)),
    "Dense": ("kernel",),
    "EinsumDense": ("kernel",),
    "Embedding": ("embeddings",),
    "SeparableConv1D": ("pointwise_kernel",),
    "SeparableConv2D": ("pointwise_kernel",),
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN"), _CELL),
    "Bidirectional": tuple(f"{way}_layer.{name}" for way in ("forward", "backward") for name in _CELL),
    "MultiHeadAttention": tuple(f"_{name}_dense.kernel" for name in ("query", "key", "value", "output")),
}
# Those of which tfmot clusters all kernels.
_CLUSTERED = (*_CONVOLUTIONS, "Dense", "Embedding", "SeparableConv1D", "SeparableConv2D")
# 2:4 looks along the inputs of a neuron, which come in fours.
_STRUCTURED = ("Dense", "Conv2D")
# Rounded in training, and what of them; the rest computes otherwise on a device than a layer shows.
_ROUNDED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_CONVOLUTIONS, ("kernel",)),
    "Dense": ("kernel",),
    "DepthwiseConv1D": ("depthwise_kernel",),
    "DepthwiseConv2D": ("depthwise_kernel",),
    "Embedding": ("embeddings",),
    "SeparableConv1D": ("depthwise_kernel", "pointwise_kernel"),
    "SeparableConv2D": ("depthwise_kernel", "pointwise_kernel"),
}
# Smaller kernels save nothing that a file would show, and have nothing to spare.
_SMALLEST = 1024
# Weights that are no products with a layer's inputs.
_NO_KERNELS = ("bias", "gamma", "beta", "alpha")


@dataclass(frozen=True)
class Treated:
    """What a part treats.

    Attributes:
        attributes: For each layer, by identity, its kernels' attributes.
        places: Places of the kernels among the source's weights, with the name of their layer.
        skipped: Layers with kernels that are left as they are, and why.
    """

    attributes: Mapping[int, tuple[str, ...]]
    places: Mapping[int, str]
    skipped: Mapping[str, str]


def find_kernels(copy: Copy, part: Part, *, skip: Sequence[str] = (), structured: bool = False) -> Treated:
    """What of a model a part treats.

    Args:
        copy: The model, whose layers nothing wraps yet.
        part: What it is to be trained for.
        skip: Patterns of layers to leave as they are.
        structured: Whether pruning is to zero two of four.
    """
    kinds = _ROUNDED if part == "qat" else _KERNELS
    place_of = {id(variable): place for place, variable in enumerate(copy.variables)}
    attributes: dict[int, tuple[str, ...]] = {}
    places: dict[int, str] = {}
    skipped: dict[str, str] = {}
    for name, layer in layers_of(copy.model):
        if not any(_is_kernel(weight) for weight in layer.weights):
            continue
        names = kinds.get(type(layer).__name__, ())
        kernels = kernels_of(layer, names)
        reason = _reason(name, layer, kernels, part, skip, structured)
        if reason:
            skipped[name] = reason
            continue
        attributes[id(layer)] = names
        places |= {place_of[id(kernel)]: name for kernel in kernels}
    return Treated(attributes, places, skipped)


def kernels_of(layer: Any, attributes: Sequence[str]) -> list[Any]:
    """The variables behind these attributes."""
    return [attrgetter(attribute)(layer) for attribute in attributes]


def layers_of(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All layers, those of models inside under these models' names."""
    import tf_keras

    for layer in model.layers:
        if isinstance(layer, tf_keras.Model):
            yield from layers_of(layer, f"{prefix}{layer.name}/")
        else:
            yield f"{prefix}{layer.name}", layer


def _reason(
    name: str, layer: Any, kernels: Sequence[Any], part: Part, skip: Sequence[str], structured: bool
) -> str | None:
    kind = type(layer).__name__
    if any(re.search(pattern, name) for pattern in skip):
        return "named by skip"
    if not kernels:
        return f"{kind} is not treated by {part}"
    if part == "qat":
        return None
    if part == "cluster" and kind not in _CLUSTERED:
        return f"tfmot does not cluster {kind}"
    if structured and kind not in _STRUCTURED:
        return f"2:4 is for {' and '.join(_STRUCTURED)}, not {kind}"
    if structured and kernels[0].shape[-2] % 4:
        return f"{kernels[0].shape[-2]} inputs, which are no fours"
    if (size := sum(int(kernel.shape.num_elements()) for kernel in kernels)) < _SMALLEST:
        return f"only {size} weights"
    return None


def _is_kernel(weight: Any) -> bool:
    return len(weight.shape) >= 2 and not weight.name.rpartition("/")[2].startswith(_NO_KERNELS)
