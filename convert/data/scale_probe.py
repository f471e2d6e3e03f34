"""What a Keras model itself tells about the scale of its input."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_runtime.tensor_spec import Array

__all__ = ["ScaleProbe", "probe_scale"]

# Channels of a dead filter tell nothing.
_DEAD = 1e-8
_NORMALIZING = ("BatchNormalization", "Normalization")


@dataclass(frozen=True)
class ScaleProbe:
    """What was seen while the model ran on some samples.

    Attributes:
        norm_ratio: Standard deviation of what reaches the first normalisation over that of its training data, the
            median of its channels; None without one.
        seen: Smallest and largest value that the first layer with weights of its own gets.
        scales_itself: Whether that is something else than the input.
    """

    norm_ratio: float | None = None
    seen: tuple[float, float] | None = None
    scales_itself: bool = False


def probe_scale(model: Any, name: str, samples: Array) -> ScaleProbe:
    """Runs the model on samples and looks at what its first layers get.

    Works on whatever Keras runs layer by layer: functional, sequential, nested and subclassed models of Keras 3 and
    `tf_keras`. A model that cannot be run so tells nothing.

    Args:
        model: A Keras model with one input.
        name: Of the input.
        samples: Shape (samples, ...).
    """
    seen: list[tuple[Any, Array]] = []
    try:
        layers = [layer for layer in model._flatten_layers() if layer.weights and not _has_parts(layer)]
        with _watched(layers, seen):
            _run(model, name, samples)
    except Exception:
        # The model's own code, which raises what it likes; a warning is not worth an error, the conversion will say it.
        return ScaleProbe()
    ratio = next((_ratio(layer, got) for layer, got in seen if _normalizes(layer)), None)
    first = next((got for layer, got in seen if _kind(layer) != "Normalization"), None)
    if first is None:
        return ScaleProbe(norm_ratio=ratio)
    low, high = float(first.min()), float(first.max())
    given = float(samples.min()), float(samples.max())
    # Padding with zeros, flattening and the like leave the ends of the range where they are.
    same = np.allclose((min(low, 0.0), max(high, 0.0)), (min(given[0], 0.0), max(given[1], 0.0)), rtol=1e-3)
    return ScaleProbe(norm_ratio=ratio, seen=(low, high), scales_itself=not same)


@contextmanager
def _watched(layers: list[Any], seen: list[tuple[Any, Array]]) -> Iterator[None]:
    """Keeps what each layer gets, until the first normalisation has been reached."""
    for layer in layers:
        # Around Keras's own attribute tracking, which would take the function for a part of the model.
        object.__setattr__(layer, "call", _watching(layer, layer.call, seen))
    try:
        yield
    finally:
        for layer in layers:
            object.__delattr__(layer, "call")


def _watching(layer: Any, call: Any, seen: list[tuple[Any, Array]]) -> Any:
    def watching(given: Any, *arguments: Any, **keywords: Any) -> Any:
        if hasattr(given, "numpy") and not any(_normalizes(other) for other, _ in seen):
            seen.append((layer, np.asarray(given)))
        return call(given, *arguments, **keywords)

    return watching


def _run(model: Any, name: str, samples: Array) -> None:
    structure = getattr(model, "_inputs_struct", None)
    if structure is None:
        structure = getattr(model, "_nested_inputs", None)
    fixed = model.inputs[0].shape[0] if getattr(model, "inputs", None) else None
    batch = samples if fixed is None else samples[np.arange(fixed) % len(samples)]
    given = (
        {name: batch} if isinstance(structure, Mapping) else [batch] if isinstance(structure, list) else batch
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model(given, training=False)


def _ratio(layer: Any, got: Array) -> float | None:
    if _kind(layer) == "Normalization":
        axis, mean, variance = layer.axis, np.asarray(layer.mean), np.asarray(layer.variance)
    else:
        axis, mean, variance = layer.axis, np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
    kept = {each % got.ndim for each in (axis if isinstance(axis, list | tuple) else (axis,))}
    others = tuple(each for each in range(got.ndim) if each not in kept)
    spread = got.std(axis=others, dtype=np.float64).ravel()
    wanted = np.sqrt(variance.ravel().astype(np.float64))
    if mean.size != spread.size or not (alive := wanted > _DEAD).any():
        return None
    return float(np.median(spread[alive] / wanted[alive]))


def _normalizes(layer: Any) -> bool:
    return _kind(layer) in _NORMALIZING


def _kind(layer: Any) -> str:
    """The name of the layer's class, or of the normalisation that it is a kind of."""
    names = [each.__name__ for each in type(layer).__mro__]
    return next((name for name in names if name in _NORMALIZING), names[0])


def _has_parts(layer: Any) -> bool:
    return len(list(layer._flatten_layers())) > 1
