"""The search on one workbench: what its source and data allow, and the bundle under the name that is wanted."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from convert.budget import Budget
from convert.recipes import ParityBounds, Rule, Training
from convert.search.context import context_digest
from convert.search.estimate import TrainingEstimate
from convert.search.ray_runner import RayRunner, WorkbenchSpec
from convert.search.runner import SequentialRunner, TrialRunner
from convert.search.search import SearchResult, search
from convert.search.sensitive_layers import SensitiveLayers
from convert.search.space import SearchSpace
from convert.search.store import TrialStore
from edge_runtime.bundle import Bundle
from edge_runtime.errors import ErrorCode, HybridgeError

if TYPE_CHECKING:
    from convert.workbench import Workbench

__all__ = ["search_workbench"]


def search_workbench(
    workbench: Workbench,
    budget: Budget,
    *,
    name: str | None = None,
    version: str = "1",
    bounds: ParityBounds | None = None,
    rules: tuple[Rule, ...] = (),
    training: Training | None = None,
    store: TrialStore | None = None,
    deadline_s: float | None = 600.0,
    spec: WorkbenchSpec | None = None,
    ray_address: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> SearchResult:
    """Tries recipes on a source and its data, and picks the smallest within a budget.

    Args:
        workbench: The source and its data.
        budget: What the model may cost; without a limit on accuracy one is assumed, and the result says so.
        name: What to call the bundle; the source's own name without it.
        version: Of the bundle.
        bounds: How far from the source outputs may be, in place of those of each recipe.
        rules: Layers that every recipe treats otherwise.
        training: Epochs, learning rate, seed and the like of every training.
        store: Where trials are kept; the user's cache without it.
        deadline_s: Seconds that the search may take; None for as long as it likes.
        spec: How Ray's workers open the same workbench; its bounds, limit on accuracy and modules are filled in.
        ray_address: The Ray cluster to spread trials over, ``local`` to start one; without it they run here in turn.
        progress: Called with a line of text before and after each trial.

    Raises:
        HybridgeError: `usage` for a limit on accuracy without labels; `file-unwritable`; `extra-missing` and `usage`
            for Ray. What goes wrong in a trial is its outcome; raise `SearchResult.refusal` when nothing was chosen.
    """
    from convert.conversion import apply_recipe

    start = time.monotonic()
    budget.check_possible(labelled=workbench.labelled)
    shape = training or Training()
    modules = _modules(workbench, shape)
    context = context_digest(workbench, bounds=bounds, modules=modules)
    space = SearchSpace(
        labelled=workbench.labelled,
        classes=workbench.scores is not None,
        representative=workbench.calibration is not None,
        trainable=_trainable(workbench),
        layers=SensitiveLayers(workbench),
        training=shape,
        training_seconds=TrainingEstimate(workbench),
        rules=rules,
        bounds=bounds,
    )
    runner: AbstractContextManager[TrialRunner]
    if ray_address is None:
        runner = nullcontext(
            SequentialRunner(partial(apply_recipe, workbench, bounds=bounds, max_drop=budget.max_drop))
        )
    elif spec is None:
        raise HybridgeError(
            ErrorCode.USAGE,
            "search over Ray",
            received="a workbench that only this process has",
            expected="a description by which workers can open it too",
            fix="give its paths and options (spec=)",
        )
    else:
        spec = replace(spec, bounds=bounds, max_drop=budget.max_drop, modules=modules)
        runner = RayRunner(spec, address=ray_address, context=context, deadline_s=deadline_s)
    with runner as trials:
        found = search(
            trials,
            space,
            budget,
            store=store or TrialStore(),
            context=context,
            deadline_s=None if deadline_s is None else deadline_s - (time.monotonic() - start),
            progress=progress,
        )
    return replace(found, bundle=found.bundle and _named(found.bundle, name, version))


def _trainable(workbench: Workbench) -> bool:
    has_data = workbench.training is not None or workbench.calibration is not None
    return has_data and workbench.source.architecture is not None


def _modules(workbench: Workbench, training: Training) -> tuple[str, ...]:
    architecture = workbench.source.architecture
    custom = () if architecture is None else architecture.custom
    own = () if training.function is None else (training.function.partition(":")[0],)
    return (*custom, *own)


def _named(bundle: Bundle, name: str | None, version: str) -> Bundle:
    # Trials are kept under the source's own name, so that another name finds them too.
    manifest = bundle.manifest
    renamed = msgspec.structs.replace(manifest, name=name or manifest.name, version=version)
    return Bundle.create(renamed, bundle.files)
