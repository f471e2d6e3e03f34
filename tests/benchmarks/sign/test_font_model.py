"""The font model: its samples, and the whole way from drawing them to a bundle, in small."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.sign.font_model import judge, scene_samples, train_font_model
from benchmarks.sign.font_samples import font_samples
from benchmarks.sign.fonts import FONT_CLASSES
from edge_runtime import Chain

TEXTS = ("Exit", "No parking", "Ticket office", "Platform 4")


def test_samples_are_the_same_for_the_same_seed_and_as_many_of_each_class() -> None:
    count = 3 * len(FONT_CLASSES)
    samples, again = (font_samples(count, TEXTS, seed=3) for _ in range(2))
    np.testing.assert_array_equal(samples.strips, again.strips)
    assert samples.strips.shape == (count, 48, 160, 1)
    assert (np.bincount(samples.labels) == 3).all()
    assert (samples.strips.max(axis=(1, 2, 3)) > 100).mean() > 0.9


def test_lines_of_scenes_are_samples() -> None:
    samples = scene_samples(4, TEXTS, seed=1)
    assert samples.strips.shape[1:] == (48, 160, 1)
    assert len(samples.strips) == len(samples.labels) >= 4


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.tensorflow
def test_a_trained_model_is_a_small_bundle_that_knows_classes() -> None:
    said: list[str] = []
    bundle = train_font_model(TEXTS, count=720, epochs=6, report=said.append)
    assert bundle.manifest.labels == FONT_CLASSES
    assert sum(len(content) for content in bundle.files.values()) < 200_000
    samples = font_samples(120, TEXTS, seed=9)
    # By chance it would be one in twelve.
    assert judge(bundle, samples).accuracy > 0.25
    prediction = Chain.from_bundle(bundle).run({"strip": samples.strips[0]})
    assert prediction.label in FONT_CLASSES
    assert said
