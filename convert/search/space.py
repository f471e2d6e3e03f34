"""What a search may try for one model and its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from msgspec.structs import replace

from convert.recipes import (
    Calibration,
    Clustering,
    Method,
    ParityBounds,
    Precision,
    Pruning,
    Quantization,
    Recipe,
    Rule,
    Training,
    after_training,
    post_training,
)

__all__ = ["LayerChoice", "SearchSpace"]


class LayerChoice(Protocol):
    """Which layers to spare, by what quantising each alone costs."""

    def count(self, base: Precision, *, seconds: float) -> int | None:
        """How many layers a precision quantises; None when finding out would take longer than that."""

    def mixed(self, base: Quantization, keep: int) -> Quantization:
        """The quantization for all layers but the `keep` most sensitive ones; `count` comes first."""


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What a search may try; makes the recipes, each with a name that says what it is.

    Attributes:
        labelled: Whether accuracy is measured.
        classes: Whether the model has an output of class scores.
        representative: Whether there are samples to calibrate on.
        trainable: Whether the model can be fine-tuned, and there are samples to do it on.
        layers: Which layers to spare in mixed precision; without it that is not tried.
        training: Epochs, learning rate, seed and the like of every training.
        training_seconds: An estimate of how long a training takes; without it the first one is a guess.
        rules: Layers that every recipe treats otherwise, such as those a user wants float.
        bounds: In place of those of each recipe.
    """

    labelled: bool
    classes: bool
    representative: bool
    trainable: bool
    layers: LayerChoice | None = None
    training: Training = field(default_factory=Training)
    training_seconds: Callable[[Training], float] | None = None
    rules: tuple[Rule, ...] = ()
    bounds: ParityBounds | None = None

    def precisions(self) -> tuple[Precision, ...]:
        """Those that the data allows."""
        return tuple(each for each in Precision if self.representative or not each.needs_representative)

    def plain(self, precision: Precision) -> Recipe:
        """A precision alone."""
        return self._recipe(post_training(precision))

    def with_method(self, precision: Precision, method: Method) -> Recipe:
        """A precision whose scales are chosen otherwise, such as ``int4-octav``."""
        recipe = post_training(precision)
        quantization = replace(recipe.quantization, method=method)
        return self._recipe(replace(recipe, name=f"{precision}-{method}", quantization=quantization))

    def with_calibration(self, precision: Precision, calibration: Calibration) -> Recipe:
        """A precision whose ranges of activations are read otherwise, such as ``int8-calibration-mse``."""
        recipe = post_training(precision)
        quantization = replace(recipe.quantization, calibration=calibration)
        return self._recipe(
            replace(recipe, name=f"{precision}-calibration-{calibration}", quantization=quantization)
        )

    def mixed(self, base: Recipe, keep: int) -> Recipe:
        """A recipe of this space but for the `keep` most sensitive layers, such as ``int4-octav-mixed-3``."""
        if self.layers is None:
            raise ValueError("mixed precision without a choice of layers")
        # The user's own rules come last, so that they hold.
        bare = replace(base.quantization, rules=())
        quantization = self.layers.mixed(bare, keep)
        return self._recipe(replace(base, name=f"{base.name}-mixed-{keep}", quantization=quantization))

    def trained(
        self,
        ending: Precision,
        *,
        sparsity: float | None = None,
        clusters: bool = False,
        qat: bool = False,
        epochs: int | None = None,
    ) -> Recipe:
        """Training, then a precision, such as ``prune-90+qat+int8``.

        Args:
            ending: The precision.
            sparsity: Share of weights to prune.
            clusters: Whether weights are to share values.
            qat: Whether to train with the rounding in place.
            epochs: In place of the usual number.
        """
        training = replace(
            self.training,
            prune=None if sparsity is None else Pruning(sparsity=sparsity),
            cluster=Clustering() if clusters else None,
            qat=qat,
            epochs=epochs or self.training.epochs,
        )
        parts = [] if sparsity is None else [f"prune-{sparsity * 100:g}"]
        parts += [part for part, wanted in (("cluster", clusters), ("qat", qat)) if wanted]
        return self._recipe(replace(after_training(training, ending), name="+".join([*parts, ending])))

    def _recipe(self, recipe: Recipe) -> Recipe:
        quantization = replace(recipe.quantization, rules=recipe.quantization.rules + self.rules)
        return replace(recipe, quantization=quantization, bounds=self.bounds or recipe.bounds)
