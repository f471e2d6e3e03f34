"""Thresholds of all tiers together, with a promise about what examples to come will show.

A threshold that reaches an accuracy on the examples it was chosen on falls short of it on others about every other
time. `fit` gives one that reaches it with a stated confidence: over draws of the validation examples, the accuracy
of device and cloud together on all examples of their kind is below the target in at most a share 1 - `confidence` of
draws, at any number of examples and whatever the models. Likewise for a limit on the share offloaded.

How. The examples are split by chance. On one part, a quarter, a path through the thresholds of all tiers is learned,
from the most accurate combination to the one that offloads least (`learn_path`); whatever else shapes the
confidences, a temperature above all, must be learned there too. On the other part the combinations are tested in the
order of the path, each by an exact binomial test at level 1 - `confidence`, and the first that fails ends it. What
passed is certified, all of it together, so the cheapest may be chosen from it by any means. This is fixed-sequence
testing as in Learn then Test (Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then Test: Calibrating Predictive
Algorithms to Achieve Risk Control", arXiv:2110.01052, 2021), along an order that is learned on a part of the data,
as in Pareto Testing (Laufer-Goldshtein, Fisch, Barzilay and Jaakkola, "Efficiently Controlling Multiple Risks with
Pareto Testing", ICLR 2023).

Why this one. For a wrong combination to be chosen, the first wrong one on the path must pass its test, and that is
one test, whose order was fixed before its examples were seen: no correction for the combinations tried is due, and
nothing is asked of the curve. It may fall and rise again, and a cloud that is worse than the device on some examples
is as good as any other; at its best point, where the path starts, both together may be better than the cloud alone.
Others lose more or promise less:

- SGR (Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NIPS 2017) has the same binomial
  tail, but divides the level by the number of thresholds that it tries: with a dozen, the margin that a threshold
  must show is half as wide again. The split here costs a sixth of it.
- A descent from "ask always" over all examples needs no split for one tier. It stops at the start where the cloud
  alone is not good enough, gives no path for several tiers, and would have the temperature chosen on what it tests
  with.
- Conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster, ICLR 2024) bounds the accuracy on average over
  draws: about half of the fitted thresholds may miss the target. It also asks for an accuracy that only rises with
  the threshold.

What it does not cover: examples of another kind than those here (drift), a device or cloud model that was changed, a
cloud that does not answer, and several fits of which the best is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from cloud_fallback.threshold.bounds import lower_bound, needed_successes, needed_trials
from cloud_fallback.threshold.examples import Examples, JointPoint
from cloud_fallback.threshold.path import learn_path
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Fit", "Goal", "Promise", "fit", "learning_part"]

_LEARNED = 0.25
_STEPS = 200


class Promise(StrEnum):
    """What a promise is about."""

    ACCURACY = "accuracy"
    OFFLOAD = "offload"


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to hold: an accuracy of at least, or a share offloaded of at most `limit`, with `confidence`."""

    promise: Promise
    limit: float
    confidence: float

    @classmethod
    def check(cls, *, target_accuracy: float | None, max_offload: float | None, confidence: float) -> Goal:
        """A goal from one of the two limits.

        Raises:
            HybridgeError: `usage` for both limits or neither, or numbers that are not in 0..1; an accuracy or a
                confidence of 1 cannot be shown by examples.
        """
        if (target_accuracy is None) == (max_offload is None):
            raise HybridgeError(
                ErrorCode.USAGE,
                "goal of a fit",
                received="both limits" if max_offload is not None else "no limit",
                expected="either target_accuracy or max_offload",
            )
        if target_accuracy is not None:
            goal = cls(Promise.ACCURACY, target_accuracy, confidence)
            possible = 0 < target_accuracy < 1
        else:
            goal = cls(Promise.OFFLOAD, max_offload or 0.0, confidence)
            possible = 0 < goal.limit <= 1
        if not (possible and 0 < confidence < 1):
            raise HybridgeError(
                ErrorCode.USAGE,
                "goal of a fit",
                received=f"a limit of {goal.limit:g} with confidence {confidence:g}",
                expected="numbers between 0 and 1",
            )
        return goal

    def met(self, examples: Examples, thresholds: Sequence[float]) -> int:
        """How many examples are as the goal wants them: answered rightly, or not offloaded."""
        right, by = examples.outcome(thresholds)
        return int(right.sum() if self.promise is Promise.ACCURACY else (by < examples.tiers).sum())

    @property
    def share(self) -> float:
        """The share of examples that must be as the goal wants them."""
        return self.limit if self.promise is Promise.ACCURACY else 1.0 - self.limit

    def bound(self, met: int, tested: int) -> float:
        """The exact bound, one-sided, of the accuracy or of the share offloaded."""
        kept = lower_bound(met, tested, self.confidence)
        return kept if self.promise is Promise.ACCURACY else 1.0 - kept

    def __str__(self) -> str:
        what = (
            f"an accuracy of at least {self.limit:.2%}"
            if self.promise is Promise.ACCURACY
            else f"at most {self.limit:.2%} offloaded"
        )
        return f"{what} with {self.confidence * 100:.4g}% confidence"


@dataclass(frozen=True, slots=True)
class Fit:
    """Thresholds, and what is promised of them.

    Attributes:
        goal: What was asked for.
        promised: Whether it holds with the confidence that was asked for. If not, the rest is about the combination
            of which most can be promised.
        point: The thresholds, and what they come to on all examples.
        bound: The exact bound, one-sided and at the goal's confidence, that the test examples give for these
            thresholds alone. Where the goal is promised it is at least as good, but the goal's limit is what was
            promised before the thresholds were known. Where it is not, the bound itself is what can be promised.
        samples: Examples in all.
        tested: Those of them that the promise rests on.
        needed: About how many in all would do, where the goal is not promised and more examples help.
    """

    goal: Goal
    promised: bool
    point: JointPoint
    bound: float
    samples: int
    tested: int
    needed: int | None = None

    def require(self) -> None:
        """Refuses a fit without a promise.

        Raises:
            HybridgeError: `confidence-invalid`, with what can be promised, and how many examples would do.
        """
        if self.promised:
            return
        accuracy = self.goal.promise is Promise.ACCURACY
        best = f"at {'least' if accuracy else 'most'} {self.bound:.2%}"
        less = "ask for less" if accuracy else "allow more to be offloaded"
        if self.needed is not None:
            fix = f"give about {self.needed:,} examples, or {less}"
        elif accuracy:
            fix = f"{less}, or use better models: at no threshold do these seem to be better than that"
        else:
            fix = less
        raise HybridgeError(
            ErrorCode.CONFIDENCE_INVALID,
            "fit of the thresholds",
            received=f"{self.samples:,} examples that can promise {best}, "
            f"with {self.point.accuracy:.2%} right and {self.point.offloaded:.2%} offloaded on them",
            expected=str(self.goal),
            fix=fix,
        )


def learning_part(samples: int) -> npt.NDArray[np.intp]:
    """Indices of the examples to learn from, such as a temperature; the promise rests on the others.

    A quarter of them, by chance, so that the order of the examples does not matter, and the same each time.

    Raises:
        HybridgeError: `data-invalid` for fewer than two examples.
    """
    if samples < 2:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            "validation data for a threshold",
            received=f"{samples} examples",
            expected="2 or more: some to learn from, the others to test with",
        )
    order = np.random.default_rng(0).permutation(samples)
    return np.sort(order[: max(round(samples * _LEARNED), 1)])


def fit(
    confidence: Sequence[npt.ArrayLike],
    device_correct: Sequence[npt.ArrayLike],
    cloud_correct: npt.ArrayLike,
    *,
    target_accuracy: float | None = None,
    max_offload: float | None = None,
    confidence_level: float = 0.95,
) -> Fit:
    """Thresholds that keep a promise: those that offload least, or under a limit on that are the most accurate.

    Args:
        confidence: For each tier, the cheapest first, its confidence in each example, in 0..1. What shapes it, such as
            a temperature, was learned from the examples of `learning_part` alone, or from others.
        device_correct: For each tier whether its answer was right; bool.
        cloud_correct: Whether the cloud's was; bool of shape (examples,).
        target_accuracy: The accuracy of device and cloud together to promise, between 0 and 1.
        max_offload: Or the most that is offloaded, as a share.
        confidence_level: With which confidence, between 0 and 1.

    Returns:
        The fit, also where nothing can be promised; `Fit.require` raises then.

    Raises:
        HybridgeError: `data-invalid`, `usage`.

    Example:
        >>> fitted = fit([tiny, middle], [tiny == label, middle == label], cloud == label, target_accuracy=0.92)
        >>> fitted.require()
        >>> fitted.point.thresholds
        (0.83, 0.61)
    """
    goal = Goal.check(target_accuracy=target_accuracy, max_offload=max_offload, confidence=confidence_level)
    examples = Examples.check(confidence, device_correct, cloud_correct)
    learning = learning_part(len(examples))
    path = learn_path(examples.take(learning), steps=_STEPS)
    if goal.promise is Promise.OFFLOAD:
        path = path[::-1]
    return _tested(goal, examples, path, np.delete(np.arange(len(examples)), learning))


def _tested(
    goal: Goal, examples: Examples, path: npt.NDArray[np.float64], testing: npt.NDArray[np.intp]
) -> Fit:
    """Walks the path until a test fails."""
    test = examples.take(testing)
    needed = needed_successes(len(test), goal.share, goal.confidence)
    certified = 0
    while certified < len(path) and goal.met(test, path[certified]) >= needed:
        certified += 1
    point = _best(goal, examples, path[: max(certified, 1)])
    met = goal.met(test, point.thresholds)
    # All examples, as those to test with may be few.
    actual = goal.met(examples, point.thresholds) / len(examples)
    trials = None if certified else needed_trials(actual, goal.share, goal.confidence)
    return Fit(
        goal,
        promised=bool(certified),
        point=point,
        bound=goal.bound(met, len(test)),
        samples=len(examples),
        tested=len(test),
        needed=None if trials is None else round(trials / (1 - _LEARNED)),
    )


def _best(goal: Goal, examples: Examples, certified: npt.NDArray[np.float64]) -> JointPoint:
    if goal.promise is Promise.ACCURACY:
        return examples.point(certified[-1])  # the path goes to less and less
    # A tie on few examples says little, and the share is there to be used.
    return max(map(examples.point, certified), key=lambda point: (point.accuracy, point.offloaded))
