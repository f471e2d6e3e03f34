"""Why a model loses what it loses: its layers by what quantising each alone costs, and the ranges of the worst."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from convert.quantization import (
    LayerSensitivity,
    ValueRange,
    activation_ranges,
    rank_layers,
    weight_ranges,
)
from convert.recipes import Precision
from convert.workbench import Workbench

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True)
class Explanation:
    """What quantising costs, layer by layer.

    Attributes:
        precision: What each layer was quantised to.
        layers: The most sensitive first.
        weights: Ranges of the weights, in the same order, of layers that have some.
        activations: Ranges of what the layers make, in the same order.
    """

    precision: Precision
    layers: tuple[LayerSensitivity, ...]
    weights: tuple[ValueRange, ...]
    activations: tuple[ValueRange, ...]


def explain(
    workbench: Workbench,
    precision: Precision = Precision.INT8,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> Explanation:
    """Quantises each layer alone and ranks them by what that costs.

    Args:
        workbench: The source and its data.
        precision: What each layer is quantised to.
        progress: Called with layers done, layers in all, and a word for them.

    Raises:
        HybridgeError: `data-invalid` without representative samples where the precision needs them;
            `conversion-failed`.
    """
    workbench.report(f"quantising each layer alone to {precision}")
    workbench.check_informative()
    content = workbench.float_model
    if precision.needs_representative:
        content = workbench.equalized(content)
    layers = rank_layers(
        content,
        workbench.judged.batches(workbench.batch_size),
        workbench.ranges(content) if precision.needs_representative else None,
        precision=precision,
        scores=workbench.scores,
        progress=None if progress is None else lambda done, total: progress(done, total, "layers"),
    )
    order = {each.layer: place for place, each in enumerate(layers)}

    def ranked(ranges: tuple[ValueRange, ...]) -> tuple[ValueRange, ...]:
        return tuple(
            sorted((each for each in ranges if each.layer in order), key=lambda each: order[each.layer])
        )

    return Explanation(
        precision,
        layers,
        weights=ranked(weight_ranges(content)),
        activations=ranked(activation_ranges(content, workbench.judged.batches(workbench.batch_size))),
    )
