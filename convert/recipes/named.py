"""The recipes that have a name: eight that only quantise, seven that train first, and those with each ending."""

from __future__ import annotations

from msgspec.structs import replace

from convert.recipes.recipe import (
    Clustering,
    Method,
    ParityBounds,
    Precision,
    Pruning,
    Quantization,
    Recipe,
    Rule,
    Training,
)
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = [
    "after_training",
    "default_bounds",
    "find_recipe",
    "post_training",
    "recipe_names",
    "training_time",
]

# What a sound conversion keeps easily and a broken one does not; what precision costs shows in accuracy.
_BOUNDS = {
    Precision.FLOAT32: ParityBounds(max_relative_error=1e-3),
    Precision.FLOAT16: ParityBounds(min_snr_db=40.0, min_agreement=0.995),
    Precision.WEIGHT_ONLY_INT8: ParityBounds(min_snr_db=20.0, min_agreement=0.95),
    Precision.DYNAMIC_INT8: ParityBounds(min_snr_db=20.0, min_agreement=0.95),
    Precision.INT8: ParityBounds(min_snr_db=10.0, min_agreement=0.9),
    Precision.INT16X8: ParityBounds(min_snr_db=20.0, min_agreement=0.95),
    Precision.INT4: ParityBounds(min_snr_db=3.0, min_agreement=0.9),
    Precision.INT4_BLOCK32: ParityBounds(min_snr_db=3.0, min_agreement=0.9),
}
# The device computes convolutions in int4 several times slower than in int8, and they lose most by it; what fills a
# file of int4 are dense layers. A rule of one's own brings them to int4 too.
_CONVOLUTIONS_IN_INT8 = Rule(operators=("CONV_2D",), precision=Precision.DYNAMIC_INT8)
# The runtime's fast kernels have no depthwise convolution with weights in int8 and activations in float: each would
# leave them, at two to three times the latency of the whole model, and cost more accuracy than all others. Its
# weights are few.
_DEPTHWISE_IN_FLOAT = Rule(operators=("DEPTHWISE_CONV_2D",), precision=Precision.FLOAT32)
_RULES = {
    Precision.DYNAMIC_INT8: (_DEPTHWISE_IN_FLOAT,),
    Precision.INT4: (_CONVOLUTIONS_IN_INT8, _DEPTHWISE_IN_FLOAT),
    Precision.INT4_BLOCK32: (_DEPTHWISE_IN_FLOAT,),
}

_TRAININGS = {
    "prune": Training(prune=Pruning()),
    "prune-2of4": Training(prune=Pruning(pattern="2:4", sparsity=0.5)),
    "cluster": Training(cluster=Clustering()),
    "qat": Training(qat=True),
    "prune+qat": Training(prune=Pruning(), qat=True),
    "cluster+qat": Training(cluster=Clustering(), qat=True),
    "prune+cluster+qat": Training(prune=Pruning(), cluster=Clustering(), qat=True),
}


def post_training(precision: Precision) -> Recipe:
    """Quantises without training, under the precision's own name."""
    rules = _RULES.get(precision, ())
    return Recipe(
        name=precision.value,
        quantization=Quantization(precision=precision, rules=rules),
        bounds=_BOUNDS[precision],
    )


def after_training(training: Training, precision: Precision) -> Recipe:
    """Trains, then quantises without undoing what was trained.

    Weights that share values, or that were trained with the rounding in place, are rounded as they are: choosing other
    integers for them, or scaling their channels, would lose both.
    """
    recipe = post_training(precision)
    if training.cluster is not None or training.qat:
        as_trained = replace(recipe.quantization, method=Method.MIN_MAX, equalize=False)
        recipe = replace(recipe, quantization=as_trained)
    return replace(recipe, training=training)


def training_time(name: str, precision: Precision | None = None) -> Recipe:
    """Trains, then quantises.

    Args:
        name: One of `prune`, `prune-2of4`, `cluster`, `qat`, `prune+qat`, `cluster+qat`, `prune+cluster+qat`.
        precision: The ending; without it int8 after `qat`, else float32.

    Raises:
        HybridgeError: `recipe-unknown`.
    """
    if name not in _TRAININGS:
        raise _unknown(name)
    training = _TRAININGS[name]
    ending = precision or (Precision.INT8 if training.qat else Precision.FLOAT32)
    full_name = name if precision is None else f"{name}+{precision.value}"
    return replace(after_training(training, ending), name=full_name)


def default_bounds(recipe: Recipe) -> ParityBounds:
    """What a model must keep within when its recipe does not say."""
    precisions = {recipe.quantization.precision, *(rule.precision for rule in recipe.quantization.rules)}
    return min((_BOUNDS[each] for each in precisions), key=_strictness)


def recipe_names() -> tuple[str, ...]:
    """Names of all recipes; those that train come last and may be followed by ``+`` and the name of an ending."""
    return (*(precision.value for precision in Precision), *_TRAININGS)


def find_recipe(name: str) -> Recipe:
    """The recipe of that name, such as ``int8``, ``prune`` or ``prune+qat+int8``.

    Raises:
        HybridgeError: `recipe-unknown`, with the names there are.
    """
    precisions = {precision.value: precision for precision in Precision}
    if name in precisions:
        return post_training(precisions[name])
    if name in _TRAININGS:
        return training_time(name)
    training, _, ending = name.rpartition("+")
    if training in _TRAININGS and ending in precisions:
        return training_time(training, precisions[ending])
    raise _unknown(name)


def _strictness(bounds: ParityBounds) -> float:
    return float("inf") if bounds.min_snr_db is None else bounds.min_snr_db


def _unknown(name: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.RECIPE_UNKNOWN,
        "recipe",
        received=f"'{name}'",
        expected=f"one of {', '.join(recipe_names())}; those that train may end in + and another",
        fix="or name a .toml file or a bundle",
    )
