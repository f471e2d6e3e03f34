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
        self._kinds = step.infer({}).gives
        free = any(isinstance(_first(step.takes[name]), str) for name in self.over)
        # A first axis of free size is that of a batch only in a model whose batch is free.
        self._batched = {
            name: self._lifts and (_first(kind) == 1 or (free and isinstance(_first(kind), str)))
            for name, kind in self._kinds.items()
        }
        self._templates = {
            lifted: {name: self._template(name, lifted=lifted) for name in self._kinds}
            for lifted in (False, True)
        }
        self.gives = self._gathered(self._kinds, None if self._lifts else False)

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

    @property
    def private(self) -> frozenset[str]:
        """What must not leave, as the step has it."""
        return self.step.private

    def infer(self, given: Mapping[str, TensorType]) -> Inference:
        """Holds the type of an item against what the step takes."""
        lifted = [self._is_lifted(name, kind.item()) for name, kind in given.items() if name in self.over]
        items = {
            name: _with_batch_axis(kind.item()) if self._is_lifted(name, kind.item()) else kind.item()
            for name, kind in given.items()
            if name in self.over
        }
        inner = self.step.infer({**given, **items})
        known = True if True in lifted else (None if None in lifted or not lifted else False)
        return Inference(
            self._gathered(inner.gives, known if self._lifts else False),
            {
                name: f"{'items of ' if name in self.over else ''}{problem}"
                for name, problem in inner.mismatches.items()
            },
        )

    def run(self, call: Call, inputs: Mapping[str, Value]) -> StepResult:
        """Runs the step for each item."""
        count = self._count(inputs)
        lifted = self._lifts and not count and not self._has_batch_axis(inputs)
        items: list[dict[str, Value]] = []
        for index in range(count):
            item = dict(inputs)
            for name in self.over:
                value = inputs[name]
                # With the dots, an item of an array is an array even when it is a single value.
                each = value[index, ...] if isinstance(value, np.ndarray) else value[index]
                if self._lifts and isinstance(each, np.ndarray) and each.ndim + 1 == self._ranks[name]:
                    each, lifted = each[np.newaxis], True
                item[name] = each
            items.append(item)
        results = self.step.run_items(call, items)
        outputs = {name: self._gather(name, results, lifted) for name in self.gives}
        return StepResult(outputs, _trace(call.stage, [result.trace for result in results]))

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
            if not isinstance(value, list | tuple) and (not isinstance(value, np.ndarray) or not value.ndim):
                raise HybridgeError(
                    ErrorCode.INPUT_SHAPE,
                    f"items of '{name}'",
                    received="one value" if isinstance(value, np.ndarray) else type(value).__name__,
                    expected="a list of arrays, or an array with items along its first axis",
                )
            counts[name] = len(value)
        if len(set(counts.values())) != 1:
            raise HybridgeError(
                ErrorCode.INPUT_SHAPE,
                "items to run for",
                received=", ".join(f"{count} of '{name}'" for name, count in counts.items()),
                expected="the same number of each",
            )
        return next(iter(counts.values()))

    def _has_batch_axis(self, inputs: Mapping[str, Value]) -> bool:
        """Whether there would be a batch axis in each of no items, as far as an array without any says."""
        values = {name: inputs[name] for name in self.over}
        return all(
            isinstance(each, np.ndarray) and each.ndim - 1 == self._ranks[name]
            for name, each in values.items()
        )

    def _is_lifted(self, name: str, kind: TensorType) -> bool | None:
        """Whether an item of this type is given a batch axis; None when its rank is not known."""
        rank = _rank(kind)
        return None if not self._lifts or rank is None else rank + 1 == self._ranks[name]

    def _gathered(self, gives: Mapping[str, TensorType], lifted: bool | None) -> dict[str, TensorType]:
        """Types of the gathered results; `lifted` is None when it is not known whether items lack a batch axis."""
        gathered = {}
        for name, kind in gives.items():
            if lifted is None and self._batched[name]:
                gathered[name] = TensorType(kind.dtype)
                continue
            template = self._templates[bool(lifted)][name]
            if template is None:
                gathered[name] = replace(self._result(name, kind, lifted=bool(lifted)), items=True)
            else:
                dtype = "text" if template.dtype.kind == "U" else template.dtype.name
                gathered[name] = TensorType(dtype, ("items", *template.shape), items=False)
        return gathered

    def _result(self, name: str, kind: TensorType, *, lifted: bool) -> TensorType:
        """The type of one item's result, without the batch axis that only the model has."""
        return replace(kind, shape=kind.shape[1:]) if lifted and self._batched[name] and kind.shape else kind

    def _template(self, name: str, *, lifted: bool) -> Array | None:
        """An array like one item's result, where its type has one shape."""
        kind = self._result(name, self._kinds[name], lifted=lifted)
        if kind.shape is None or kind.dtype is None or "|" in kind.dtype or kind.items:
            return None
        sizes = [size for size in kind.shape if isinstance(size, int)]
        if len(sizes) != len(kind.shape) or (len(kind.dtype) == 1 and kind.dtype.isupper()):
            return None
        dtype = {"text": "<U1", "bytes": "object"}.get(kind.dtype, kind.dtype)
        return np.empty(sizes, np.dtype(dtype))

    def _gather(self, name: str, results: Sequence[StepResult], lifted: bool) -> Value:
        template = self._templates[lifted][name]
        arrays: list[Array] = []
        for index, result in enumerate(results):
            value = result.outputs.get(name)
            if value is None or isinstance(value, list):
                raise _refusal(
                    name,
                    index,
                    "nothing, as its stage was passed over" if value is None else "items of its own",
                    "an array",
                    "bring its branches together with a join"
                    if value is None
                    else "flatten them in a chain of their own",
                )
            array = np.asarray(value)
            if lifted and self._batched[name] and array.ndim and array.shape[0] == 1:
                array = array[0]
            if template is not None and array.shape != template.shape:
                raise _refusal(
                    name, index, f"shape {array.shape}", f"shape {template.shape}, as it is declared", ""
                )
            arrays.append(array)
        if template is None:
            return arrays
        if len(arrays) == 1:
            return arrays[0][np.newaxis]
        return np.stack(arrays) if arrays else template[np.newaxis][:0]


def _refusal(name: str, index: int, received: str, expected: str, fix: str) -> HybridgeError:
    what = f"result '{name}' of item {index}"
    return HybridgeError(ErrorCode.OPERATOR_FAILED, what, received=received, expected=expected, fix=fix)


def _first(kind: TensorType) -> int | str | None:
    return kind.shape[0] if kind.shape else None


def _with_batch_axis(kind: TensorType) -> TensorType:
    return replace(kind, shape=(1, *(kind.shape or ())))


def _rank(kind: TensorType) -> int | None:
    return None if kind.shape is None or "..." in kind.shape else len(kind.shape)


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
        refused=any(part.refused for part in parts),
        parts=parts,
    )
