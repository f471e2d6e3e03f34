"""A step that brings alternative branches together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge_runtime.chain.step import Call, Inference, StepResult
from edge_runtime.prediction import StageTrace
from edge_runtime.tensor_spec import TensorSpec, Value
from edge_runtime.tensor_type import ANYTHING, TensorType

__all__ = ["JoinStep"]


class JoinStep:
    """Gives the first of its inputs that was made in this run; branches with conditions meet here."""

    input_specs: tuple[TensorSpec, ...] = ()
    instances: int | None = None
    stateful: bool = False
    private: frozenset[str] = frozenset()

    def __init__(self, inputs: Sequence[str]):
        self.takes = dict.fromkeys(inputs, ANYTHING)
        self.gives = {"joined": ANYTHING}

    def infer(self, given: Mapping[str, TensorType]) -> Inference:
        """What all branches have in common, where all are known."""
        kinds = {given.get(name, ANYTHING) for name in self.takes}
        return Inference({"joined": kinds.pop() if len(kinds) == 1 else ANYTHING}, {})

    def run(self, call: Call, inputs: Mapping[str, Value]) -> StepResult:
        """The first of the inputs, in the order that the join lists them, that is there."""
        first = next(inputs[name] for name in self.takes if name in inputs)
        return StepResult({"joined": first}, StageTrace(call.stage, 0.0))

    def run_items(self, call: Call, items: Sequence[Mapping[str, Value]]) -> list[StepResult]:
        """The same for each item."""
        return [self.run(call, item) for item in items]

    def reset(self) -> None:
        """A join keeps nothing."""

    def close(self) -> None:
        """A join holds nothing."""
