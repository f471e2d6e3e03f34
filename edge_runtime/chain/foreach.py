"""A step run once for each of several items, and the results gathered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edge_runtime.chain.step import Call, Inference, Step, StepResult
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.prediction import StageTrace
from edge_runtime.tensor_spec import Array, TensorSpec, Value
from edge_runtime.tensor_type import TensorType

__all__ = ["Foreach"]


class Foreach:
    """Runs a step for each item of some of its inputs; its other inputs are the same for all.

    Items are those of a list, or an array's along its first axis. A model gets as many at once as it takes, up to the
    stage's batch size, and an item that lacks its batch axis is given one, which its results lose again.

    A result whose type has one fixed shape is gathered as one array with the items first; others are a list.

    Args:
        step: What is run.
        over: Names of the inputs that have items; all have the same number.
    """

    def __init__(self, step: Step, over: Sequence[str]):
        self.step, self.over = step, tuple(over)
        if unknown := [name for name in over if name not in step.takes]:
            raise HybridgeError(
                ErrorCode.CHAIN_INVALID,
                "foreach",
                received=", ".join(unknown),
                expected=f"names among the inputs {', '.join(step.takes)}",
            )
        # Only what is declared as a model's tensor has a batch axis that may be left out.
        self._lifts = bool(step.input_specs)
        self._ranks = {name: _rank(kind) for name, kind in step.takes.items()}
        self.takes = {name: TensorType() if name in self.over else kind for name, kind in step.takes.items()}
        self._templates = {
            name: _template(kind, lifted=self._lifts) for name, kind in step.infer({}).gives.items()
        }
        self.gives = {name: self._gathered(name, kind) for name, kind in step.infer({}).gives.items()}

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """None: what the step takes is not what the stage takes."""
        return ()

    @property
    def instances(self) -> int | None:
        """Runs that may be under way at once, as the step has it."""
        return self.step.instances

    @property
    def stateful(self) -> bool:
        """Whether the step carries a state."""
        return self.step.stateful

    def infer(self, given: Mapping[str, TensorType]) -> Inference:
        """Holds the type of an item against what the step takes."""
        items = {
            name: self._lifted(name, kind.item()) if name in self.over else kind
            for name, kind in given.items()
        }
        inner = self.step.infer(items)
        # What is known of the items decides how results are gathered: more have one shape than the step declares.
        self._templates = {name: _template(kind, lifted=self._lifts) for name, kind in inner.gives.items()}
        return Inference(
            {name: self._gathered(name, kind) for name, kind in inner.gives.items()},
            {
                name: f"{'items of ' if name in self.over else ''}{problem}"
                for name, problem in inner.mismatches.items()
            },
        )

    def run(self, call: Call, inputs: Mapping[str, Value]) -> StepResult:
        """Runs the step for each item."""
        count = self._count(inputs)
        lifted = False
        items: list[dict[str, Value]] = []
        for index in range(count):
            item: dict[str, Value] = {}
            for name, value in inputs.items():
                each = value[index] if name in self.over else value
                if (
                    self._lifts
                    and name in self.over
                    and isinstance(each, np.ndarray)
                    and each.ndim + 1 == self._ranks[name]
                ):
                    each, lifted = each[np.newaxis], True
                item[name] = each
            items.append(item)
        results = self.step.run_items(call, items)
        outputs = {
            name: self._gather(name, [result.outputs[name] for result in results], lifted)
            for name in self.gives
        }
        return StepResult(outputs, (_trace(call.stage, [result.trace for result in results]),))

    def run_items(self, call: Call, items: Sequence[Mapping[str, Value]]) -> list[StepResult]:
        """Runs for the items of each item."""
        return [self.run(call, item) for item in items]

    def reset(self) -> None:
        """Begins a new stream in the step."""
        self.step.reset()

    def close(self) -> None:
        """Releases what the step holds."""
        self.step.close()

    def _count(self, inputs: Mapping[str, Value]) -> int:
        counts = {}
        for name in self.over:
            value = inputs[name]
            counts[name] = 0 if isinstance(value, np.ndarray) and value.ndim == 0 else len(value)
        if len(set(counts.values())) != 1:
            raise HybridgeError(
                ErrorCode.INPUT_SHAPE,
                "items to run for",
                received=", ".join(f"{count} of '{name}'" for name, count in counts.items()),
                expected="the same number of each",
            )
        return next(iter(counts.values()))

    def _lifted(self, name: str, kind: TensorType) -> TensorType:
        rank = self._ranks[name]
        if self._lifts and kind.shape is not None and "..." not in kind.shape and len(kind.shape) + 1 == rank:
            return replace(kind, shape=(1, *kind.shape))
        return kind

    def _gathered(self, name: str, kind: TensorType) -> TensorType:
        template = self._templates[name]
        if template is None:
            shape = kind.shape[1:] if self._lifts and kind.shape else kind.shape
            return TensorType(kind.dtype, shape, items=True)
        dtype = "text" if template.dtype.kind == "U" else template.dtype.name
        return TensorType(dtype, ("items", *template.shape), items=False)

    def _gather(self, name: str, values: list[Value], lifted: bool) -> Value:
        arrays: list[Array] = []
        for value in values:
            if not isinstance(value, np.ndarray):
                raise HybridgeError(
                    ErrorCode.OPERATOR_FAILED,
                    f"result '{name}' of an item",
                    received="items of its own",
                    expected="an array",
                    fix="flatten them in a chain of their own",
                )
            arrays.append(value[0] if lifted and value.ndim and value.shape[0] == 1 else value)
        template = self._templates[name]
        if template is None:
            return arrays
        return np.stack(arrays) if arrays else np.empty((0, *template.shape), template.dtype)


def _rank(kind: TensorType) -> int | None:
    return None if kind.shape is None or "..." in kind.shape else len(kind.shape)


def _template(kind: TensorType, *, lifted: bool) -> Array | None:
    """An array like one item's result, where its type has one shape."""
    shape = kind.shape
    if shape is None or kind.dtype is None or "|" in kind.dtype or kind.items:
        return None
    shape = shape[1:] if lifted and shape else shape
    sizes = [size for size in shape if isinstance(size, int)]
    if len(sizes) != len(shape) or (len(kind.dtype) == 1 and kind.dtype.isupper()):
        return None
    dtype = {"text": "<U1", "bytes": "object"}.get(kind.dtype, kind.dtype)
    return np.empty(sizes, np.dtype(dtype))


def _trace(stage: str, items: list[StageTrace]) -> StageTrace:
    """One trace for all items: their times together, and the answer of the least sure of them."""
    parts = tuple(replace(trace, stage=f"{stage}[{index}]") for index, trace in enumerate(items))
    scored = [part for part in parts if part.confidence is not None]
    if not scored:
        return StageTrace(stage, sum(part.device_ms for part in parts), parts=parts)
    least = min(scored, key=lambda part: part.confidence or 0.0)
    return replace(
        least,
        stage=stage,
        device_ms=sum(part.device_ms for part in parts),
        # Asked side by side, as far as they were.
        fallback_ms=max(part.fallback_ms for part in parts),
        label=least.label if len(parts) == 1 else None,
        parts=parts,
    )
