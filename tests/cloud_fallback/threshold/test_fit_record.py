"""What a fit writes into its bundles is what others read from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cloud_fallback.capacity.offload import bundle_curve
from cloud_fallback.threshold.device_tier import DeviceTier
from cloud_fallback.threshold.fit import Fit, Goal, Promise
from cloud_fallback.threshold.fit_record import FitRecord
from cloud_fallback.threshold.tradeoff import measure_tradeoff
from edge_runtime import Bundle
from tests.cloud_fallback.threshold.populations import two_tiers


def test_each_tier_s_curve_has_the_chosen_point_at_its_threshold(
    make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    tiers = tuple(DeviceTier(make_bundle(name=name, threshold=None).save(tmp_path)) for name in ("a", "b"))
    examples = two_tiers().draw(1000, np.random.default_rng(0))
    tradeoff = measure_tradeoff(examples)
    # Several combinations of the front share a threshold of the first tier.
    often = Counter(point.thresholds[0] for point in tradeoff.points).most_common(1)[0][0]
    shared = [point for point in tradeoff.points if point.thresholds[0] == often]
    assert len(shared) > 2
    for point in shared:
        fit = Fit(Goal(Promise.ACCURACY, 0.5, 0.95), True, point, bound=0.6, samples=1000, tested=750)
        record = FitRecord(tiers, fit, tradeoff, (0.7, 0.8), 0.9, "0" * 64)
        for bundle in record.bundles():
            at, _ = bundle_curve(bundle, None)
            assert (at.offloaded, at.accuracy) == (point.offloaded, point.accuracy)
