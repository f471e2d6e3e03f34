"""A stage of a chain: a model, an operator or another chain, between named tensors."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edge_runtime.confidence import Scorer
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.fallback import Answer, Fallback, Query
from edge_runtime.model import Model
from edge_runtime.operators import find_operator
from edge_runtime.prediction import Prediction, Reason, StageTrace
from edge_runtime.preprocessing import Preprocessor
from edge_runtime.tensor_spec import Array, TensorSpec

if TYPE_CHECKING:
    from edge_runtime.manifest import Confidence

__all__ = ["Stage", "StageResult"]


class _ChainLike(Protocol):
    """What a stage needs of a nested chain."""

    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    def run(self, inputs: Mapping[str, Array], *, deadline_s: float | None = None) -> Prediction: ...


@dataclass(frozen=True, slots=True)
class StageResult:
    """Outputs of a stage under its own names, with what a prediction needs to know of it."""

    outputs: Mapping[str, Array]
    traces: tuple[StageTrace, ...]
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a chain. Make one with `from_model`, `from_operator` or `from_chain`.

    Attributes:
        name: Unique within the chain.
        inputs: The chain's tensor for each input of the step.
        outputs: The chain's tensor for each output of the step.
        fallback: Whom to ask when the step is unsure.
    """

    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    step: _Step
    fallback: Fallback | None = None

    @classmethod
    def from_model(
        cls,
        name: str,
        model: Model,
        *,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        confidence: Confidence | None = None,
        labels: tuple[str, ...] = (),
        fallback: Fallback | None = None,
    ) -> Stage:
        """A stage that runs a model, with its bundle's preprocessing and labels.

        Args:
            name: Unique within the chain.
            model: The model; inputs that its bundle preprocesses are taken raw.
            inputs: The chain's tensor for each input that is named differently there.
            outputs: The chain's tensor for each output that is named differently there.
            confidence: How to score the outputs, in place of what the bundle says.
            labels: Names of the classes, in place of the bundle's.
            fallback: Whom to ask when the model is unsure.

        Raises:
            HybridgeError: `confidence-invalid`; `chain-invalid` for a fallback without a score to decide by, or
                for names that the model does not have.
        """
        step = _ModelStep(model, confidence, labels)
        if fallback is not None and step.scorer is None:
            raise HybridgeError(
                ErrorCode.CHAIN_INVALID,
                f"stage '{name}'",
                received="a fallback, for a model without a confidence score",
                expected="a confidence in the bundle or the stage",
                fix="name the output to score, such as confidence = {output = 'logits'}",
            )
        return cls(
            name,
            _wiring(name, "input", step.inputs, inputs),
            _wiring(name, "output", step.outputs, outputs),
            step,
            fallback,
        )

    @classmethod
    def from_operator(
        cls,
        name: str,
        operator: str,
        *,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Stage:
        """A stage that applies an operator with settings `params`.

        Raises:
            HybridgeError: `operator-unknown`; `chain-invalid` for settings or names the operator does not have.
        """
        step = _OperatorStep(operator, params or {})
        return cls(
            name,
            _wiring(name, "input", step.inputs, inputs),
            _wiring(name, "output", step.outputs, outputs),
            step,
        )

    @classmethod
    def from_chain(
        cls,
        name: str,
        chain: _ChainLike,
        *,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
    ) -> Stage:
        """A stage that runs another chain; its stages appear as ``name/stage`` in the prediction."""
        step = _ChainStep(chain)
        return cls(
            name,
            _wiring(name, "input", step.inputs, inputs),
            _wiring(name, "output", step.outputs, outputs),
            step,
        )

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """What a model's stage takes, before its bundle's preprocessing; empty where types are not declared."""
        return self.step.input_specs

    def run(self, inputs: Mapping[str, Array], deadline: float | None = None) -> StageResult:
        """Runs the step on inputs under its own names, and asks the fallback when there is one.

        Args:
            inputs: An array for each of the step's inputs.
            deadline: The moment on `time.monotonic` by which a fallback must have answered.
        """
        return self.step.run(self.name, inputs, self.fallback, deadline)


class _Step(Protocol):
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_specs: tuple[TensorSpec, ...]

    def run(
        self, name: str, inputs: Mapping[str, Array], fallback: Fallback | None, deadline: float | None
    ) -> StageResult: ...


class _OperatorStep:
    input_specs: tuple[TensorSpec, ...] = ()

    def __init__(self, operator: str, params: Mapping[str, Any]):
        self.operator = find_operator(operator)
        self.operator.check_params(params)
        self.params = params
        self.inputs, self.outputs = self.operator.inputs, self.operator.outputs

    def run(
        self, name: str, inputs: Mapping[str, Array], _fallback: Fallback | None, _deadline: float | None
    ) -> StageResult:
        start = time.perf_counter()
        outputs = self.operator.run(inputs, self.params)
        return StageResult(outputs, (StageTrace(name, _milliseconds_since(start)),))


class _ChainStep:
    input_specs: tuple[TensorSpec, ...] = ()

    def __init__(self, chain: _ChainLike):
        self.chain = chain
        self.inputs, self.outputs = chain.inputs, chain.outputs

    def run(
        self, name: str, inputs: Mapping[str, Array], _fallback: Fallback | None, deadline: float | None
    ) -> StageResult:
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        inner = self.chain.run(inputs, deadline_s=left)
        traces = tuple(_renamed(trace, f"{name}/{trace.stage}") for trace in inner.stages)
        return StageResult(inner.outputs, traces, inner.label)


class _ModelStep:
    def __init__(self, model: Model, confidence: Confidence | None, labels: tuple[str, ...]):
        manifest = model.bundle.manifest if model.bundle else None
        self.model = model
        self.preprocess = (
            Preprocessor(manifest.preprocessing) if manifest and manifest.preprocessing else None
        )
        raw = {raw.name: raw.takes for raw in (manifest.preprocessing if manifest else ())}
        self.input_specs = tuple(raw.get(spec.name, spec) for spec in model.inputs)
        self.inputs = tuple(spec.name for spec in model.inputs)
        self.outputs = tuple(spec.name for spec in model.outputs)
        self.labels = labels or (manifest.labels if manifest else ())
        spec = confidence or (manifest.confidence if manifest else None)
        self.scorer = Scorer(spec, self.outputs) if spec else None

    def run(
        self, name: str, inputs: Mapping[str, Array], fallback: Fallback | None, deadline: float | None
    ) -> StageResult:
        start = time.perf_counter()
        outputs: Mapping[str, Array] = self.model.run(self.preprocess(inputs) if self.preprocess else inputs)
        if self.scorer is None:
            return StageResult(outputs, (StageTrace(name, _milliseconds_since(start)),))
        confidence = self.scorer.confidence(outputs)
        device_ms = _milliseconds_since(start)
        if fallback is None:
            return StageResult(outputs, (StageTrace(name, device_ms, 0.0, confidence),), self._label(outputs))
        start = time.perf_counter()
        query = Query(name, inputs, outputs, confidence, self.scorer.spec.threshold, deadline)
        answer = _resolve(fallback, query)
        if answer.outputs is not None:
            outputs, confidence = answer.outputs, self.scorer.confidence(answer.outputs)
        trace = StageTrace(
            name,
            device_ms,
            _milliseconds_since(start),
            confidence,
            answer.source,
            answer.reason,
            answer.detail,
        )
        return StageResult(outputs, (trace,), self._label(outputs))

    def _label(self, outputs: Mapping[str, Array]) -> str | None:
        top = self.scorer.top(outputs) if self.scorer else None
        return self.labels[top] if top is not None and top < len(self.labels) else None


def _resolve(fallback: Fallback, query: Query) -> Answer:
    try:
        answer = fallback.resolve(query)
    except Exception as error:
        # Whatever is wrong with a fallback, the device has an answer, and an answer is what it is there for.
        import logging

        logging.getLogger(__name__).warning("fallback of stage '%s' failed", query.stage, exc_info=True)
        return Answer.keep(Reason.FALLBACK_FAILED, f"{type(error).__name__}: {error}")
    if answer.outputs is not None and answer.outputs.keys() != query.outputs.keys():
        return Answer.keep(
            Reason.CLOUD_REFUSED,
            f"received outputs {', '.join(answer.outputs)}, expected {', '.join(query.outputs)}",
        )
    return answer


def _wiring(
    stage: str, kind: str, names: tuple[str, ...], renamed: Mapping[str, str] | None
) -> Mapping[str, str]:
    renamed = renamed or {}
    if unknown := sorted(renamed.keys() - set(names)):
        raise HybridgeError(
            ErrorCode.CHAIN_INVALID,
            f"{kind}s of stage '{stage}'",
            received=", ".join(unknown),
            expected=f"names among {', '.join(names)}",
        )
    return {name: renamed.get(name, name) for name in names}


def _milliseconds_since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3


def _renamed(trace: StageTrace, stage: str) -> StageTrace:
    return StageTrace(
        stage, trace.device_ms, trace.fallback_ms, trace.confidence, trace.source, trace.reason, trace.detail
    )
