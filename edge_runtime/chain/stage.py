"""A stage of a chain: a model, an operator or another chain, between named tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_runtime.chain.chain_step import ChainStep
from edge_runtime.chain.condition import Condition
from edge_runtime.chain.foreach import Foreach
from edge_runtime.chain.join_step import JoinStep
from edge_runtime.chain.model_step import ModelStep
from edge_runtime.chain.operator_step import OperatorStep
from edge_runtime.chain.step import Call, Step, StepResult
from edge_runtime.chain.tier import Tier
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.fallback import Fallback
from edge_runtime.model import Model
from edge_runtime.tensor_spec import TensorSpec, Value

if TYPE_CHECKING:
    from edge_runtime.chain.chain import Chain
    from edge_runtime.manifest import Confidence

__all__ = ["REPORTED", "Stage"]

# What a stage can put into a tensor about its own answer.
REPORTED = ("confidence", "label", "source", "reason")


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a chain. Make one with `from_model`, `from_tiers`, `from_operator`, `from_chain` or `join`.

    Attributes:
        name: Unique within the chain.
        inputs: The chain's tensor for each input of the step.
        outputs: The chain's tensor for each output of the step.
        step: What the stage does.
        when: The condition under which it runs, if it has one.
        report: The chain's tensor for what the stage says of its answer: `confidence`, `label`, `source`, `reason`; one
            value, or one for each item.
        batch_size: Items that one invocation of a model may have.
        private: True when what it takes and makes must not leave the device; False when what it makes may, whatever
            it is made from; None when what it makes is as private as what it takes.
        line: Where it stands in the chain's file, if it is from one.
    """

    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    step: Step
    when: Condition | None = None
    report: Mapping[str, str] | None = None
    batch_size: int = 8
    private: bool | None = None
    line: int | None = None

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
        **options: Any,
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
            **options: `foreach`, `when`, `report`, `batch_size`, `private`; see `from_step`.

        Raises:
            HybridgeError: `confidence-invalid`; `chain-invalid` for a fallback without a score to decide by, or
                for names that the model does not have.
        """
        tier = Tier(model, confidence=confidence, labels=labels)
        return cls.from_tiers(name, [tier], inputs=inputs, outputs=outputs, fallback=fallback, **options)

    @classmethod
    def from_tiers(
        cls,
        name: str,
        tiers: Sequence[Tier],
        *,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        fallback: Fallback | None = None,
        **options: Any,
    ) -> Stage:
        """A stage of several models: each is asked when the one before was unsure, the fallback last.

        Raises:
            HybridgeError: `chain-invalid` for tiers without a threshold, or of different inputs or outputs.
        """
        return cls.from_step(name, ModelStep(tiers, fallback), inputs=inputs, outputs=outputs, **options)

    @classmethod
    def from_operator(
        cls,
        name: str,
        operator: str,
        *,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Stage:
        """A stage that applies an operator with settings `params`.

        Raises:
            HybridgeError: `operator-unknown`; `chain-invalid` for settings or names the operator does not have.
        """
        step = OperatorStep(operator, params or {})
        return cls.from_step(name, step, inputs=inputs, outputs=outputs, **options)

    @classmethod
    def from_chain(
        cls,
        name: str,
        chain: Chain,
        *,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        fallback: Fallback | None = None,
        threshold: float | None = None,
        **options: Any,
    ) -> Stage:
        """A stage that runs another chain; its stages are the `parts` of this stage's trace.

        Args:
            name: Unique within the chain.
            chain: The chain within.
            inputs: The outer chain's tensor for each input that is named differently there.
            outputs: The outer chain's tensor for each output that is named differently there.
            fallback: Whom to ask when the chain's answer is unsure; it has the chain's outputs.
            threshold: The confidence below which that is.
            **options: `foreach`, `when`, `report`, `private`; see `from_step`.
        """
        step = ChainStep(chain, fallback, threshold)
        return cls.from_step(name, step, inputs=inputs, outputs=outputs, **options)

    @classmethod
    def join(cls, name: str, tensors: Sequence[str], *, output: str, **options: Any) -> Stage:
        """A stage that takes the first of several tensors that was made, where branches have conditions."""
        return cls.from_step(name, JoinStep(tensors), inputs=None, outputs={"joined": output}, **options)

    @classmethod
    def from_step(
        cls,
        name: str,
        step: Step,
        *,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        foreach: str | Sequence[str] = (),
        when: str | None = None,
        report: Mapping[str, str] | None = None,
        batch_size: int = 8,
        private: bool | None = None,
        line: int | None = None,
    ) -> Stage:
        """A stage of anything that is a `Step`.

        Args:
            name: Unique within the chain.
            step: What it does.
            inputs: The chain's tensor for each input that is named differently there.
            outputs: The chain's tensor for each output that is named differently there.
            foreach: Inputs whose items the step runs for, one by one.
            when: The condition under which it runs; see `edge_runtime.chain.condition`.
            report: Tensors to put the answer's `confidence`, `label`, `source` or `reason` into.
            batch_size: Items that one invocation of a model may have.
            private: Whether what it takes and makes must not leave the device; see `Stage`.
            line: Where it stands in the chain's file.

        Raises:
            HybridgeError: `chain-invalid` for names the step does not have, or a condition that is none.
        """
        over = (foreach,) if isinstance(foreach, str) else tuple(foreach)
        if over:
            looped: Step = Foreach(step, over)
            step = looped
        return cls(
            name,
            _wiring(name, "input", tuple(step.takes), inputs),
            _wiring(name, "output", tuple(step.gives), outputs),
            step,
            Condition(when) if when else None,
            _wiring(name, "report", REPORTED, report, all_of_them=False) or None,
            batch_size,
            private,
            line,
        )

    @property
    def fallback(self) -> Fallback | None:
        """Whom the stage asks when it is unsure."""
        step = self.step.step if isinstance(self.step, Foreach) else self.step
        return step.fallback if isinstance(step, ModelStep | ChainStep) else None

    @property
    def has_items(self) -> bool:
        """Whether the step is run for each of several items."""
        return isinstance(self.step, Foreach)

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """What a model's stage takes, before its bundle's preprocessing; empty where types are not declared."""
        return self.step.input_specs

    @property
    def makes(self) -> tuple[str, ...]:
        """Names of all tensors that the stage makes, with those that report."""
        return (*self.outputs.values(), *(self.report or {}).values())

    @property
    def title(self) -> str:
        """What to call it in an error: its name, and its line where it has one."""
        return f"stage '{self.name}'" + (f" (line {self.line})" if self.line else "")

    def run(
        self, inputs: Mapping[str, Value], deadline: float | None = None, *, private: bool = False
    ) -> StepResult:
        """Runs the step on inputs under its own names, and asks the fallback when there is one.

        Args:
            inputs: A value for each of the step's inputs.
            deadline: The moment on `time.monotonic` by which it should be done.
            private: Whether the inputs must not leave the device.
        """
        return self.step.run(Call(self.name, deadline, self.batch_size, private), inputs)


def _wiring(
    stage: str,
    kind: str,
    names: tuple[str, ...],
    renamed: Mapping[str, str] | None,
    *,
    all_of_them: bool = True,
) -> Mapping[str, str]:
    renamed = renamed or {}
    if unknown := sorted(renamed.keys() - set(names)):
        raise HybridgeError(
            ErrorCode.CHAIN_INVALID,
            f"{kind}s of stage '{stage}'",
            received=", ".join(unknown),
            expected=f"names among {', '.join(names)}",
        )
    return {name: renamed.get(name, name) for name in names if all_of_them or name in renamed}
