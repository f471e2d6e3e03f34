"""A step that applies an operator."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from edge_runtime.chain.step import Call, Inference, StepResult, infer_declared, milliseconds_since
from edge_runtime.operators import find_operator
from edge_runtime.prediction import StageTrace
from edge_runtime.tensor_spec import TensorSpec, Value
from edge_runtime.tensor_type import TensorType

__all__ = ["OperatorStep"]


class OperatorStep:
    """Applies an operator with fixed settings.

    Raises:
        HybridgeError: `operator-unknown`; `chain-invalid` for settings that the operator does not have.
    """

    input_specs: tuple[TensorSpec, ...] = ()
    instances: int | None = None
    stateful: bool = False
    private: frozenset[str] = frozenset()

    def __init__(self, operator: str, params: Mapping[str, Any]):
        self.operator = find_operator(operator)
        self.operator.check_params(params)
        self.params = dict(params)
        self.takes, self.gives = self.operator.takes, self.operator.gives
        self._settings = {**self.operator.settings, **self.params}

    def infer(self, given: Mapping[str, TensorType]) -> Inference:
        """Holds types against what is declared."""
        return infer_declared(self.takes, self.gives, given, self._settings)

    def run(self, call: Call, inputs: Mapping[str, Value]) -> StepResult:
        """Applies it once."""
        start = time.perf_counter()
        outputs = self.operator.run(inputs, self.params)
        return StepResult(outputs, StageTrace(call.stage, milliseconds_since(start)))

    def run_items(self, call: Call, items: Sequence[Mapping[str, Value]]) -> list[StepResult]:
        """Applies it to one item after the other."""
        return [self.run(call, item) for item in items]

    def reset(self) -> None:
        """An operator keeps nothing."""

    def close(self) -> None:
        """An operator holds nothing."""
