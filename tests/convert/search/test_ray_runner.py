"""Trials on a real Ray, started on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convert.budget import Budget
from convert.conversion import apply_recipe
from convert.recipes import find_recipe
from convert.search import TrialStatus, TrialStore, WorkbenchSpec, search_workbench
from convert.search.context import context_digest
from convert.search.ray_runner import RayRunner, _together
from convert.search.trial import Attempt
from convert.workbench import Workbench, open_workbench
from edge_runtime import ErrorCode, HybridgeError
from tests.convert.conftest import Digits

pytestmark = [pytest.mark.tensorflow, pytest.mark.heavy]


@pytest.fixture
def spec(digits: Digits) -> WorkbenchSpec:
    return WorkbenchSpec(
        source=digits.file,
        options={
            "representative": str(digits.calibration),
            "evaluation": {"image": digits.test, "label": digits.test_labels},
        },
    )


@pytest.fixture
def workbench(spec: WorkbenchSpec) -> Workbench:
    return open_workbench(spec.source, **spec.options)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """One Ray for several tests; starting it takes longer than most of them."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield ray
    ray.shutdown()


def run_all(runner: RayRunner, *names: str) -> dict[str, Attempt]:
    attempts = runner.run([find_recipe(name) for name in names], lambda _: True)
    return {attempt.recipe.name: attempt for attempt in attempts}


def test_a_cluster_that_is_not_there_is_named(spec: WorkbenchSpec) -> None:
    with pytest.raises(HybridgeError) as caught, RayRunner(spec, address="127.0.0.1:1", context=""):
        pass
    assert caught.value.code is ErrorCode.USAGE
    assert "127.0.0.1:1" in caught.value.message


@pytest.mark.usefixtures("no_comparison")
def test_a_search_over_ray_makes_what_is_made_here(
    workbench: Workbench, spec: WorkbenchSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The workers run elsewhere; paths must not depend on where the search was started.
    monkeypatch.chdir(Path(spec.source).parent)
    relative = replace(spec, source=Path(spec.source).name)
    monkeypatch.setattr("convert.search.workbench_search._trainable", lambda _: False)
    store = TrialStore(tmp_path)
    found = search_workbench(
        workbench, Budget(max_drop=0.01), spec=relative, ray_address="local", store=store, deadline_s=200.0
    )
    assert found.chosen is not None
    trials = {each.recipe.name: each for each in found.trials}
    assert all(each.latency_ms for each in found.trials if each.status is not TrialStatus.FAILED)
    for name in ("float16", "int8"):
        here = apply_recipe(workbench, find_recipe(name))
        assert store.bundle(trials[name]).model_content == here.bundle.model_content
        assert (trials[name].accuracy, trials[name].parity) == (here.accuracy, here.parity)
    import ray

    assert not ray.is_initialized()  # what the search started, it has stopped


def test_a_worker_that_dies_is_a_failed_trial_and_the_others_go_on(
    cluster: Any, spec: WorkbenchSpec, workbench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fatal_once.py").write_text(
        "import os, pathlib\n"
        f"mark = pathlib.Path({str(tmp_path / 'mark')!r})\n"
        "if not mark.exists():\n    mark.touch()\n    os._exit(3)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = ("fatal_once",)
    context = context_digest(workbench, modules=modules)
    fatal = replace(spec, options={**spec.options, "custom": modules}, modules=modules)
    with RayRunner(fatal, address="local", context=context) as runner:
        first = run_all(runner, "float16")["float16"]
        assert first.bundle is None
        assert first.failure is not None
        assert first.failure.code is ErrorCode.INTERNAL
        assert "Ray worker" in first.failure.message
        second = run_all(runner, "float16", "int8")
        assert all(each.bundle for each in second.values()), second


def test_a_worker_that_reads_other_data_refuses(cluster: Any, spec: WorkbenchSpec) -> None:
    with RayRunner(spec, address="local", context="0" * 64) as runner:
        assert runner.slots >= 1
        failure = run_all(runner, "float16")["float16"].failure
        assert failure is not None
        assert failure.code is ErrorCode.DATA_INVALID
        assert "share one file system" in failure.message
        assert list(runner.run([find_recipe("int8")], lambda _: False)) == []


def test_a_trial_that_is_late_is_given_up(cluster: Any, spec: WorkbenchSpec, workbench: Workbench) -> None:
    context = context_digest(workbench)
    with RayRunner(spec, address="local", context=context, deadline_s=0.0) as runner:
        assert run_all(runner, "float16", "int8") == {}
    assert cluster.is_initialized()  # it was there before, and is not the search's to stop


def test_without_ray_the_extra_is_named(spec: WorkbenchSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HybridgeError) as caught:
        RayRunner(spec, address="local", context="")
    assert caught.value.code is ErrorCode.EXTRA_MISSING
    assert "hybridge[federated]" in caught.value.message


def test_endings_of_one_training_travel_together() -> None:
    names = ("int8", "prune+int8", "float16", "prune+int4", "qat")
    groups = _together([find_recipe(name) for name in names])
    assert [[recipe.name for recipe in group] for group in groups] == [
        ["int8"], ["prune+int8", "prune+int4"], ["float16"], ["qat"],
    ]  # fmt: skip
