"""Data on another scale than the model's, or than other data: 0..255 where 0..1 is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from convert.data.dataset import Dataset
from convert.data.scale_probe import ScaleProbe, probe_scale
from edge_runtime.tensor_spec import Array

__all__ = ["scale_warnings"]

# Ranges of two samplings of the same data, and spreads of a model's training data and of new data, differ by less.
_FACTOR = 8.0
# Samples from which a range's sign can be told.
_ENOUGH = 16
_LOOKED_AT = 32
# Ends of the ranges that people scale images to.
_USUAL = (1.0, 255.0)


def scale_warnings(
    calibration: Dataset | None,
    evaluation: Dataset | None,
    training: Dataset | None,
    *,
    model: Any | None = None,
) -> list[str]:
    """What about the scale of data looks wrong, a sentence each.

    Two things are looked at: whether datasets differ from one another, and whether they are what the model was trained
    on. The model itself tells that in its first batch normalisation, whose moving mean and variance are those of its
    training data (Ioffe and Szegedy, 2015), or in layers that scale its input. Without such evidence, only images in
    0..255 as floats are worth a mild warning.

    Args:
        calibration: Representative samples, if given.
        evaluation: Samples to judge by, if given.
        training: Samples to fine-tune on, if given.
        model: The source's Keras model, of Keras 3 or `tf_keras`, if it is one.
    """
    named = {
        name: data
        for name, data in (
            ("representative", calibration),
            ("evaluation", evaluation),
            ("training", training),
        )
        if data is not None
    }
    if not named:
        return []
    warnings = []
    for key, array in next(iter(named.values())).inputs.items():
        if array.dtype.kind != "f":
            continue
        ranges = {name: _Range.of(data.inputs[key]) for name, data in named.items()}
        differing = [
            f"input '{key}' is {ranges[one]} in the {one} data and {ranges[other]} in the {other} data; "
            "scale both as in training"
            for one, other in combinations(ranges, 2)
            if ranges[one].differs(ranges[other], is_image=_is_image(array))
        ]
        # Data that is all alike is judged once.
        judged = named if differing else dict(list(named.items())[:1])
        warnings += differing
        for name, data in judged.items():
            what = f"input '{key}' of the {name} data" if len(named) > 1 else f"input '{key}'"
            if warning := _judged(what, key, data, ranges[name], model):
                warnings.append(warning)
    return warnings


@dataclass(frozen=True)
class _Range:
    """Smallest and largest value of so many samples."""

    low: float
    high: float
    samples: int

    @classmethod
    def of(cls, array: Array) -> _Range:
        return cls(float(array.min()), float(array.max()), len(array))

    @property
    def span(self) -> float:
        return self.high - self.low

    def differs(self, other: _Range, *, is_image: bool) -> bool:
        """Whether the two cannot be of the same data on the same scale."""
        narrow, wide = sorted((self.span, other.span))
        if wide > _FACTOR * narrow or self.low > other.high or other.low > self.high:
            return True
        if not is_image or min(self.samples, other.samples) < _ENOUGH:
            return False
        # 0..1 beside -1..1: black is at zero in one, and grey in the other.
        first, second = sorted((self, other), key=lambda each: each.low)
        return second.low >= 0 and first.low < -0.25 * first.span

    def __str__(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}"


def _judged(what: str, key: str, data: Dataset, values: _Range, model: Any | None) -> str | None:
    array = data.inputs[key]
    few = array[np.linspace(0, len(array) - 1, min(len(array), _LOOKED_AT)).astype(int)]
    # With more inputs than one, what reaches a layer is not this input's alone.
    probe = probe_scale(model, key, few) if model is not None and len(data.inputs) == 1 else ScaleProbe()
    ratio = probe.norm_ratio
    if ratio is not None and ratio > 0 and not 1 / _FACTOR < ratio < _FACTOR:
        return (
            f"{what} is {values}, on which the model's first normalisation sees {_times(ratio)} the spread that it saw "
            f"in training; it seems to want about {_wanted(values, ratio)}"
        )
    if ratio is not None or not _is_image(array):
        return None
    if probe.scales_itself:
        seen = probe.seen
        if seen is not None and seen[1] - seen[0] < 1 / _FACTOR:
            return (
                f"{what} is {values}, which the model itself scales to {seen[0]:.2g} to {seen[1]:.2g}; "
                "it seems to want 0 to 255"
            )
        return None
    if (
        values.low >= 0
        and 2 < values.high <= 255
        and (values.high > 128 or bool((few == np.rint(few)).all()))
    ):
        return (
            f"{what} is {values} as {array.dtype}, and nothing in the model scales it; "
            "most networks are trained on 0 to 1: check how this one was"
        )
    return None


def _wanted(values: _Range, ratio: float) -> str:
    """The range that would give the spread of training, as the usual one that it is nearest to."""
    high = values.high / ratio
    usual = next((each for each in _USUAL if each / 1.6 < high < each * 1.6), None)
    if usual is None:
        return f"{values.low / ratio:.2g} to {high:.2g}"
    return f"{-usual if values.low < 0 else 0:g} to {usual:g}"


def _times(ratio: float) -> str:
    return f"{ratio:.3g} times" if ratio > 1 else f"1/{1 / ratio:.3g} of"


def _is_image(array: Array) -> bool:
    return array.ndim == 4 and array.shape[-1] in (1, 3)
