"""One run of a chain: its tensors, and what each stage said."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.chain.join_step import JoinStep
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.prediction import Prediction, Reason, StageTrace
from edge_runtime.tensor_spec import Array, Value

if TYPE_CHECKING:
    from edge_runtime.chain.chain import Chain
    from edge_runtime.chain.stage import Stage

__all__ = ["Run"]


class Run:
    """Takes a chain's stages one by one, in any order that their tensors allow, and from any thread.

    Args:
        chain: The chain.
        inputs: A value for each of its inputs.
        deadline: The moment on `time.monotonic` by which the run should be done, or None.
        private: Whether nothing of the run may leave the device.
    """

    def __init__(
        self, chain: Chain, inputs: Mapping[str, Value], deadline: float | None, *, private: bool = False
    ):
        self._chain = chain
        self._tensors: dict[str, Value] = dict(inputs)
        self._traces: list[StageTrace | None] = [None] * len(chain.stages)
        self._deadline = deadline
        self._deadlines = None if deadline is None else chain.pace.deadlines(deadline)
        self._private = private
        self._start = time.perf_counter()

    def step(self, index: int) -> None:
        """Runs one stage, or passes it over when its condition is false or what it needs was not made.

        Raises:
            HybridgeError: What the stage raises; `chain-late` when the chain drops what is late and it is.
        """
        stage = self._chain.stages[index]
        tensors = self._tensors
        inputs = {name: tensors[tensor] for name, tensor in stage.inputs.items() if tensor in tensors}
        # A join takes what there is.
        is_ready = len(inputs) == len(stage.inputs) or (bool(inputs) and isinstance(stage.step, JoinStep))
        if not is_ready or (stage.when is not None and not stage.when.holds(tensors, self._by_name())):
            self._traces[index] = StageTrace(stage.name, 0.0, skipped=True)
            self._chain.metrics.stage_skipped(stage.name)
            return
        self._drop_if_late(stage)
        start = time.perf_counter()
        try:
            result = stage.run(
                inputs,
                self._deadlines[index] if self._deadlines else None,
                private=self._private or index in self._chain.graph.private_stages,
            )
        except HybridgeError:
            self._chain.metrics.stage_failed(stage.name)
            raise
        seconds = time.perf_counter() - start
        self._chain.pace.saw(index, seconds)
        items = result.trace.parts if stage.has_items else None
        self._chain.metrics.stage_ran(stage.name, seconds * 1e3, result.trace, items=items or ())
        for name, tensor in stage.outputs.items():
            # What a stage within a nested chain would have made, and was passed over, is not there.
            if name in result.outputs:
                tensors[tensor] = result.outputs[name]
        for what, tensor in (stage.report or {}).items():
            tensors[tensor] = _reported(what, result.trace, items)
        self._traces[index] = result.trace

    def finish(self) -> Prediction:
        """The prediction, once all stages have been taken."""
        traces = tuple(trace for trace in self._traces if trace is not None)
        outputs = {name: self._tensors[name] for name in self._chain.outputs if name in self._tensors}
        elapsed_ms = (time.perf_counter() - self._start) * 1e3
        # An answer from elsewhere decides too, whether or not it can be scored here.
        deciding = [
            trace
            for trace in traces
            if trace.confidence is not None or trace.reason is not Reason.NO_FALLBACK
        ]
        confidence = deciding[-1].confidence if deciding else None
        if self._chain.confidence in self._tensors:
            confidence = _least(self._chain.confidence, self._tensors[self._chain.confidence])
        refused = any(trace.refused for trace in deciding)
        if not deciding:
            prediction = Prediction(outputs, confidence=confidence, stages=traces, elapsed_ms=elapsed_ms)
        else:
            last = deciding[-1]
            prediction = Prediction(
                outputs,
                None if refused else last.label,
                confidence,
                last.source,
                last.reason,
                last.detail,
                refused,
                stages=traces,
                elapsed_ms=elapsed_ms,
            )
        self._chain.metrics.chain_ran(prediction)
        return prediction

    def _by_name(self) -> dict[str, StageTrace]:
        return {trace.stage: trace for trace in self._traces if trace is not None}

    def _drop_if_late(self, stage: Stage) -> None:
        if self._deadline is None or self._chain.late == "finish" or time.monotonic() < self._deadline:
            return
        late_ms = (time.monotonic() - self._deadline) * 1e3
        raise HybridgeError(
            ErrorCode.CHAIN_LATE,
            f"chain '{self._chain.name}'",
            received=f"its deadline {late_ms:.0f} ms ago, before stage '{stage.name}'",
            expected="to be done by then",
            fix="allow more time, or set late = 'finish' to have the answer anyway",
        )


def _least(name: str, value: Value) -> float | None:
    """The least of a confidence's numbers, where what is no number counts as none at all; None without any."""
    arrays = [np.asarray(each) for each in (value if isinstance(value, list) else [value])]
    if any(array.dtype.kind not in "fiu" for array in arrays):
        raise HybridgeError(
            ErrorCode.CHAIN_INVALID,
            f"confidence '{name}'",
            received=", ".join(sorted({array.dtype.type.__name__ for array in arrays})),
            expected="numbers in 0..1",
        )
    return min((float(np.nan_to_num(array, nan=0.0).min()) for array in arrays if array.size), default=None)


def _reported(what: str, trace: StageTrace, items: Sequence[StageTrace] | None) -> Array:
    """What a stage says of its answer, as a tensor: one value, or one for each of its items."""
    traces = [trace] if items is None else items
    values: Array
    if what == "confidence":
        values = np.array(
            [np.nan if each.confidence is None else each.confidence for each in traces], np.float32
        )
    else:
        values = np.array([str(getattr(each, what) or "") for each in traces], dtype=np.str_)
    return values.reshape(()) if items is None else values
