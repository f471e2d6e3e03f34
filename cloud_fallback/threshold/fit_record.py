"""A fit of real bundles: tiers calibrated, thresholds fitted, and all of it as bundles and as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from cloud_fallback.threshold.curve import thin
from cloud_fallback.threshold.device_tier import DeviceTier
from cloud_fallback.threshold.examples import Examples
from cloud_fallback.threshold.fit import Fit, fit, learning_part
from cloud_fallback.threshold.labelled_data import LabelledData
from cloud_fallback.threshold.tradeoff import Tradeoff, measure_tradeoff
from edge_runtime.bundle import Bundle
from edge_runtime.manifest import Confidence, CurvePoint, Guarantee
from edge_runtime.tensor_spec import Array

__all__ = ["FitRecord"]

_METHOD = "Pareto Testing with exact binomial tests"
_CURVE_POINTS = 31


@dataclass(frozen=True)
class FitRecord:
    """What a fit of bundles came to.

    Attributes:
        tiers: The bundles, calibrated, the cheapest first.
        fit: The thresholds and what is promised of them.
        tradeoff: The curve of all examples.
        alone: Accuracy of each tier alone.
        cloud_accuracy: Accuracy of the cloud alone.
        data_digest: SHA-256 of the examples with the cloud's answers.
    """

    tiers: tuple[DeviceTier, ...]
    fit: Fit
    tradeoff: Tradeoff
    alone: tuple[float, ...]
    cloud_accuracy: float
    data_digest: str

    @classmethod
    def make(
        cls,
        tiers: Sequence[DeviceTier],
        data: LabelledData,
        cloud: Array,
        *,
        target_accuracy: float | None,
        max_offload: float | None,
        confidence: float,
        progress: Callable[[str], None],
    ) -> FitRecord:
        """Runs the tiers over the examples, calibrates each, and fits their thresholds.

        Args:
            tiers: The bundles, the cheapest first; their temperatures are set.
            data: The examples.
            cloud: The class that the cloud answers to each.
            target_accuracy: See `fit`.
            max_offload: See `fit`.
            confidence: See `fit`.
            progress: Takes a line of progress.

        Raises:
            HybridgeError: What the tiers, `calibrate` and `fit` raise.
        """
        sure, right = [], []
        learning = learning_part(len(data))
        for tier in tiers:
            progress(f"running {tier.name} on {len(data):,} examples")
            scores = tier.scores(data.items())
            # Before the promise is made, and so from the examples that it does not rest on.
            tier.calibrate(scores[learning], data.labels[learning])
            sure.append(tier.confidence(scores))
            right.append(scores.argmax(1) == data.labels)
        examples = Examples.check(sure, right, cloud == data.labels)
        fitted = fit(
            sure,
            right,
            examples.cloud_correct,
            target_accuracy=target_accuracy,
            max_offload=max_offload,
            confidence_level=confidence,
        )
        return cls(
            tuple(tiers),
            fitted,
            measure_tradeoff(examples),
            alone=tuple(float(each.mean()) for each in examples.device_correct),
            cloud_accuracy=float(examples.cloud_correct.mean()),
            data_digest=data.digest(cloud),
        )

    @property
    def latencies_ms(self) -> tuple[float | None, ...]:
        """Median time of each tier on one thread of a machine on which all were measured; None where there is none."""
        times = [
            {
                each.machine: each.median_ms
                for each in tier.bundle.manifest.metrics.latency
                if each.num_threads == 1
            }
            for tier in self.tiers
        ]
        shared = [machine for machine in times[0] if all(machine in each for each in times)]
        return tuple(each[shared[0]] if shared else None for each in times)

    @property
    def device_ms(self) -> float | None:
        """Expected time on the device for an example, where the bundles have been measured."""
        total, reach = 0.0, 1.0
        for latency, answered in zip(self.latencies_ms, self.fit.point.answered, strict=True):
            if latency is None:
                return None
            total += reach * latency
            reach -= answered
        return total

    def bundles(self) -> list[Bundle]:
        """Each tier's bundle with its temperature, threshold, curve and the promise."""
        return [tier.with_confidence(self._confidence(index)) for index, tier in enumerate(self.tiers)]

    def as_data(self, saved: Sequence[str], plot: str | None) -> dict[str, Any]:
        """All figures, for JSON."""
        point = self.fit.point
        tiers = [
            {
                "name": tier.name,
                "bundle": str(tier.path),
                "saved": path,
                "temperature": tier.spec.temperature,
                "threshold": threshold,
                "accuracy_alone": alone,
                "answered": answered,
                "latency_ms": latency,
            }
            for tier, path, threshold, alone, answered, latency in zip(
                self.tiers,
                saved,
                point.thresholds,
                self.alone,
                point.answered,
                self.latencies_ms,
                strict=True,
            )
        ]
        return {
            "guarantee": msgspec.to_builtins(self._guarantee()),
            "accuracy": point.accuracy,
            "offloaded": point.offloaded,
            "tiers": tiers,
            "cloud_accuracy": self.cloud_accuracy,
            "device_ms": self.device_ms,
            "curve": {
                "points": msgspec.to_builtins(self.tradeoff.points),
                "random": self.tradeoff.random,
                "oracle": self.tradeoff.oracle,
                "area": self.tradeoff.area,
                "area_random": self.tradeoff.area_random,
                "area_oracle": self.tradeoff.area_oracle,
                "captured": self.tradeoff.captured,
            },
            "plot": plot,
        }

    def _guarantee(self) -> Guarantee:
        goal = self.fit.goal
        return Guarantee(
            kind=goal.promise.value,
            target=goal.limit,
            confidence=goal.confidence,
            bound=self.fit.bound,
            samples=self.fit.samples,
            tested=self.fit.tested,
            method=_METHOD,
            data_digest=self.data_digest,
            tiers=tuple(tier.name for tier in self.tiers),
        )

    def _confidence(self, index: int) -> Confidence:
        chosen = self.fit.point
        points = [
            CurvePoint(point.thresholds[index], point.accuracy, point.offloaded)
            for point in self.tradeoff.points
        ]
        # The chosen point is kept whatever else is thinned out, and alone stands for its threshold: of several tiers,
        # others may have the same threshold of this one.
        own = CurvePoint(chosen.thresholds[index], chosen.accuracy, chosen.offloaded)
        curve = sorted(
            {own, *(point for point in thin(points, _CURVE_POINTS) if point.threshold != own.threshold)},
            key=lambda point: (point.offloaded, point.accuracy),
        )
        return msgspec.structs.replace(
            self.tiers[index].spec,
            threshold=chosen.thresholds[index],
            curve=tuple(curve),
            guarantee=self._guarantee(),
        )
