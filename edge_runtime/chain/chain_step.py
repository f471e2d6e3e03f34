"""A step that runs another chain."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_runtime.chain.step import (
    Call,
    Inference,
    StepResult,
    Unsure,
    infer_declared,
    milliseconds_since,
    resolve,
)
from edge_runtime.fallback import Fallback
from edge_runtime.prediction import StageTrace
from edge_runtime.tensor_spec import TensorSpec, Value
from edge_runtime.tensor_type import TensorType

if TYPE_CHECKING:
    from edge_runtime.chain.chain import Chain

__all__ = ["ChainStep"]


class ChainStep:
    """Runs a chain; its stages appear as ``outer/inner`` in the prediction.

    Args:
        chain: The chain within.
        fallback: Whom to ask when the chain's own answer is unsure.
        threshold: The confidence below which that is.
    """

    input_specs: tuple[TensorSpec, ...] = ()

    def __init__(self, chain: Chain, fallback: Fallback | None = None, threshold: float | None = None):
        self.chain, self.fallback, self.threshold = chain, fallback, threshold
        self.takes, self.gives = chain.input_types, chain.output_types

    @property
    def instances(self) -> int | None:
        """Runs that may be under way at once: what the scarcest stage within allows."""
        scarce = [stage.step.instances for stage in self.chain.stages]
        return min((each for each in scarce if each is not None), default=None)

    @property
    def stateful(self) -> bool:
        """Whether a stage within carries a state."""
        return any(stage.step.stateful for stage in self.chain.stages)

    def infer(self, given: Mapping[str, TensorType]) -> Inference:
        """Holds types against what is declared."""
        return infer_declared(self.takes, self.gives, given)

    def run(self, call: Call, inputs: Mapping[str, Value]) -> StepResult:
        """Runs the chain once."""
        start = time.perf_counter()
        left = None if call.deadline is None else max(call.deadline - time.monotonic(), 0.0)
        inner = self.chain.run(inputs, deadline_s=left)
        own = StageTrace(
            call.stage,
            milliseconds_since(start),
            0.0,
            inner.confidence,
            inner.source,
            inner.reason,
            inner.detail,
            label=inner.label,
            parts=tuple(replace(trace, stage=f"{call.stage}/{trace.stage}") for trace in inner.stages),
        )
        outputs = inner.outputs
        if self.fallback is not None:
            start = time.perf_counter()
            unsure = Unsure(inputs, outputs, inner.confidence, self.threshold)
            answer = resolve(self.fallback, call, unsure)
            outputs = outputs if answer.outputs is None else answer.outputs
            own = replace(
                own,
                fallback_ms=milliseconds_since(start),
                source=answer.source,
                reason=answer.reason,
                detail=answer.detail,
            )
        return StepResult(outputs, (own,))

    def run_items(self, call: Call, items: Sequence[Mapping[str, Value]]) -> list[StepResult]:
        """Runs the chain for one item after the other."""
        return [self.run(call, item) for item in items]

    def reset(self) -> None:
        """Begins a new stream in every stage of the chain."""
        self.chain.reset()

    def close(self) -> None:
        """Closes the chain and the fallback."""
        self.chain.close()
        if self.fallback is not None:
            self.fallback.close()
