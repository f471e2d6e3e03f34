"""A step that runs another chain."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_runtime.chain.step import (
    Call,
    Inference,
    StepResult,
    Unsure,
    milliseconds_since,
    resolve,
)
from edge_runtime.fallback import Fallback
from edge_runtime.prediction import StageTrace
from edge_runtime.tensor_spec import TensorSpec, Value
from edge_runtime.tensor_type import ANYTHING, TensorType

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
        self._workers: ThreadPoolExecutor | None = None
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

    @property
    def private(self) -> frozenset[str]:
        """Inputs and outputs of the chain that its stages say must not leave."""
        return self.chain.graph.private.intersection([*self.takes, *self.gives])

    def infer(self, given: Mapping[str, TensorType]) -> Inference:
        """Follows the types through the stages of the chain."""
        graph = self.chain.graph
        known, problems = graph.infer(given)
        mismatches: dict[str, list[str]] = {}
        if problems:
            alone = {name: graph.infer({name: kind})[1] for name, kind in given.items()}
            # What no input brings about on its own is put down to the first.
            mismatches = {name: found for name, found in alone.items() if found} or {
                next(iter(given)): problems
            }
        return Inference(
            {name: known.get(name, ANYTHING) for name in self.gives},
            {
                name: f"{given[name]}, with which in chain '{self.chain.name}' {'; '.join(found)}"
                for name, found in mismatches.items()
            },
        )

    def run(self, call: Call, inputs: Mapping[str, Value]) -> StepResult:
        """Runs the chain once."""
        start = time.perf_counter()
        left = None if call.deadline is None else max(call.deadline - time.monotonic(), 0.0)
        inner = self.chain.run(inputs, deadline_s=left, private=call.private)
        own = StageTrace(
            call.stage,
            milliseconds_since(start),
            0.0,
            inner.confidence,
            inner.source,
            inner.reason,
            inner.detail,
            label=inner.label,
            refused=inner.refused,
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
                # The chain's own label and confidence are none of an answer that came from elsewhere.
                label=own.label if answer.outputs is None and not answer.refused else None,
                confidence=own.confidence if answer.outputs is None else None,
                fallback_ms=milliseconds_since(start),
                source=answer.source,
                reason=answer.reason,
                detail=answer.detail,
                # An answer from elsewhere stands whatever a stage within was refused.
                refused=answer.refused or (own.refused and answer.outputs is None),
                request_id=answer.request_id,
            )
        return StepResult(outputs, own)

    def run_items(self, call: Call, items: Sequence[Mapping[str, Value]]) -> list[StepResult]:
        """Runs the chain for each item, as many at once as its scarcest model has instances."""
        at_once = min(self.instances or 1, len(items))
        if at_once < 2 or self.stateful:
            return [self.run(call, item) for item in items]
        if self._workers is None:
            self._workers = ThreadPoolExecutor(self.instances, f"hybridge-{self.chain.name}")
        return list(self._workers.map(lambda item: self.run(call, item), items))

    def reset(self) -> None:
        """Begins a new stream in every stage of the chain."""
        self.chain.reset()

    def close(self) -> None:
        """Closes the chain and the fallback."""
        if self._workers is not None:
            self._workers.shutdown()
        self.chain.close()
        if self.fallback is not None:
            self.fallback.close()
