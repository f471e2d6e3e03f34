"""A tier of the device as a fit sees it: what its bundle says of each example, and how sure it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path

import msgspec
import numpy as np

from cloud_fallback.threshold.calibration import calibrate
from edge_runtime.bundle import Bundle
from edge_runtime.chain.tier import Tier
from edge_runtime.confidence import Scorer
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.manifest import Confidence
from edge_runtime.model import Model
from edge_runtime.tensor_spec import Array
from edge_runtime.tensor_type import TensorType

__all__ = ["DeviceTier"]


class DeviceTier:
    """A bundle that is asked for its answers, run as a chain runs it.

    Args:
        path: The `.edge` file.

    Raises:
        HybridgeError: What opening it raises; `confidence-invalid` for one without a confidence.
    """

    def __init__(self, path: str | PathLike[str]):
        self.path = Path(path)
        self.bundle = Bundle.open(path)
        confidence = self.bundle.manifest.confidence
        if confidence is None:
            raise HybridgeError(
                ErrorCode.CONFIDENCE_INVALID,
                f"bundle '{self.path.name}'",
                received="no confidence in its manifest",
                expected="which output holds the scores of the classes",
                fix="convert it again, with confidence=Confidence(output=...)",
            )
        self._tier = Tier(Model(self.bundle))
        self.spec: Confidence = confidence

    @property
    def name(self) -> str:
        """Name and version."""
        return f"{self.bundle.manifest.name}-{self.bundle.manifest.version}"

    @property
    def takes(self) -> dict[str, TensorType]:
        """The type of each input, before any preprocessing."""
        return self._tier.takes

    def scores(self, items: Iterable[Mapping[str, Array]]) -> Array:
        """The scored output for each example, of shape (examples, classes).

        Raises:
            HybridgeError: `confidence-invalid` for an output that is not one row of scores; what running raises.
        """
        rows: list[Array] = []
        for item in items:
            output = self._tier.answer_afresh(item).outputs[self.spec.output]
            if output.size != output.shape[-1] or (rows and output.size != len(rows[0])):
                raise HybridgeError(
                    ErrorCode.CONFIDENCE_INVALID,
                    f"output '{self.spec.output}' of bundle '{self.path.name}'",
                    received=f"shape {output.shape}",
                    expected="one row with a score for each class",
                    fix="fit a classifier; for others, choose a threshold with cloud_fallback.sweep and choose",
                )
            rows.append(np.array(output.reshape(-1)))
        return np.stack(rows)

    def calibrate(self, scores: Array, labels: Array) -> None:
        """Sets the temperature to that at which the classes are likeliest, where the examples say which it is."""
        finite = np.isfinite(scores).all(axis=1)
        if not finite.any():
            return
        temperature = calibrate(scores[finite], labels[finite], activation=self.spec.activation)
        if temperature is not None:
            self.spec = msgspec.structs.replace(self.spec, temperature=temperature)

    def confidence(self, scores: Array) -> Array:
        """How sure the tier is of each example, float64 of shape (examples,), as the device will compute it."""
        scorer = Scorer(self.spec, (self.spec.output,))
        return np.array([scorer.confidence({self.spec.output: row[np.newaxis]}) for row in scores])

    def with_confidence(self, confidence: Confidence) -> Bundle:
        """The bundle with this confidence in its manifest."""
        manifest = msgspec.structs.replace(self.bundle.manifest, confidence=confidence)
        return Bundle.create(manifest, self.bundle.files)
