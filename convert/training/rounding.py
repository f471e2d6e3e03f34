"""Quantisation-aware training: layers round as the converted ones will, and learn to live with it.

tfmot's own schemes know few kinds of layers, rebuild the graph by patterns, round dense kernels by one scale where the
conversion has one a channel, and begin activations at -6..6. Here its wrapper rounds each kernel on the grid of the
conversion, and each activation that the device stores by the range seen so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from convert.training.fitting import Fitting
from convert.training.kernels import Treated, layers_of
from convert.training.pruning import keep_zeros, share_of_zeros
from convert.training.rebuilding import Copy, rewired
from convert.training.rounding_config import Kept, make_config

__all__ = ["train_rounded"]

# Weights only adjust to the grid.
_SLOWER = 0.3
# Layers that the converter merges with the one before, so that what is between is never stored.
_MERGED = ("BatchNormalization", "ReLU")
_MERGED_ACTIVATIONS = ("relu", "relu6")
# Layers without kernels whose outputs have a range of their own.
_STORED = (
    *("BatchNormalization", "ReLU", "LeakyReLU", "PReLU", "ELU", "Activation", "Add", "Subtract", "Multiply"),
    *("Average", "Concatenate", "AveragePooling1D", "AveragePooling2D"),
    *("GlobalAveragePooling1D", "GlobalAveragePooling2D"),
)
# Functions whose range is fixed, or which the device computes in float.
_BOUNDED = ("softmax", "sigmoid", "tanh", "hard_sigmoid", "log_softmax")


def train_rounded(
    copy: Copy,
    treated: Treated,
    fitting: Fitting,
    *,
    bits: int,
    pruned: Mapping[int, str],
    clustered: Mapping[int, str],
) -> None:
    """Trains the copy in place.

    Args:
        copy: The model.
        treated: Whose kernels are rounded.
        fitting: How to train.
        bits: Of kernels: 8, activations then have 8 too; or 4, and activations stay float.
        pruned: Places of kernels whose zeros stay.
        clustered: Places of kernels whose values stay shared.
    """
    import tensorflow_model_optimization as tfmot

    place_of = {id(variable): place for place, variable in enumerate(copy.variables)}
    stored = _stored(copy.model) if bits == 8 else set()
    configs: list[Any] = []

    def wrapped(layer: Any) -> Any:
        attributes = treated.attributes.get(id(layer), ())
        kind = type(layer).__name__
        if not attributes and not (id(layer) in stored and kind in _STORED):
            return layer
        kept: dict[str, Kept] = {}
        for attribute in attributes:
            variable = getattr(layer, attribute)
            place = place_of[id(variable)]
            if place in clustered or place in pruned:
                kept[attribute] = Kept.of(variable, shared=place in clustered)
        configs.append(make_config(attributes, bits=bits, stored=id(layer) in stored, kept=kept))
        return tfmot.quantization.keras.QuantizeWrapperV2(layer, configs[-1])

    kernels = [copy.variables[place] for place in pruned]
    fitting.fit(
        rewired(copy.model, wrapped),
        "qat",
        sparsity=lambda: share_of_zeros([kernel.numpy() for kernel in kernels]),
        callbacks=keep_zeros(copy, [place for place in pruned if place not in treated.places]),
        slower=_SLOWER,
        later=bool(pruned or clustered),
    )
    for config in configs:
        config.settle()


def _stored(model: Any) -> set[int]:
    """Layers, by identity, whose output the device stores as numbers of 8 bits."""
    found = set()
    for _, layer in layers_of(model):
        output = layer.output if len(layer.inbound_nodes) == 1 else None
        if _is_bounded(layer) or not _is_float(output):
            continue
        after = [node.outbound_layer for node in layer.outbound_nodes]
        if len(after) == 1 and _is_merged(after[0]):
            continue
        found.add(id(layer))
    return found


def _is_merged(layer: Any) -> bool:
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    kind = type(layer).__name__
    return kind in _MERGED or (kind == "Activation" and name in _MERGED_ACTIVATIONS)


def _is_bounded(layer: Any) -> bool:
    return getattr(getattr(layer, "activation", None), "__name__", "") in _BOUNDED


def _is_float(output: Any) -> bool:
    return hasattr(output, "dtype") and np.dtype(output.dtype.as_numpy_dtype).kind == "f"
