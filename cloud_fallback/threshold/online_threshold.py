"""A threshold that follows the cloud's answers, for devices whose examples change.

Asking costs `cost`, between 0 and 1, where an answer of the device that the cloud would not have given costs 1. Best
is to ask where the chance of a disagreement is above the cost. That chance is not known, it changes, and it shows
only where the cloud was asked: the problem of hierarchical inference (Moothedath, Champati and Gross, "Online
Algorithms for Hierarchical Inference in Deep Learning applications at the Edge", arXiv:2304.00891, 2023), whose loss
this is.

How. As in Hedge-HI (Al-Atat, Datta, Moharir and Champati, "Regret Bounds for Online Learning for Hierarchical
Inference", MobiHoc 2024), every threshold is charged with what it would have cost so far, including what is kept: to
know that, a share of the sure answers is asked about by chance. Unlike it, the threshold that would have cost least
is followed, not one drawn by weights, and confidences are counted in bins: whether an answer of a bin is asked about
does not depend on whether it is right, so the share of disagreements among those that were asked stands for the
whole bin, with no weight of 1 over the chance of being asked, and so with far less noise.

Late answers. For the same reason an answer may teach whenever it comes: nothing of the moment of asking is needed but
the confidence. It counts as one of now. Answers must not be missing because of what they would have said: a network
that is worse where the device is wrong more often leaves a threshold that asks too little, so what was deferred is to
be learned from when it is answered.

Drift. Traffic and answers are forgotten, as in discounted UCB (Garivier and Moulines, "On Upper-Confidence Bound
Policies for Switching Bandit Problems", ALT 2011), and a bin remembers no more than a hundred answers, so that one
that is asked often follows a change at once. What is forgotten gives way to an expectation that counts as much as a
few answers: the mean of the bin's last hundred, however old, and before there are any a chance that falls with
confidence, to `cost` at the threshold to start from.

Optimism in place of chance, as in HI-LCB (Chattopadhyay, Sutar, Champati and Moharir, "Low-Regret and Low-Complexity
Learning for Hierarchical Inference", arXiv:2508.08985, 2025), relies on a chance of disagreement that falls with
confidence. It pays less while that is so, and does not find out when the surest answers become wrong ones, which is
how models fail on what they do not know.
"""

from __future__ import annotations

import math
import random
import threading
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Self

import msgspec
from msgspec import Meta, Struct

from edge_runtime.errors import ErrorCode, HybridgeError

if TYPE_CHECKING:
    from edge_runtime.manifest import Confidence

__all__ = ["OnlineThreshold"]

_BINS = 16
# Answers of a bin that count, and what the expectation before any counts as.
_MOST_ANSWERS = 100.0
_EXPECTED_ANSWERS = 2.0
# Weights grow instead of all sums shrinking; before they overflow both are brought down.
_HEAVIEST = 1e100

_Share = Annotated[float, Meta(ge=0, le=1)]
_Count = Annotated[float, Meta(ge=0)]


class _State(Struct, frozen=True):
    """What is kept: counts, a bin each, as they weigh now."""

    version: Annotated[int, Meta(ge=1, le=1)]
    cost: _Share
    start: _Share
    memory: Annotated[float, Meta(ge=1)]
    explore: _Share
    edges: tuple[_Share, ...]
    seen: tuple[_Count, ...]
    asked: tuple[_Count, ...]
    disagreed: tuple[_Count, ...]
    expected: tuple[_Share, ...]
    answers: tuple[Annotated[int, Meta(ge=0)], ...]


class OnlineThreshold:
    """Says whether to ask the cloud, and learns from its answers; from any thread, in a few microseconds.

    An answer may be learned from long after the decision, in any order, or never.

    Args:
        cost: What asking costs, between 0 and 1, where a wrong answer costs 1.
        start: The threshold to begin with, in 0..1. By default 1 - `cost`, which is best for a confidence that is the
            chance of being right.
        memory: Decisions after which an answer counts for about a third.
        explore: Share of the sure answers that the cloud is asked about, to know how they are.
        edges: Confidences that may become the threshold. Best are those that divide the answers evenly, as the points
            of a fitted curve do; see `from_confidence`. By default finer towards 1.
        seed: Of the chance by which sure answers are asked about; by default another every time.

    Raises:
        HybridgeError: `confidence-invalid` for a number out of its range.

    Example:
        >>> online = OnlineThreshold(cost=0.2, start=0.7)
        >>> ask, probability = online.decide(confidence)
        >>> if ask:
        ...     online.learn(confidence, agreed=cloud_label == device_label)
    """

    def __init__(
        self,
        cost: float,
        *,
        start: float | None = None,
        memory: float = 5000.0,
        explore: float = 0.02,
        edges: Sequence[float] = (),
        seed: int | None = None,
    ):
        begin = 1.0 - cost if start is None else start
        for what, number, low, high in (
            ("cost", cost, 0.0, 1.0),
            ("start", begin, 0.0, 1.0),
            ("memory", memory, 1.0, math.inf),
            ("explore", explore, 0.0, 1.0),
            *(("edge", edge, 0.0, 1.0) for edge in edges),
        ):
            if not (low <= number <= high and math.isfinite(number)):
                raise HybridgeError(
                    ErrorCode.CONFIDENCE_INVALID,
                    f"{what} of an online threshold",
                    received=f"{number}",
                    expected=f"a number from {low:g} to {high:g}",
                )
        self.cost, self.start, self.memory, self.explore = cost, begin, memory, explore
        inner = {*(edges or _default_edges()), begin} - {0.0, 1.0}
        self._edges = sorted(inner)
        self._expected = _expected(self._edges, cost, begin)
        bins = len(self._edges) + 1
        self._answers = [0] * bins
        self._seen, self._asked, self._disagreed = [0.0] * bins, [0.0] * bins, [0.0] * bins
        self._weight, self._growth = 1.0, math.exp(1.0 / memory)
        self._random = random.Random(seed)  # noqa: S311 - not for secrets
        self._lock = threading.Lock()
        self._sure = self._best()

    @classmethod
    def from_confidence(cls, confidence: Confidence, cost: float, *, seed: int | None = None) -> Self:
        """Begins at a bundle's fitted threshold, with bins that divide the examples of its curve evenly."""
        shares = [point.offloaded for point in confidence.curve]
        edges = []
        if shares:
            for number in range(1, _BINS):
                share = shares[0] + (shares[-1] - shares[0]) * number / _BINS
                nearest = min(range(len(shares)), key=lambda index: abs(shares[index] - share))
                edges.append(confidence.curve[nearest].threshold)
        return cls(cost, start=confidence.threshold, edges=edges, seed=seed)

    @property
    def threshold(self) -> float:
        """The confidence below which the cloud is asked in any case; 1 means always."""
        with self._lock:
            return ([0.0, *self._edges, 1.0])[self._sure]

    def decide(self, confidence: float | None) -> tuple[bool, float]:
        """Whether to ask, and how likely that was.

        Args:
            confidence: Of the device's answer, in 0..1; None and NaN are sure of nothing.
        """
        if confidence is None or math.isnan(confidence):
            return True, 1.0
        place = bisect_right(self._edges, confidence)
        with self._lock:
            self._weight *= self._growth
            self._seen[place] += self._weight
            if self._weight > _HEAVIEST:
                self._lighten()
            if place < self._sure:
                return True, 1.0
            return self._random.random() < self.explore, self.explore

    def learn(self, confidence: float | None, agreed: bool) -> None:
        """Takes what the cloud made of an answer that it was asked about.

        Args:
            confidence: Of the device's answer, as it was decided on.
            agreed: Whether the cloud gave the same answer.
        """
        if confidence is None or math.isnan(confidence):
            return
        place = bisect_right(self._edges, confidence)
        with self._lock:
            most = _MOST_ANSWERS * self._weight
            if self._asked[place] > most:
                self._disagreed[place] *= most / self._asked[place]
                self._asked[place] = most
            self._asked[place] += self._weight
            self._disagreed[place] += 0.0 if agreed else self._weight
            self._answers[place] += 1
            counted = min(self._answers[place] + _EXPECTED_ANSWERS, _MOST_ANSWERS)
            self._expected[place] += ((0.0 if agreed else 1.0) - self._expected[place]) / counted
            self._sure = self._best()

    def to_json(self) -> bytes:
        """The state, to go on from after a restart."""
        with self._lock:
            counts = [
                tuple(each / self._weight for each in sums)
                for sums in (self._seen, self._asked, self._disagreed)
            ]
            expected, answers = tuple(self._expected), tuple(self._answers)
        edges = tuple(self._edges)
        return msgspec.json.encode(
            _State(
                1,
                self.cost,
                self.start,
                self.memory,
                self.explore,
                edges,
                seen=counts[0],
                asked=counts[1],
                disagreed=counts[2],
                expected=expected,
                answers=answers,
            )
        )

    @classmethod
    def from_json(
        cls,
        content: bytes,
        *,
        cost: float | None = None,
        memory: float | None = None,
        explore: float | None = None,
        seed: int | None = None,
    ) -> Self:
        """Goes on from a state, with what it learned; settings that are given come before those of the state.

        Raises:
            HybridgeError: `data-invalid` for what `to_json` did not write.
        """
        try:
            state = msgspec.json.decode(content, type=_State)
            online = cls(
                state.cost if cost is None else cost,
                start=state.start,
                memory=state.memory if memory is None else memory,
                explore=state.explore if explore is None else explore,
                edges=state.edges,
                seed=seed,
            )
            counts = (state.seen, state.asked, state.disagreed, state.expected, state.answers)
            if any(len(each) != len(online._seen) for each in counts):
                raise ValueError(f"{[len(each) for each in counts]} counts for {len(online._seen)} bins")
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError, HybridgeError) as error:
            raise HybridgeError(
                ErrorCode.DATA_INVALID,
                "state of an online threshold",
                received=str(error),
                expected="what OnlineThreshold.to_json wrote",
                fix="delete it, to begin anew",
            ) from error
        online._seen, online._asked, online._disagreed = map(list, counts[:3])
        online._expected, online._answers = list(state.expected), list(state.answers)
        online._sure = online._best()
        return online

    def _best(self) -> int:
        """The first bin that is kept: that of the threshold that would have cost least, and of equal ones asks more."""
        saved = most = 0.0
        best = 0
        for place, expected in enumerate(self._expected):
            answers = self._asked[place] / self._weight
            wrong = self._disagreed[place] / self._weight + _EXPECTED_ANSWERS * expected
            chance = wrong / (answers + _EXPECTED_ANSWERS)
            # Before there is traffic, every bin has a little.
            saved += (self._seen[place] / self._weight + 1e-6) * (chance - self.cost)
            if saved >= most:
                most, best = saved, place + 1
        return best

    def _lighten(self) -> None:
        for sums in (self._seen, self._asked, self._disagreed):
            sums[:] = [each / self._weight for each in sums]
        self._weight = 1.0


def _default_edges() -> list[float]:
    """Evenly by the logarithm of the odds, from a sixth to a thousand to one: confidences crowd towards 1."""
    return [1 / (1 + math.exp(-(-1.8 + 8.7 * index / (_BINS - 2)))) for index in range(_BINS - 1)]


def _expected(edges: Sequence[float], cost: float, start: float) -> list[float]:
    """The chance of a disagreement that is expected in each bin: it falls with confidence, to `cost` at `start`."""
    middles = [(low + high) / 2 for low, high in zip((0.0, *edges), (*edges, 1.0), strict=True)]
    return [min(cost * (1 - middle) / (1 - start), 1.0) if start < 1 else 1.0 for middle in middles]
