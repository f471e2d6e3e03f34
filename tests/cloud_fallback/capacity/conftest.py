"""A bundle with a curve, for plans: nothing here runs its model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_runtime import Bundle, Confidence, Manifest, TensorSpec
from edge_runtime.manifest import SCHEMA_VERSION, CurvePoint, Guarantee, Signature

CURVE = (
    CurvePoint(0.0, 0.8, 0.0),
    CurvePoint(0.5, 0.9, 0.2),
    CurvePoint(0.9, 0.96, 0.6),
    CurvePoint(0.99, 0.97, 1.0),
)


@pytest.fixture
def fitted() -> Callable[..., Bundle]:
    """Makes a bundle by threshold, curve, and the tiers that were fitted together."""

    def make(
        threshold: float | None = 0.5,
        curve: tuple[CurvePoint, ...] = CURVE,
        tiers: tuple[str, ...] = ("digits-1.0",),
    ) -> Bundle:
        guarantee = Guarantee("accuracy", 0.85, 0.95, 0.86, 1000, 750, "a method", "0" * 64, tiers)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name="digits",
            version="1.0",
            signature=Signature(
                (TensorSpec("image", (1, 8), "float32"),), (TensorSpec("scores", (1, 10), "float32"),)
            ),
            confidence=Confidence("scores", threshold=threshold, curve=curve, guarantee=guarantee),
        )
        return Bundle.create(manifest, {"model.tflite": b"a model"})

    return make
