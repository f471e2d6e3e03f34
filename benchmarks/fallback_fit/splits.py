"""Thresholds chosen on some of the held-out images, and what they come to on all the others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.fallback_fit.models import HeldOut
from cloud_fallback.threshold.bounds import lower_bound
from cloud_fallback.threshold.calibration import calibrate
from cloud_fallback.threshold.curve import choose, sweep
from cloud_fallback.threshold.curve_plot import draw_curve
from cloud_fallback.threshold.examples import Examples
from cloud_fallback.threshold.fit import Fit, fit, learning_part
from cloud_fallback.threshold.tradeoff import measure_tradeoff
from edge_runtime import HybridgeError
from edge_runtime.confidence import probabilities
from edge_runtime.tensor_spec import Array

__all__ = ["CONFIDENCE", "Outcome", "breaks_promise", "draw_fit", "run_split"]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one choice of thresholds comes to on the images that it did not see; None where nothing was promised.

    Attributes:
        accuracy: Of device and cloud together.
        offloaded: Share of the images.
        needed: The least share at which the same tiers are as accurate on these images, by the same score; of several
            tiers, the share of these thresholds.
        by_hand: The least share at which the tiny tier, by its maximum softmax, is.
        answered: Share that each tier answers.
    """

    accuracy: float
    offloaded: float
    needed: float
    by_hand: float
    answered: tuple[float, ...]


def run_split(
    held_out: HeldOut, seed: int, *, validation: int, target: float, arrangements: tuple[tuple[str, ...], ...]
) -> dict[str, Outcome | None]:
    """Chooses thresholds on so many images drawn by `seed`, and measures them on the others.

    Returns:
        By ``hand`` (the tiny tier's maximum softmax, at the lowest threshold that reaches the target on the validation
        images), ``sgr``, and for each arrangement of tiers ``fit tiny``, ``fit tiny+middle`` and so on.
    """
    order = np.random.default_rng(seed).permutation(len(held_out.labels))
    seen, unseen = order[:validation], order[validation:]
    plain = _examples(held_out, ("tiny",), (1.0,))
    by_hand = _Curve(plain.take(unseen))

    def outcome(examples: Examples, thresholds: tuple[float, ...]) -> Outcome:
        test = examples.take(unseen)
        point = test.point(thresholds)
        needed = _Curve(test).share_at(point.accuracy) if test.tiers == 1 else point.offloaded
        return Outcome(
            point.accuracy, point.offloaded, needed, by_hand.share_at(point.accuracy), point.answered
        )

    picked = _by_hand(plain.take(seen), target)
    bounded = _sgr(plain.take(seen), target)
    results = {
        "hand": None if picked is None else outcome(plain, (picked,)),
        "sgr": None if bounded is None else outcome(plain, (bounded,)),
    }
    for names in arrangements:
        examples, fitted = _fitted(held_out, names, seen, target)
        results[f"fit {'+'.join(names)}"] = (
            outcome(examples, fitted.point.thresholds) if fitted.promised else None
        )
    return results


def breaks_promise(
    held_out: HeldOut, seed: int, *, validation: int, target: float, names: tuple[str, ...]
) -> bool:
    """Whether thresholds fitted on images drawn one by one from all are less accurate on all than was promised.

    Drawn with replacement, the images that are held out are all that there are: their accuracy is the true one.
    """
    drawn = np.random.default_rng(seed).integers(0, len(held_out.labels), validation)
    examples, fitted = _fitted(held_out, names, drawn, target)
    return fitted.promised and examples.point(fitted.point.thresholds).accuracy < target


def draw_fit(held_out: HeldOut, *, validation: int, target: float, names: tuple[str, ...]) -> bytes:
    """The picture of the fit to the images of the first split, as a PNG."""
    seen = np.random.default_rng(0).permutation(len(held_out.labels))[:validation]
    examples, fitted = _fitted(held_out, names, seen, target)
    return draw_curve(measure_tradeoff(examples.take(seen)), fitted, suffix=".png")


def _fitted(held_out: HeldOut, names: tuple[str, ...], seen: Array, target: float) -> tuple[Examples, Fit]:
    """All images as the calibrated tiers see them, and the fit to some of them."""
    learning = seen[learning_part(len(seen))]
    temperatures = tuple(
        calibrate(held_out.scores[name][learning], held_out.labels[learning]) or 1.0 for name in names
    )
    examples = _examples(held_out, names, temperatures)
    chosen = examples.take(seen)
    fitted = fit(
        list(chosen.confidence),
        list(chosen.device_correct),
        chosen.cloud_correct,
        target_accuracy=target,
        confidence_level=CONFIDENCE,
    )
    return examples, fitted


class _Curve:
    """The most that one tier reaches with at most a share offloaded."""

    def __init__(self, examples: Examples):
        points = sweep(*_columns(examples))
        self._shares = [point.offloaded for point in points]
        self._best = np.maximum.accumulate([point.accuracy for point in points])

    def share_at(self, accuracy: float) -> float:
        """The least share that is as accurate; all of it where none is."""
        return self._shares[min(int(np.searchsorted(self._best, accuracy)), len(self._shares) - 1)]


def _examples(held_out: HeldOut, names: tuple[str, ...], temperatures: tuple[float, ...]) -> Examples:
    return Examples.check(
        [
            probabilities(held_out.scores[name], temperature=temperature).max(axis=1)
            for name, temperature in zip(names, temperatures, strict=True)
        ],
        [held_out.scores[name].argmax(axis=1) == held_out.labels for name in names],
        held_out.cloud == held_out.labels,
    )


def _columns(examples: Examples) -> tuple[Array, Array, Array]:
    return examples.confidence[0], examples.device_correct[0], examples.cloud_correct


def _by_hand(seen: Examples, target: float) -> float | None:
    try:
        return choose(sweep(*_columns(seen)), target_accuracy=target).threshold
    except HybridgeError:
        return None  # no threshold reaches the target on these


def _sgr(seen: Examples, target: float) -> float | None:
    """The threshold by SGR's binary search, its level divided by the number of steps (Geifman and El-Yaniv, 2017)."""
    curve = sweep(*_columns(seen))
    count = len(seen)
    steps = math.ceil(math.log2(count))
    low, high, found = 0, len(curve) - 1, None
    for _ in range(steps):
        middle = (low + high) // 2
        right = round(curve[middle].accuracy * count)
        if lower_bound(right, count, 1 - (1 - CONFIDENCE) / steps) >= target:
            found, high = curve[middle].threshold, middle
        else:
            low = middle + 1
        if low > high:
            break
    return found
