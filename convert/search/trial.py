"""One recipe that a search tried, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from convert.recipes import Recipe
from edge_runtime.bundle import Bundle
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.latency import machine_name
from edge_runtime.manifest import Accuracy, Parity, Size

if TYPE_CHECKING:
    from convert.conversion import Conversion

__all__ = ["Attempt", "Failure", "Trial", "TrialStatus", "TryRecipe", "attempt"]

TryRecipe: TypeAlias = "Callable[[Recipe], Conversion]"
"""Converts with a recipe, or raises."""


class TrialStatus(StrEnum):
    """What came of a trial."""

    OK = "ok"
    """A model within the budget."""
    OUT_OF_BUDGET = "out-of-budget"
    """A sound model that costs too much."""
    FAILED = "failed"
    """No model."""


class Failure(Struct, frozen=True):
    """Why there is no model: the error's code and its sentence."""

    code: ErrorCode
    message: str


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What trying a recipe gave; it crosses processes and is what the store keeps.

    Attributes:
        recipe: What was tried.
        seconds: How long that took.
        bundle: The bundle's bytes, or none.
        failure: Why there is none.
    """

    recipe: Recipe
    seconds: float
    bundle: bytes | None = None
    failure: Failure | None = None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A recipe that was tried; figures are None where nothing was measured.

    Attributes:
        recipe: What was tried.
        key: Under which the store keeps it.
        seconds: How long the conversion took, when it was made.
        cached: Whether an earlier search had made it.
        size: Bytes of the source's weights, and of the model.
        accuracy: Before and after.
        parity: How far the outputs are from the source's.
        latency_ms: Median time of a run on this machine, on one thread.
        digest: Of the bundle.
        misses: What is out of budget, a phrase each.
        failure: Why there is no model.
    """

    recipe: Recipe
    key: str
    seconds: float
    cached: bool = False
    size: Size | None = None
    accuracy: Accuracy | None = None
    parity: Parity | None = None
    latency_ms: float | None = None
    digest: str | None = None
    misses: tuple[str, ...] = ()
    failure: Failure | None = None

    @classmethod
    def of_bundle(cls, recipe: Recipe, bundle: Bundle, *, key: str, seconds: float, cached: bool) -> Trial:
        """Reads the figures from the manifest, latency as measured on this machine."""
        metrics, machine = bundle.manifest.metrics, machine_name()
        measured = [
            each.median_ms for each in metrics.latency if each.machine == machine and each.num_threads == 1
        ]
        return cls(
            recipe=recipe,
            key=key,
            seconds=seconds,
            cached=cached,
            size=metrics.size,
            accuracy=metrics.accuracy,
            parity=metrics.parity,
            latency_ms=measured[0] if measured else None,
            digest=bundle.digest,
        )

    @property
    def status(self) -> TrialStatus:
        """What came of it."""
        if self.failure is not None:
            return TrialStatus.FAILED
        return TrialStatus.OUT_OF_BUDGET if self.misses else TrialStatus.OK

    @property
    def drop(self) -> float | None:
        """Accuracy lost, as a share; negative when it was won."""
        return None if self.accuracy is None else self.accuracy.drop

    @property
    def agreement(self) -> float | None:
        """Share of samples that keep their class."""
        return None if self.parity is None else self.parity.label_agreement

    @property
    def snr_db(self) -> float | None:
        """Signal-to-noise ratio of the worst output; None also where outputs are identical."""
        return None if self.parity is None else self.parity.snr_db


def attempt(try_recipe: TryRecipe, recipe: Recipe) -> Attempt:
    """Tries one recipe; whatever goes wrong is its outcome, not the end of the search."""
    start = time.perf_counter()
    try:
        bundle = try_recipe(recipe).bundle.to_bytes()
    except HybridgeError as error:
        failure = Failure(error.code, error.message)
    except Exception as error:
        # Converters and training raise whatever they please; the next recipe may well work.
        failure = Failure(ErrorCode.INTERNAL, f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
    else:
        return Attempt(recipe=recipe, seconds=time.perf_counter() - start, bundle=bundle)
    return Attempt(recipe=recipe, seconds=time.perf_counter() - start, failure=failure)
