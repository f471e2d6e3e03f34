"""What a recipe is: a way to shrink a model, as data that a bundle or a TOML file can hold."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "Calibration",
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
    """What is stored and computed in fewer bits; the name is also that of the plain recipe.

    An operator whose kernel does not exist in a precision takes the next that does: `int4` and `int4-block32` become
    `dynamic-int8`, `int8` and `int16x8` of a table of embeddings or inside a loop become `dynamic-int8` too; without
    weights it stays float. Coverage says what each became.
    """

    FLOAT32 = "float32"
    """Nothing."""
    FLOAT16 = "float16"
    """Weights in half precision, computed in float32."""
    WEIGHT_ONLY_INT8 = "weight-only-int8"
    """Weights in int8 a channel, computed in float32."""
    DYNAMIC_INT8 = "dynamic-int8"
    """Weights in int8 a channel; activations quantised as they come."""
    INT8 = "int8"
    """Weights in int8, activations, inputs and outputs in int8, from calibrated ranges."""
    INT16X8 = "int16x8"
    """Weights in int8, activations, inputs and outputs in int16, from calibrated ranges.

    Runs on the runtime's reference kernels, some thirty times as slow as `int8` on x86-64.
    """
    INT4 = "int4"
    """Weights of dense layers, embeddings and convolutions in int4 a channel; activations quantised as they come.

    Small, not fast: int4 convolutions have no fast kernel. A rule that gives ``CONV_2D`` `dynamic-int8` makes them so.
    """
    INT4_BLOCK32 = "int4-block32"
    """Weights of dense layers and embeddings in int4 with a scale for each 32 of a row; others in `dynamic-int8`."""

    @property
    def needs_representative(self) -> bool:
        """Whether ranges of activations are read from a representative dataset."""
        return self in (Precision.INT8, Precision.INT16X8)

    @property
    def usual_method(self) -> Method:
        """What chooses weights where a recipe does not say; GPTQ where there are representative samples anyway."""
        return Method.GPTQ if self.needs_representative else Method.MIN_MAX


class Method(StrEnum):
    """How the integers and the scale of a weight are chosen.

    An operator that a method does not cover takes `min-max`.
    """

    MIN_MAX = "min-max"
    """From the largest weight."""
    MSE = "mse"
    """From the weights' mean square, as if they were normally distributed."""
    OCTAV = "octav"
    """The clipping of least square error (Sakr et al., 2022)."""
    GPTQ = "gptq"
    """Dense layers and convolutions: weights make up for the rounding of others (Frantar et al., 2022)."""
    OSCAR = "oscar"
    """Dense layers in `dynamic-int8` or int4: scales inputs and clips weights by how much they matter."""

    @property
    def needs_representative(self) -> bool:
        """Whether it weighs weights by what the model computes with them."""
        return self in (Method.GPTQ, Method.OSCAR)


class Calibration(StrEnum):
    """How the range of an activation follows from those of single samples."""

    MIN_MAX = "min-max"
    """The smallest and the largest value of all."""
    MSE = "mse"
    """The range within them in which clipping and rounding together lose least (Banner et al., 2019)."""
    MOVING_AVERAGE = "moving-average"
    """An average of each sample's own range in which the latest count most: narrower, and blind to rare values."""


class ParityBounds(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How far a converted model may be from its source; every output must keep within all that are given.

    Attributes:
        max_relative_error: Largest error of any element, over the range of the source's output.
        min_snr_db: Smallest ratio of the source's power to the error's, in decibels.
        min_agreement: Share of the rows of an output of probabilities whose largest stays the same, which is enough in
            place of the ratio: where classes are close, as between the letters of a line, a row may jump from one
            to the other though little has changed.
    """

    max_relative_error: float | None = None
    min_snr_db: float | None = None
    min_agreement: Annotated[float, Meta(ge=0, le=1)] | None = None


class Rule(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What differs for some operators; of several rules that match, the last holds.

    Attributes:
        layers: A regular expression, searched for in each name of an operator: those of the tensors it makes and of its
            constants. A pattern that matches nothing is refused.
        operators: Names such as ``CONV_2D``; none given means all. ``INPUT`` and ``OUTPUT`` are the ends of the model,
            by which an `int8` model takes or gives float.
        precision: Theirs; ``float32`` keeps them float.
        method: How their weights are chosen; the precision's usual method without one.
    """

    layers: str = ".*"
    operators: tuple[str, ...] = ()
    precision: Precision = Precision.FLOAT32
    method: Method | None = None


class Quantization(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is stored and computed in fewer bits, after any training.

    Attributes:
        precision: Of every operator that no rule names.
        method: How weights are chosen; without it the precision's usual method, or one that keeps the few values of
            weights that were clustered.
        calibration: How ranges of activations are read.
        equalize: Whether channels are brought to like ranges first, where activations are in integers.
        rules: Exceptions, such as layers that stay float.
    """

    precision: Precision = Precision.FLOAT32
    method: Method | None = None
    calibration: Calibration = Calibration.MIN_MAX
    equalize: bool = True
    rules: tuple[Rule, ...] = ()

    @property
    def needs_representative(self) -> bool:
        """Whether any operator's activations or weights are quantised by what representative samples show."""
        parts = [(self.precision, self.method), *((rule.precision, rule.method) for rule in self.rules)]
        return any(
            precision.needs_representative
            or (method is not None and method.needs_representative and precision not in _UNROUNDED)
            for precision, method in parts
        )

    @property
    def equalizes(self) -> bool:
        """Whether channels are brought to like ranges before anything is quantised."""
        precisions = (self.precision, *(rule.precision for rule in self.rules))
        return self.equalize and any(each.needs_representative for each in precisions)


# Without scales to choose.
_UNROUNDED = (Precision.FLOAT32, Precision.FLOAT16)


class Pruning(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Weights that become zero while training goes on.

    Attributes:
        sparsity: Share of zeros at the end in all pruned layers together, for ``unstructured``; 2:4 is always a half.
        allocation: ``lamp`` prunes more where weights matter less (Lee et al., "Layer-adaptive sparsity for the
            magnitude-based pruning", 2021), ``uniform`` the same share of each layer.
        pattern: ``unstructured`` by magnitude along a polynomial schedule (Zhu and Gupta, 2017), or ``2:4``.
        initial_sparsity: Share of zeros at the schedule's start.
        ramp: Share of all training steps over which the schedule runs; the rest recovers.
    """

    sparsity: Annotated[float, Meta(gt=0, lt=1)] = 0.8
    allocation: Literal["lamp", "uniform"] = "lamp"
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
        # Lists, not tuples, as a manifest or a file gives them back.
        described: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return described
