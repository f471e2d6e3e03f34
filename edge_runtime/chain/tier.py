"""A tier: one model of a stage, with its bundle's preprocessing, labels and confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_runtime.confidence import Scorer
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.model import Model
from edge_runtime.preprocessing import Preprocessor
from edge_runtime.tensor_spec import Array, TensorSpec
from edge_runtime.tensor_type import TensorType

if TYPE_CHECKING:
    from edge_runtime.manifest import Confidence

__all__ = ["Tier", "TierAnswer"]


@dataclass(slots=True)
class TierAnswer:
    """What a tier says of one input, under the stage's names."""

    outputs: Mapping[str, Array]
    confidence: float | None


class Tier:
    """A model ready to answer for a stage.

    Args:
        model: The model; inputs that its bundle preprocesses are taken raw.
        confidence: How to score the outputs, in place of what the bundle says.
        labels: Names of the classes, in place of the bundle's.
        inputs: The stage's name for each of the model's inputs that is named differently there.
        outputs: The stage's name for each of the model's outputs that is named differently there.

    Raises:
        HybridgeError: `confidence-invalid`; `chain-invalid` for names that the model does not have.
    """

    def __init__(
        self,
        model: Model,
        *,
        confidence: Confidence | None = None,
        labels: tuple[str, ...] = (),
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
    ):
        manifest = model.bundle.manifest if model.bundle else None
        self.model = model
        self.preprocess = (
            Preprocessor(manifest.preprocessing) if manifest and manifest.preprocessing else None
        )
        raw = {raw.name: raw.takes for raw in (manifest.preprocessing if manifest else ())}
        self.input_specs = tuple(raw.get(spec.name, spec) for spec in model.inputs)
        # Kept, so that a bundle that takes this one's place is set up alike.
        self.given_confidence, self.given_labels = confidence, labels
        self.given_inputs, self.given_outputs = dict(inputs or {}), dict(outputs or {})
        self.labels = labels or (manifest.labels if manifest else ())
        spec = confidence or (manifest.confidence if manifest else None)
        names = tuple(spec.name for spec in model.outputs)
        self.scorer = Scorer(spec, names) if spec else None
        _check_names(model.name, "inputs", inputs, tuple(spec.name for spec in model.inputs))
        _check_names(model.name, "outputs", outputs, names)
        self._from_stage = {self.given_inputs.get(spec.name, spec.name): spec.name for spec in model.inputs}
        self._to_stage = {name: self.given_outputs.get(name, name) for name in names}
        self._renames = bool(self.given_inputs or self.given_outputs)

    @property
    def takes(self) -> dict[str, TensorType]:
        """Type of each input, under the stage's name."""
        specs = {spec.name: spec for spec in self.input_specs}
        return {stage: TensorType.from_spec(specs[own]) for stage, own in self._from_stage.items()}

    @property
    def gives(self) -> dict[str, TensorType]:
        """Type of each output, under the stage's name."""
        return {self._to_stage[spec.name]: self._result_type(spec) for spec in self.model.outputs}

    @property
    def threshold(self) -> float | None:
        """The confidence below which another should be asked."""
        return self.scorer.spec.threshold if self.scorer else None

    def is_sure(self, answer: TierAnswer) -> bool:
        """Whether the answer's confidence reaches the tier's threshold."""
        return (
            answer.confidence is not None
            and self.threshold is not None
            and answer.confidence >= self.threshold
        )

    def run(self, items: Sequence[Mapping[str, Array]], *, batch_size: int) -> list[TierAnswer]:
        """Answers for each item, several in one invocation where the model takes batches."""
        prepared = [self._prepared(item) for item in items]
        if len(prepared) == 1:
            return [self._answer(self.model.run(prepared[0]))]
        return [self._answer(outputs) for outputs in self.model.run_many(prepared, batch_size=batch_size)]

    def warm_up(self, item: Mapping[str, Array] | None = None) -> TierAnswer:
        """The answer for one input, or for zeros, once every instance of the model has run on it."""
        return self._answer(self.model.warm_up(None if item is None else self._prepared(item)))

    def answer_afresh(self, item: Mapping[str, Array]) -> TierAnswer:
        """The answer for one input as the first of a stream; a state that the model carries stays as it is."""
        return self._answer(self.model.run_afresh(self._prepared(item)))

    def score(self, outputs: Mapping[str, Array]) -> float | None:
        """The confidence of outputs under the stage's names, such as a cloud's."""
        return self.scorer.confidence(self._own(outputs)) if self.scorer else None

    def label(self, outputs: Mapping[str, Array]) -> str | None:
        """The label of the most likely class, where the outputs are one row of scores and there are labels."""
        best = self.best(outputs)
        return best if isinstance(best, str) else None

    def best(self, outputs: Mapping[str, Array]) -> str | int | None:
        """The most likely class where the outputs are one row of scores: its label, or its index where it has none."""
        if self.scorer is None:
            return None
        top = self.scorer.top(self._own(outputs))
        return self.labels[top] if top is not None and top < len(self.labels) else top

    def _result_type(self, spec: TensorSpec) -> TensorType:
        if spec.quantization is None:
            return TensorType.from_spec(spec)
        return TensorType("float32" if self.model.dequantize else spec.dtype, spec.shape, items=False)

    def _prepared(self, item: Mapping[str, Array]) -> Mapping[str, Array]:
        if self._renames:
            item = {self._from_stage[name]: value for name, value in item.items()}
        return self.preprocess(item) if self.preprocess else item

    def _answer(self, outputs: dict[str, Array]) -> TierAnswer:
        confidence = self.scorer.confidence(outputs) if self.scorer else None
        if self._renames:
            outputs = {self._to_stage[name]: value for name, value in outputs.items()}
        return TierAnswer(outputs, confidence)

    def _own(self, outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if not self._renames:
            return outputs
        return {own: outputs[stage] for own, stage in self._to_stage.items()}


def _check_names(model: str, what: str, given: Mapping[str, str] | None, names: tuple[str, ...]) -> None:
    if unknown := sorted(set(given or ()) - set(names)):
        raise HybridgeError(
            ErrorCode.CHAIN_INVALID,
            f"{what} of model '{model}'",
            received=", ".join(unknown),
            expected=f"names among {', '.join(names)}",
        )
