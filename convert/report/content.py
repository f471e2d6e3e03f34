"""What a page shows, as data; every part that is missing is left out of the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convert.budget import Budget
    from convert.quantization import Coverage, LayerSensitivity, SparsityReport, ValueRange
    from convert.verification import Confusion, Drop, OutputParity
    from edge_runtime.manifest import Manifest

__all__ = ["EpochRow", "ReportContent", "TrialRow"]


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One pass over the training data.

    Attributes:
        part: What was trained for: prune, cluster or qat.
        epoch: Number of the pass, counted through all parts from one.
        loss: Mean loss of the pass.
        accuracy: On the samples held back, or agreement with the source without labels; a share.
        sparsity: Share of weights that are zero at its end.
    """

    part: str
    epoch: int
    loss: float
    accuracy: float | None = None
    sparsity: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One recipe that a search tried; figures are None where nothing was measured.

    Attributes:
        name: Of the recipe.
        size: Bytes of the model.
        deflated: Bytes over the air.
        drop: Accuracy lost, a share.
        agreement: Share of samples that keep their class.
        snr_db: Signal-to-noise ratio of the worst output.
        latency_ms: Median time of a run.
        seconds: How long the trial took.
        cached: Whether an earlier search had made it.
        within_budget: Whether it keeps every limit.
        on_front: Whether no other trial beats it in everything.
        chosen: Whether it is the one that was picked.
        note: What is out of budget, or why there is no model.
    """

    name: str
    size: int | None = None
    deflated: int | None = None
    drop: float | None = None
    agreement: float | None = None
    snr_db: float | None = None
    latency_ms: float | None = None
    seconds: float | None = None
    cached: bool = False
    within_budget: bool = True
    on_front: bool = False
    chosen: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What one page shows: a conversion, a search, an explanation, or any of them together.

    Attributes:
        name: Of the bundle or the source.
        version: Of the bundle.
        command: The command line that repeats it, quoted for a shell.
        manifest: Of the bundle that was made; accuracy, size, latency and lineage are read from it.
        labels: Names of the classes; those of the manifest without them.
        recipe: The recipe as text.
        budget: The limits that were given.
        misses: What is out of budget, a phrase each.
        warnings: What looked wrong without being an error, a sentence each.
        notes: What else a reader must know, a sentence each.
        drop: Accuracy lost, with its interval.
        confusion: Which classes were taken for which.
        parity: How each output differs from the source's.
        coverage: What was quantised, and what stayed float.
        sparsity: Which weights are stored sparse.
        training: What fine-tuning did, an epoch each.
        sensitivity: What quantising each layer alone costs, the worst first.
        weights: How weights are distributed, the layers to show first in front.
        activations: How activations are distributed, likewise.
        trials: What a search tried.
    """

    name: str
    version: str = ""
    command: str = ""
    manifest: Manifest | None = None
    labels: tuple[str, ...] = ()
    recipe: str = ""
    budget: Budget | None = None
    misses: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    drop: Drop | None = None
    confusion: Confusion | None = None
    parity: tuple[OutputParity, ...] = ()
    coverage: Coverage | None = None
    sparsity: SparsityReport | None = None
    training: tuple[EpochRow, ...] = ()
    sensitivity: tuple[LayerSensitivity, ...] = ()
    weights: tuple[ValueRange, ...] = ()
    activations: tuple[ValueRange, ...] = ()
    trials: tuple[TrialRow, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, if there are any."""
        return self.labels or (self.manifest.labels if self.manifest else ())
