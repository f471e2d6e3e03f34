"""What a recipe is: a way to shrink a model, as data that a bundle or a TOML file can hold."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "Clustering",
    "Method",
    "ParityBounds",
    "Precision",
    "Pruning",
    "Quantization",
    "Recipe",
    "Rule",
    "Training",
]


class Precision(StrEnum):
    """What is stored and computed in fewer bits; the name is also that of the plain recipe."""

    FLOAT32 = "float32"
    """Nothing."""
    FLOAT16 = "float16"
    """Weights in half precision, computed in float32."""
    WEIGHT_ONLY_INT8 = "weight-only-int8"
    """Weights in int8 a channel, computed in float32."""
    DYNAMIC_INT8 = "dynamic-int8"
    """Weights in int8 a channel; activations quantised as they come."""
    INT8 = "int8"
    """Weights, activations, inputs and outputs in int8, from calibrated ranges."""
    INT16X8 = "int16x8"
    """Weights in int8, activations in int16, from calibrated ranges."""
    INT4 = "int4"
    """Weights in int4 a channel; activations quantised as they come."""
    INT4_BLOCK32 = "int4-block32"
    """Weights in int4 with a scale for each 32 of a row; activations quantised as they come."""

    @property
    def needs_representative(self) -> bool:
        """Whether ranges of activations are read from a representative dataset."""
        return self in (Precision.INT8, Precision.INT16X8)


class Method(StrEnum):
    """How litert-quantizer chooses the scale of a weight; see its algorithms for the papers."""

    MIN_MAX = "min-max"
    MSE = "mse"
    OCTAV = "octav"
    GPTQ = "gptq"
    OSCAR = "oscar"


class ParityBounds(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How far a converted model may be from its source; every output must keep within all that are given.

    Attributes:
        max_relative_error: Largest error of any element, over the range of the source's output.
        min_snr_db: Smallest ratio of the source's power to the error's, in decibels.
    """

    max_relative_error: float | None = None
    min_snr_db: float | None = None


class Rule(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What differs for some operators; of several rules that match, the last holds.

    Attributes:
        layers: A regular expression, searched for in the names of the tensors that an operator makes.
        operators: Names such as ``CONV_2D``; none given means all.
        precision: Theirs; ``float32`` keeps them float.
        method: How scales of their weights are chosen.
    """

    layers: str = ".*"
    operators: tuple[str, ...] = ()
    precision: Precision = Precision.FLOAT32
    method: Method = Method.MIN_MAX


class Quantization(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is stored and computed in fewer bits, after any training.

    Attributes:
        precision: Of every operator that no rule names.
        method: How scales of weights are chosen.
        rules: Exceptions, such as layers that stay float.
    """

    precision: Precision = Precision.FLOAT32
    method: Method = Method.MIN_MAX
    rules: tuple[Rule, ...] = ()

    @property
    def needs_representative(self) -> bool:
        """Whether any operator's ranges of activations are calibrated, or its weights by GPTQ."""
        parts = (self, *self.rules)
        return any(part.precision.needs_representative or part.method is Method.GPTQ for part in parts)


class Pruning(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Weights that become zero while training goes on.

    Attributes:
        sparsity: Share of zeros at the end, for ``unstructured``; 2:4 is always a half.
        pattern: ``unstructured`` by magnitude along a polynomial schedule (Zhu and Gupta, 2017), or ``2:4``.
        initial_sparsity: Share of zeros at the schedule's start.
        ramp: Share of all training steps over which the schedule runs; the rest recovers.
    """

    sparsity: Annotated[float, Meta(gt=0, lt=1)] = 0.8
    pattern: Literal["unstructured", "2:4"] = "unstructured"
    initial_sparsity: Annotated[float, Meta(ge=0, lt=1)] = 0.3
    ramp: Annotated[float, Meta(gt=0, le=1)] = 0.6


class Clustering(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Weights that share few values.

    Attributes:
        clusters: Distinct values that the weights of a layer may have.
    """

    clusters: Annotated[int, Meta(ge=2)] = 16


class Training(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Fine-tuning that makes a model easier to shrink; parts run in the order prune, cluster, qat.

    Attributes:
        prune: Make weights zero.
        cluster: Make weights share values; zeros of an earlier pruning stay.
        qat: Train with the rounding of int8 in place (quantisation-aware); earlier zeros and clusters stay.
        epochs: Passes over the training data for each part, at most.
        batch_size: Samples a step.
        learning_rate: Of Adam; the first, it decays to zero along a cosine.
        seed: Of shuffling and of everything else that is random.
        skip: Regular expressions; layers whose name matches one are neither pruned, clustered nor quantised in
            training.
        function: ``module:function`` that trains in place of hybridge's own loop.
    """

    prune: Pruning | None = None
    cluster: Clustering | None = None
    qat: bool = False
    epochs: Annotated[int, Meta(ge=1)] = 4
    batch_size: Annotated[int, Meta(ge=1)] = 128
    learning_rate: Annotated[float, Meta(gt=0)] = 1e-3
    seed: int = 0
    skip: tuple[str, ...] = ()
    function: str | None = None


class Recipe(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A way to shrink a model: training or none, then quantisation or none.

    Attributes:
        name: What the command and the manifest call it.
        training: What fine-tuning does first.
        quantization: What is stored and computed in fewer bits.
        bounds: What a model it made must keep within.
    """

    name: str
    training: Training | None = None
    quantization: Quantization = Quantization()
    bounds: ParityBounds = ParityBounds()

    @property
    def needs_representative(self) -> bool:
        """Whether a representative dataset is read to quantise."""
        return self.quantization.needs_representative

    def to_builtins(self) -> dict[str, Any]:
        """The recipe as plain tables, for a manifest or a file."""
        described: dict[str, Any] = msgspec.to_builtins(self)
        return described
