"""A chain: a graph of stages over named tensors, run in the order that the tensors ask for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.fallback import Fallback
from edge_runtime.model import Inputs, Model
from edge_runtime.prediction import Prediction, StageTrace
from edge_runtime.stage import Stage
from edge_runtime.tensor_spec import Array

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle
    from edge_runtime.manifest import Confidence

__all__ = ["Chain"]


class Chain:
    """Stages that run one after the other, each on what the chain was given or earlier stages made.

    A chain may be called from many threads.

    Args:
        stages: The stages, in any order.
        name: What to call the chain in errors.
        outputs: Names of the tensors it returns; without them, those that no stage takes in.

    Raises:
        HybridgeError: `chain-invalid`, with all that is wrong at once.

    Example:
        >>> chain = Chain([
        ...     Stage.from_operator("scale", "scale", inputs={"array": "image"}, outputs={"array": "x"},
        ...                         params={"factor": 1 / 255}),
        ...     Stage.from_model("classify", Model("digits-1.0.edge"), inputs={"image": "x"}),
        ... ])
        >>> chain.run({"image": image}).label
        '7'
    """

    def __init__(self, stages: Iterable[Stage], *, name: str = "chain", outputs: Iterable[str] = ()):
        self.name = name
        given = tuple(stages)
        self._refuse(_name_problems(given))
        self.stages: tuple[Stage, ...] = _in_order(given, name)
        made = {tensor for stage in self.stages for tensor in stage.outputs.values()}
        taken = {tensor: None for stage in self.stages for tensor in stage.inputs.values()}
        self._outputs = tuple(outputs) or tuple(
            tensor for stage in self.stages for tensor in stage.outputs.values() if tensor not in taken
        )
        self._inputs = tuple(tensor for tensor in taken if tensor not in made)
        self._refuse(
            [f"output '{tensor}' is made by no stage" for tensor in self._outputs if tensor not in made]
        )

    @classmethod
    def from_bundle(
        cls,
        source: Bundle | Model | str | PathLike[str],
        *,
        confidence: Confidence | None = None,
        fallback: Fallback | None = None,
        num_threads: int = 1,
    ) -> Chain:
        """A chain of the one model in a bundle, with its preprocessing, labels and confidence.

        Args:
            source: A bundle, a path to one or to a `.tflite`, or a loaded model.
            confidence: How to score the outputs, in place of what the bundle says.
            fallback: Whom to ask when the model is unsure.
            num_threads: Threads that one invocation may use; of no effect on a loaded model.
        """
        model = source if isinstance(source, Model) else Model(source, num_threads=num_threads)
        return cls(
            [Stage.from_model(model.name, model, confidence=confidence, fallback=fallback)], name=model.name
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that a caller gives."""
        return self._inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors that a caller gets."""
        return self._outputs

    def run(self, inputs: Inputs, *, deadline_s: float | None = None) -> Prediction:
        """Runs every stage once.

        Args:
            inputs: An array for each name in `inputs`, or one array for a chain with one input.
            deadline_s: Seconds from now after which no fallback is waited for.

        Returns:
            The outputs, with label, confidence, source and reason of the last stage that is scored: the one that
            decides.

        Raises:
            HybridgeError: `input-missing`, `input-unknown`, and what stages raise.
        """
        deadline = None if deadline_s is None else time.monotonic() + deadline_s
        tensors = dict(self._named(inputs))
        traces: list[StageTrace] = []
        label = None
        for stage in self.stages:
            result = stage.run({name: tensors[tensor] for name, tensor in stage.inputs.items()}, deadline)
            for name, tensor in stage.outputs.items():
                tensors[tensor] = result.outputs[name]
            traces.extend(result.traces)
            if result.traces[-1].confidence is not None:
                label = result.label
        outputs = {name: tensors[name] for name in self._outputs}
        scored = [trace for trace in traces if trace.confidence is not None]
        if not scored:
            return Prediction(outputs, stages=tuple(traces))
        last = scored[-1]
        return Prediction(
            outputs, label, last.confidence, last.source, last.reason, last.detail, stages=tuple(traces)
        )

    def close(self) -> None:
        """Closes the fallbacks of its stages; the chain is not used again."""
        for stage in self.stages:
            if stage.fallback is not None:
                stage.fallback.close()

    def __enter__(self) -> Chain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Chain({self.name!r}, stages={[stage.name for stage in self.stages]})"

    def _named(self, inputs: Inputs) -> Mapping[str, Array]:
        if not isinstance(inputs, Mapping):
            if len(self._inputs) != 1:
                raise HybridgeError(
                    ErrorCode.INPUT_MISSING,
                    f"chain '{self.name}'",
                    received="one array without a name",
                    expected=f"arrays named {', '.join(self._inputs)}",
                )
            return {self._inputs[0]: inputs}
        if inputs.keys() != set(self._inputs):
            missing = [name for name in self._inputs if name not in inputs]
            raise HybridgeError(
                ErrorCode.INPUT_MISSING if missing else ErrorCode.INPUT_UNKNOWN,
                f"inputs of chain '{self.name}'",
                received=", ".join(inputs) or "none",
                expected=", ".join(self._inputs),
                fix=f"add {', '.join(missing)}" if missing else "leave the others out",
            )
        return inputs

    def _refuse(self, problems: list[str]) -> None:
        if problems:
            raise HybridgeError(
                ErrorCode.CHAIN_INVALID, f"chain '{self.name}' cannot be: {'; '.join(problems)}"
            )


def _name_problems(stages: tuple[Stage, ...]) -> list[str]:
    problems = [] if stages else ["it has no stages"]
    makers: dict[str, str] = {}
    names: set[str] = set()
    for stage in stages:
        if stage.name in names:
            problems.append(f"two stages are named '{stage.name}'")
        names.add(stage.name)
        for tensor in stage.outputs.values():
            if tensor in makers:
                problems.append(f"stages '{makers[tensor]}' and '{stage.name}' both make '{tensor}'")
            makers[tensor] = stage.name
    return problems


def _in_order(stages: tuple[Stage, ...], name: str) -> tuple[Stage, ...]:
    makers = {tensor: index for index, stage in enumerate(stages) for tensor in stage.outputs.values()}
    needs = {
        index: sorted({makers[tensor] for tensor in stage.inputs.values() if tensor in makers})
        for index, stage in enumerate(stages)
    }
    try:
        return tuple(stages[index] for index in TopologicalSorter(needs).static_order())
    except CycleError as error:
        around = " -> ".join(stages[index].name for index in error.args[1])
        raise HybridgeError(
            ErrorCode.CHAIN_INVALID, f"chain '{name}' cannot be: its stages wait for each other: {around}"
        ) from error
