"""What a stage does, apart from its name and its wiring: the protocol that models, operators and chains share."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edge_runtime.fallback import Answer, Fallback, Query
from edge_runtime.prediction import Reason, StageTrace
from edge_runtime.tensor_spec import TensorSpec, Value
from edge_runtime.tensor_type import Bindings, TensorType

__all__ = [
    "Call",
    "Inference",
    "Step",
    "StepResult",
    "Unsure",
    "infer_declared",
    "milliseconds_since",
    "resolve",
]


# Calls and results are made for each stage of each run; frozen ones would take three times as long to make.
@dataclass(slots=True)
class Call:
    """What a step knows of the run that it is part of.

    Attributes:
        stage: The stage's name.
        deadline: The moment on `time.monotonic` by which the stage should be done, or None.
        batch_size: Items that one invocation of a model may have.
        private: Whether the stage's data must not leave the device.
    """

    stage: str
    deadline: float | None = None
    batch_size: int = 8
    private: bool = False

    def is_late(self, needed_s: float = 0.0) -> bool:
        """Whether something that takes so many seconds would end after the deadline."""
        return self.deadline is not None and time.monotonic() + needed_s >= self.deadline


@dataclass(slots=True)
class StepResult:
    """Outputs of a step under its own names, with what a prediction needs to know of it."""

    outputs: Mapping[str, Value]
    trace: StageTrace


@dataclass(frozen=True, slots=True)
class Inference:
    """Types of a step's outputs for given types of its inputs, and for each input that cannot be, why."""

    gives: Mapping[str, TensorType]
    mismatches: Mapping[str, str]


def infer_declared(
    takes: Mapping[str, TensorType],
    gives: Mapping[str, TensorType],
    given: Mapping[str, TensorType],
    settings: Mapping[str, Any] | None = None,
) -> Inference:
    """Holds given types against declared ones; `settings` are what names in these may stand for."""
    bindings = Bindings(settings or {})
    mismatches = {
        name: problem
        for name, declared in takes.items()
        if name in given and (problem := bindings.mismatch(declared, given[name]))
    }
    return Inference({name: bindings.resolve(declared) for name, declared in gives.items()}, mismatches)


class Step(Protocol):
    """A model, an operator or a chain, as a stage runs it."""

    @property
    def takes(self) -> Mapping[str, TensorType]:
        """Type of each input."""
        ...

    @property
    def gives(self) -> Mapping[str, TensorType]:
        """Type of each output."""
        ...

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """What a model takes, before its bundle's preprocessing; empty where types are not declared so."""
        ...

    @property
    def instances(self) -> int | None:
        """Runs that may be under way at once without waiting for each other; None for any number."""
        ...

    @property
    def stateful(self) -> bool:
        """Whether it carries a state from run to run, so that their order counts."""
        ...

    @property
    def private(self) -> frozenset[str]:
        """Names of inputs and outputs that must not leave the device, because a stage within says so."""
        ...

    def infer(self, given: Mapping[str, TensorType]) -> Inference:
        """What the outputs are for inputs of these types, and why these cannot be."""
        ...

    def run(self, call: Call, inputs: Mapping[str, Value]) -> StepResult:
        """Runs once, on a value for each name in `takes`."""
        ...

    def run_items(self, call: Call, items: Sequence[Mapping[str, Value]]) -> list[StepResult]:
        """Runs once for each of several inputs; as many together as the step can."""
        ...

    def reset(self) -> None:
        """Begins a new stream."""
        ...

    def close(self) -> None:
        """Releases what the step holds; it is not used again."""
        ...


@dataclass(frozen=True, slots=True)
class Unsure:
    """An answer of the device that a fallback may replace."""

    inputs: Mapping[str, Value]
    outputs: Mapping[str, Value]
    confidence: float | None
    threshold: float | None = None
    agrees: Callable[[Mapping[str, Any]], bool] | None = None


def resolve(fallback: Fallback, call: Call, unsure: Unsure) -> Answer:
    """Asks a fallback; whatever is wrong with it, the device's own answer is kept.

    It decides about private data too, so that its policy may refuse an answer, but it is not given them.
    """
    query = Query(
        call.stage,
        {} if call.private else unsure.inputs,
        unsure.outputs,
        unsure.confidence,
        unsure.threshold,
        call.deadline,
        call.private,
        unsure.agrees,
    )
    try:
        answer = fallback.resolve(query)
    except Exception as error:
        # The device has an answer, and an answer is what it is there for.
        logging.getLogger(__name__).warning("fallback of stage '%s' failed", call.stage, exc_info=True)
        return Answer.keep(Reason.FALLBACK_FAILED, f"{type(error).__name__}: {error}")
    if answer.outputs is not None and call.private:
        return Answer.keep(Reason.FALLBACK_FAILED, "an answer from elsewhere to private data")
    if answer.outputs is not None and answer.outputs.keys() != query.outputs.keys():
        return Answer.keep(
            Reason.CLOUD_REFUSED,
            f"received outputs {', '.join(answer.outputs)}, expected {', '.join(query.outputs)}",
        )
    return answer


def milliseconds_since(start: float) -> float:
    """Milliseconds since a moment of `time.perf_counter`."""
    return (time.perf_counter() - start) * 1e3
