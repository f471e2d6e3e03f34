"""The held-back images under one condition of the cloud: how right, how often from where, how fast."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.demo.digits import Samples
from cloud_fallback import CloudFallback
from edge_runtime import Bundle, Chain, HybridgeError, Source
from edge_runtime.tensor_spec import Array
from edge_runtime.timing import Timing

__all__ = ["Outcome", "Scenario", "ask_cloud_alone", "run_device_alone", "run_scenario"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Answers to all images, in order, from one way of answering.

    Attributes:
        digits: The digit answered, int64 of shape (n,); -1 where there was no answer.
        confidences: How sure each answer was, float64 of shape (n,).
        sources: Where each came from.
        reasons: Why from there.
        seconds: How long each took, float64 of shape (n,).
    """

    digits: Array
    confidences: Array
    sources: tuple[str, ...]
    reasons: tuple[str, ...]
    seconds: Array

    def accuracy(self, labels: Array) -> float:
        """Share of right answers; no answer is a wrong one."""
        return float(np.mean(self.digits == labels))

    def share(self, source: Source) -> float:
        """Share of answers that came from `source`."""
        return self.sources.count(source) / len(self.sources)

    def timing_by_source(self) -> dict[str, Timing]:
        """Time of answers from each source that gave one."""
        where = np.asarray(self.sources)
        return {
            source: Timing.from_seconds(self.seconds[where == source]) for source in sorted(set(self.sources))
        }


@dataclass(frozen=True, slots=True)
class Scenario:
    """What one condition of the cloud came to.

    Attributes:
        name: ``"online"``, ``"offline"`` or ``"slow"``.
        deadline_ms: How long the cloud may take.
        device: The device alone.
        hybrid: The device, asking the cloud when unsure.
        cloud: The cloud alone, each image sent to it.
        cloud_labels: The true digits of the images that the cloud alone was asked.
        labels: The true digits.
    """

    name: str
    deadline_ms: float
    device: Outcome
    hybrid: Outcome
    cloud: Outcome
    cloud_labels: Array
    labels: Array

    def figures(self) -> dict[str, Any]:
        """The figures of the report, for JSON."""
        latency = {
            f"hybrid_{source}": {"p50": timing.median_ms, "p95": timing.p95_ms, "answers": timing.runs}
            for source, timing in self.hybrid.timing_by_source().items()
        }
        for name, outcome in (("device", self.device), ("hybrid", self.hybrid), ("cloud", self.cloud)):
            timing = Timing.from_seconds(outcome.seconds)
            latency[name] = {"p50": timing.median_ms, "p95": timing.p95_ms, "answers": timing.runs}
        return {
            "accuracy": {
                "device": self.device.accuracy(self.labels),
                "hybrid": self.hybrid.accuracy(self.labels),
                "cloud": self.cloud.accuracy(self.cloud_labels),
            },
            "offloaded": self.hybrid.share(Source.CLOUD),
            "reasons": dict(sorted(Counter(self.hybrid.reasons).items())),
            "latency_ms": latency,
            "deadline_ms": self.deadline_ms,
            "samples": {"hybrid": len(self.labels), "cloud": len(self.cloud_labels)},
        }


def run_device_alone(bundle: Bundle, samples: Samples) -> Outcome:
    """Every image on the device, nobody to ask."""
    return _run_chain(Chain.from_bundle(bundle), samples)


def run_scenario(
    name: str,
    bundle: Bundle,
    port: int,
    samples: Samples,
    *,
    device: Outcome,
    deadline_s: float,
    cloud_model: str,
    cloud_samples: int,
) -> Scenario:
    """Every image through the hybrid chain, and the first `cloud_samples` through the cloud alone.

    Args:
        name: What to call the condition.
        bundle: The device's bundle, with its threshold.
        port: Where on 127.0.0.1 the cloud is, or was.
        samples: The images.
        device: What the device alone answered.
        deadline_s: Seconds that the cloud may take.
        cloud_model: The model's name there.
        cloud_samples: How many images the cloud alone is asked; waiting out deadlines takes time.
    """
    target = f"127.0.0.1:{port}"
    with Chain.from_bundle(
        bundle, fallback=CloudFallback(target, model=cloud_model, deadline_s=deadline_s)
    ) as chain:
        hybrid = _run_chain(chain, samples)
    asked = Samples(samples.images[:cloud_samples], samples.labels[:cloud_samples])
    cloud = ask_cloud_alone(target, cloud_model, asked, deadline_s=deadline_s)
    return Scenario(name, deadline_s * 1e3, device, hybrid, cloud, asked.labels, samples.labels)


def ask_cloud_alone(target: str, model: str, samples: Samples, *, deadline_s: float) -> Outcome:
    """Every image sent to the endpoint, with nothing to fall back on."""
    digits, reasons, seconds = [], [], []
    client = CloudFallback(target, model=model, deadline_s=deadline_s)
    try:
        for image in samples.images:
            start = time.perf_counter()
            try:
                digits.append(_digit(client.infer({"image": image}, deadline_s=deadline_s)))
                reasons.append("answered")
            except HybridgeError as error:
                digits.append(-1)
                reasons.append(str(error.code))
            seconds.append(time.perf_counter() - start)
    finally:
        client.close()
    sources = (str(Source.CLOUD),) * len(digits)
    return Outcome(np.asarray(digits), np.ones(len(digits)), sources, tuple(reasons), np.asarray(seconds))


def _run_chain(chain: Chain, samples: Samples) -> Outcome:
    chain.run(
        {"image": samples.images[0]}
    )  # the first run prepares what later ones reuse, and the connection
    digits, confidences, sources, reasons, seconds = [], [], [], [], []
    for image in samples.images:
        start = time.perf_counter()
        prediction = chain.run({"image": image})
        seconds.append(time.perf_counter() - start)
        digits.append(_digit(prediction.outputs))
        confidences.append(prediction.confidence or 0.0)
        sources.append(str(prediction.source))
        reasons.append(str(prediction.reason))
    return Outcome(
        np.asarray(digits), np.asarray(confidences), tuple(sources), tuple(reasons), np.asarray(seconds)
    )


def _digit(outputs: Mapping[str, Array]) -> int:
    return int(outputs["logits"].argmax())
