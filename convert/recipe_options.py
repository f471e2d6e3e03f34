"""Changes to a recipe that a user names on the command line, such as another sparsity."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from convert.recipes import Calibration, Method, Precision, Recipe, Rule, Training
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["own_training", "with_options"]


def with_options(
    recipe: Recipe,
    *,
    keep_float: tuple[str, ...] = (),
    method: Method | None = None,
    calibration: Calibration | None = None,
    equalize: bool | None = None,
    sparsity: float | None = None,
    clusters: int | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    train_function: str | None = None,
) -> Recipe:
    """The recipe with these values in place of its own; None leaves a value as it is.

    Args:
        recipe: What to change.
        keep_float: Patterns of layers that stay float.
        method: How scales of weights are chosen.
        calibration: How ranges of activations are read.
        equalize: Whether channels are brought to like ranges first.
        sparsity: Share of weights that pruning makes zero.
        clusters: Distinct values that clustering leaves.
        epochs: Passes over the training data.
        learning_rate: The first one.
        seed: Of the training.
        train_function: ``module:function`` that trains.

    Raises:
        HybridgeError: `usage` for a value that the recipe has no use for.
    """
    quantization = replace(
        recipe.quantization, **_given(method=method, calibration=calibration, equalize=equalize)
    )
    if keep_float:
        kept = tuple(Rule(layers=pattern, precision=Precision.FLOAT32) for pattern in keep_float)
        quantization = replace(quantization, rules=quantization.rules + kept)
    training = recipe.training
    asked = {
        "--sparsity": sparsity,
        "--clusters": clusters,
        "--epochs": epochs,
        "--learning-rate": learning_rate,
        "--seed": seed,
        "--train-function": train_function,
    }
    if training is None:
        if useless := [flag for flag, value in asked.items() if value is not None]:
            raise _useless(recipe, useless)
        return replace(recipe, quantization=quantization)
    if sparsity is not None:
        if training.prune is None or training.prune.pattern != "unstructured":
            raise _useless(recipe, ["--sparsity"])
        training = replace(training, prune=replace(training.prune, sparsity=sparsity))
    if clusters is not None:
        if training.cluster is None:
            raise _useless(recipe, ["--clusters"])
        training = replace(training, cluster=replace(training.cluster, clusters=clusters))
    return replace(
        recipe,
        quantization=quantization,
        training=replace(
            training,
            **_given(epochs=epochs, learning_rate=learning_rate, seed=seed, function=train_function),
        ),
    )


def own_training(
    *,
    epochs: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    train_function: str | None = None,
) -> Training:
    """How every training of a search goes; None leaves the usual value."""
    return Training(**_given(epochs=epochs, learning_rate=learning_rate, seed=seed, function=train_function))


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _useless(recipe: Recipe, flags: list[str]) -> HybridgeError:
    return HybridgeError(
        ErrorCode.USAGE,
        ", ".join(flags),
        received=f"recipe '{recipe.name}', which has no use for it",
        expected="a recipe that trains, prunes or clusters accordingly",
        fix="choose such a recipe (--recipe prune+qat), or leave the flag out",
    )
