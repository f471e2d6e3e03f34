"""The place of a tier in a stage, where a newer bundle can take over while calls go on.

A swap loads and verifies the new bundle, holds its signature against the old one's, warms it, compares it on a canary
input, and only then switches; a model that carries a state begins a new stream. For the first calls the old model stays
loaded: when the new one fails, the failed call and all later ones are answered by the old.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.chain.tier import Tier, TierAnswer
from edge_runtime.errors import ErrorCode, HybridgeError, Kind
from edge_runtime.model import Model
from edge_runtime.tensor_spec import Array

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle

__all__ = ["Canary", "SwapState", "TierSlot"]

_log = logging.getLogger(__name__)


class SwapState(StrEnum):
    """How a swap stands."""

    TRIAL = "trial"
    KEPT = "kept"
    ROLLED_BACK = "rolled-back"


@dataclass(frozen=True, slots=True)
class Canary:
    """An input on which the new model must agree with the old before it is let in.

    Attributes:
        inputs: An array for each of the stage's inputs.
        max_difference: How far outputs may be from the old model's, as a share of the largest of these; None to ask
            only that they are finite and that the most likely class is the same, where the stage is scored.
    """

    inputs: Mapping[str, Array]
    max_difference: float | None = None


@dataclass(frozen=True, slots=True)
class _Holding:
    """Who answers; during a trial, also who did before and how many calls are left."""

    tier: Tier
    previous: Tier | None = None


class TierSlot:
    """Runs the tier that holds the place, whichever that is at the moment."""

    def __init__(self, tier: Tier):
        self._holding = _Holding(tier)
        self._calls_left = 0
        self._lock = threading.Lock()
        self._swapping = threading.Lock()
        self.state: SwapState | None = None
        self.detail = ""

    @property
    def tier(self) -> Tier:
        """The tier that answers now."""
        return self._holding.tier

    def run(self, items: Sequence[Mapping[str, Any]], *, batch_size: int) -> list[TierAnswer]:
        """Answers for each item, also while tiers change places."""
        while True:
            holding = self._holding
            try:
                answers = holding.tier.run(items, batch_size=batch_size)
            except HybridgeError as error:
                if error.code is ErrorCode.MODEL_CLOSED and holding is not self._holding:
                    continue
                # What the caller gave wrongly is no fault of the new model.
                if holding.previous is None or error.code.kind is Kind.INVALID:
                    raise
                self._roll_back(holding, error.message)
                continue
            if holding.previous is not None:
                if _finite_inputs(items) and not all(_finite(answer.outputs) for answer in answers):
                    self._roll_back(holding, "its outputs are not finite")
                    continue
                self._count(holding)
            return answers

    def swap(
        self,
        source: Bundle | str | PathLike[str],
        *,
        canary: Canary | None = None,
        trial_calls: int = 100,
    ) -> None:
        """Lets the model of a newer bundle take this place.

        Args:
            source: The bundle, or a path to it.
            canary: An input to compare on; without it, zeros, on which outputs must be finite.
            trial_calls: Calls for which the old model stays loaded, to take over again when the new one fails.

        Raises:
            HybridgeError: What opening the bundle raises; `swap-refused` for a model that takes or gives something
                else, fails, or disagrees on the canary input. The old model then goes on as if nothing had been.
        """
        with self._swapping:
            old = self._holding.tier
            model = Model(
                source,
                num_threads=old.model.num_threads,
                dequantize=old.model.dequantize,
                instances=old.model.instances,
                states=old.model.states,
                budget=old.model.budget,
            )
            try:
                new = Tier(
                    model,
                    confidence=old.given_confidence,
                    labels=old.given_labels,
                    inputs=old.given_inputs,
                    outputs=old.given_outputs,
                )
                _check_signature(old, new)
                reference = None
                if canary is not None:
                    _check_canary(canary, old)
                    reference = self._answer_afresh(canary.inputs)
                _compare(old, new, canary, reference)
            except BaseException:
                model.close()
                raise
            with self._lock:
                before = self._holding
                # Whoever holds the place on trial has proved nothing: the one before him would take over again.
                proven = before.previous or before.tier
                self._calls_left = trial_calls
                self._holding = after = _Holding(new, proven if trial_calls else None)
                self.state = SwapState.TRIAL if trial_calls else SwapState.KEPT
                self.detail = f"{_title(new)} in place of {_title(before.tier)}"
            for done in {before.tier, proven} - {after.previous}:
                done.model.close(wait=False)

    def _answer_afresh(self, item: Mapping[str, Any]) -> TierAnswer:
        while True:
            holding = self._holding
            try:
                return holding.tier.answer_afresh(item)
            except HybridgeError as error:
                # A trial has ended meanwhile.
                if error.code is not ErrorCode.MODEL_CLOSED or holding is self._holding:
                    raise

    def _count(self, holding: _Holding) -> None:
        with self._lock:
            if self._holding is not holding:
                return
            self._calls_left -= 1
            if self._calls_left > 0:
                return
            self._holding = _Holding(holding.tier)
            self.state = SwapState.KEPT
        if holding.previous is not None:
            holding.previous.model.close(wait=False)

    def _roll_back(self, holding: _Holding, why: str) -> None:
        with self._lock:
            if self._holding is not holding or holding.previous is None:
                return
            self._holding = _Holding(holding.previous)
            self.state = SwapState.ROLLED_BACK
            self.detail = f"{_title(holding.tier)} gave way to {_title(holding.previous)}: {why}"
        _log.warning("%s", self.detail)
        holding.tier.model.close(wait=False)


def _title(tier: Tier) -> str:
    bundle = tier.model.bundle
    return f"{tier.model.name} {bundle.manifest.version}" if bundle else tier.model.name


def _check_signature(old: Tier, new: Tier) -> None:
    """Refuses a model that does not take all that the old one took, or gives something else."""
    for what, before, after in (("inputs", old.takes, new.takes), ("outputs", old.gives, new.gives)):
        fits = before.keys() == after.keys() and all(
            # Whatever the old model took, the new one must take; whatever it gives, the old one could have given.
            before[name].is_within(after[name]) if what == "inputs" else after[name].is_within(before[name])
            for name in before
        )
        if not fits:
            raise HybridgeError(
                ErrorCode.SWAP_REFUSED,
                f"{what} of {_title(new)}",
                received=", ".join(f"{name} {kind}" for name, kind in after.items()),
                expected=", ".join(f"{name} {kind}" for name, kind in before.items()),
                fix="a model of another signature is another chain",
            )
    if (old.scorer and not new.scorer) or (old.threshold is not None and new.threshold is None):
        raise HybridgeError(
            ErrorCode.SWAP_REFUSED,
            f"confidence of {_title(new)}",
            received="no threshold" if new.scorer else "none",
            expected="one, as the stage decides by it",
            fix="convert it again with a confidence, or name one in the stage",
        )


def _check_canary(canary: Canary, old: Tier) -> None:
    if canary.inputs.keys() != old.takes.keys():
        raise HybridgeError(
            ErrorCode.INPUT_MISSING if old.takes.keys() - canary.inputs.keys() else ErrorCode.INPUT_UNKNOWN,
            "canary inputs",
            received=", ".join(canary.inputs) or "none",
            expected=", ".join(old.takes),
        )


def _compare(old: Tier, new: Tier, canary: Canary | None, before: TierAnswer | None) -> None:
    try:
        answer = new.warm_up(canary.inputs if canary else None)
    except HybridgeError as error:
        if canary is not None and error.code.kind is Kind.INVALID:
            raise
        raise _refused(new, f"an error on its first run: {error.message}") from error
    if not _finite(answer.outputs):
        raise _refused(new, "outputs that are not finite")
    if canary is None or before is None:
        return
    if canary.max_difference is None:
        if old.best(before.outputs) != new.best(answer.outputs):
            raise _refused(
                new,
                f"'{new.best(answer.outputs)}' for the canary input",
                f"'{old.best(before.outputs)}', as the model in use says",
            )
        return
    for name, reference in before.outputs.items():
        array = answer.outputs[name]
        if reference.shape != array.shape:
            raise _refused(
                new,
                f"'{name}' of shape {array.shape} for the canary input",
                f"shape {reference.shape}, as the model in use gives",
            )
        difference = np.abs(reference.astype(np.float64) - array).max(initial=0.0)
        share = difference / max(float(np.abs(reference).max(initial=0.0)), np.finfo(np.float32).tiny)
        if not share <= canary.max_difference:
            raise _refused(
                new,
                f"'{name}' {share:.3g} away from the model in use on the canary input",
                f"{canary.max_difference:.3g} at most",
            )


def _refused(new: Tier, received: str, expected: str = "") -> HybridgeError:
    return HybridgeError(
        ErrorCode.SWAP_REFUSED,
        f"swap to {_title(new)}",
        received=received,
        expected=expected,
        fix="the model in use goes on; convert the new one again and compare",
    )


def _finite(outputs: Mapping[str, Array]) -> bool:
    return all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in outputs.values())


def _finite_inputs(items: Sequence[Mapping[str, Any]]) -> bool:
    return all(_finite({name: np.asarray(value) for name, value in item.items()}) for item in items)
