"""Searches with the real converter on a small trained network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.budget import Budget
from convert.recipes import ParityBounds, Precision, Pruning, Training
from convert.search import SearchResult, TrialStatus, TrialStore, search_workbench
from convert.search.context import context_digest
from convert.search.estimate import TrainingEstimate
from convert.search.sensitive_layers import SensitiveLayers
from convert.sources import Source
from convert.workbench import Workbench, open_workbench
from edge_runtime import Chain, ErrorCode, HybridgeError
from edge_runtime.latency import machine_name
from tests.convert.conftest import Digits

pytestmark = pytest.mark.tensorflow


class Untrainable:
    """A source that cannot be built again: training is another test's matter."""

    architecture = None

    def __init__(self, source: Source):
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def open_digits(digits: Digits) -> Workbench:
    return open_workbench(
        digits.file,
        representative=digits.calibration,
        evaluation=digits.evaluation,
        labels=tuple("0123456789"),
    )


@pytest.fixture(scope="module")
def workbench(digits: Digits) -> Workbench:
    opened = open_digits(digits)
    untrainable: Any = Untrainable(opened.source)
    return replace(opened, source=untrainable)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trials")


@pytest.fixture(scope="module")
def found(workbench: Workbench, folder: Path) -> SearchResult:
    return search_workbench(
        workbench, Budget(max_drop=0.01), name="small", version="7", store=TrialStore(folder), deadline_s=90.0
    )  # fmt: skip


@pytest.mark.slow
def test_the_bundle_is_the_smallest_within_the_budget_and_runs(found: SearchResult, digits: Digits) -> None:
    assert found.chosen is not None
    assert found.bundle is not None
    assert found.seconds < 90
    assert any("nothing was trained" in note for note in found.notes)
    within = [each for each in found.trials if each.status is TrialStatus.OK]
    assert {"float32", "int8", "dynamic-int8"} <= {each.recipe.name for each in within}
    sizes = [each.size.model for each in within if each.size is not None]
    assert len(found.bundle.model_content) <= 1.01 * min(sizes)
    assert found.bundle.file_name == "small-7.edge"
    manifest = found.bundle.manifest
    assert manifest.metrics.size is not None
    assert manifest.metrics.size.model == len(found.bundle.model_content)
    assert manifest.metrics.accuracy is not None
    assert manifest.metrics.accuracy.drop <= 0.01 + 1e-9
    assert manifest.lineage is not None
    assert manifest.lineage.recipe_definition == found.chosen.recipe.to_builtins()
    chain = Chain.from_bundle(found.bundle)
    answers = [chain.run({"image": image[np.newaxis]}).label for image in digits.test[:100]]
    right = np.mean(
        [int(str(answer)) == truth for answer, truth in zip(answers, digits.test_labels, strict=False)]
    )
    assert right > 0.9


@pytest.mark.slow
def test_every_model_has_a_latency_that_was_measured_here(found: SearchResult, folder: Path) -> None:
    store = TrialStore(folder)
    for trial in found.trials:
        if trial.status is TrialStatus.FAILED:
            continue
        (latency,) = store.bundle(trial).manifest.metrics.latency
        assert latency.machine == machine_name()
        assert latency.median_ms == trial.latency_ms
    # One without rivals has nobody to take turns with.
    assert len(found.front) == 1 or all(map(store.compared, found.front))


@pytest.mark.heavy
def test_a_second_search_converts_nothing(
    workbench: Workbench, found: SearchResult, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workbench, "float_model", property(lambda _: pytest.fail("converted again")))
    again = search_workbench(
        workbench, Budget(max_drop=0.01), name="small", version="7", store=TrialStore(folder), deadline_s=90.0
    )  # fmt: skip
    assert again.bundle is not None
    assert found.bundle is not None
    assert again.bundle.to_bytes() == found.bundle.to_bytes()
    assert again.seconds < found.seconds / 2


@pytest.mark.slow
def test_a_latency_no_model_can_keep_is_refused_with_what_was_reached(
    workbench: Workbench, folder: Path
) -> None:
    missed = search_workbench(
        workbench, Budget(max_drop=0.01, max_latency_ms=1e-6), store=TrialStore(folder), deadline_s=90.0
    )  # fmt: skip
    assert missed.chosen is None
    refusal = missed.refusal()
    assert refusal.code is ErrorCode.BUDGET_MISSED
    assert "latency" in refusal.message


def test_a_limit_on_accuracy_without_labels_is_refused(digits: Digits, tmp_path: Path) -> None:
    bare = open_workbench(digits.file, representative=digits.calibration)
    with pytest.raises(HybridgeError) as caught:
        search_workbench(bare, Budget(max_drop=0.01), store=TrialStore(tmp_path))
    assert caught.value.code is ErrorCode.USAGE


def test_ray_needs_to_know_how_workers_open_the_workbench(workbench: Workbench, tmp_path: Path) -> None:
    with pytest.raises(HybridgeError, match="spec=") as caught:
        search_workbench(workbench, Budget(), store=TrialStore(tmp_path), ray_address="local")
    assert caught.value.code is ErrorCode.USAGE


def test_the_context_changes_with_all_that_shapes_a_bundle(
    workbench: Workbench, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = workbench.evaluation
    assert evaluation is not None
    assert evaluation.labels is not None
    flipped = replace(evaluation, labels=evaluation.labels[::-1].copy())
    sliced = replace(evaluation, slices={"half": np.arange(len(evaluation)) % 2})
    (tmp_path / "my_training.py").write_text("step = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    benches = [
        workbench,
        replace(workbench, evaluation=flipped),
        replace(workbench, evaluation=sliced),
        replace(workbench, calibration=None),
        replace(workbench, training=evaluation),
        replace(workbench, labels=()),
        replace(workbench, batch_size=2),
    ]
    digests = [context_digest(bench) for bench in benches]
    digests.append(context_digest(workbench, bounds=ParityBounds()))
    digests.append(context_digest(workbench, modules=("my_training",)))
    (tmp_path / "my_training.py").write_text("step = 2\n")
    digests.append(context_digest(workbench, modules=("my_training",)))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    digests.append(context_digest(workbench))
    assert len(set(digests)) == len(digests)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert context_digest(workbench) == digests[0]
    assert context_digest(workbench, modules=("no.such.module",)) != digests[0]


def test_an_estimate_of_training_grows_with_epochs_parts_and_samples(workbench: Workbench) -> None:
    estimate = TrainingEstimate(workbench)
    one = estimate(Training(prune=Pruning(), epochs=1))
    assert 10 < one < 60
    assert estimate(Training(prune=Pruning(), epochs=100)) > 2 * one
    assert estimate(Training(prune=Pruning(), qat=True, epochs=1)) > one


def test_layers_are_ranked_once_and_not_at_all_without_time(workbench: Workbench) -> None:
    layers = SensitiveLayers(workbench)
    assert layers.count(Precision.INT8, seconds=0.0) is None
    count = layers.count(Precision.INT8, seconds=60.0)
    assert count is not None
    assert count >= 2
    assert layers.count(Precision.INT8, seconds=0.0) == count


@pytest.mark.heavy
def test_training_makes_it_smaller_and_what_was_trained_is_kept(digits: Digits, tmp_path: Path) -> None:
    bench = open_digits(digits)
    options: dict[str, Any] = {
        "store": TrialStore(tmp_path),
        "training": Training(epochs=2),
        "deadline_s": 100.0,
    }
    found = search_workbench(bench, Budget(max_drop=0.03), **options)
    trained = [each for each in found.trials if each.recipe.training is not None]
    assert trained
    assert found.seconds < 150
    assert any(each.size is not None for each in trained), [each.failure for each in trained]
    again = search_workbench(bench, Budget(max_drop=0.03), **{**options, "deadline_s": 30.0})
    # Others may be given other epochs, by the time that is left for them.
    assert trained[0].recipe in {each.recipe for each in again.trials if each.cached}
