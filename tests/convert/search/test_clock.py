from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convert.budget import Budget
from convert.recipes import Pruning, Recipe, Training
from convert.search.clock import SearchClock
from convert.search.runner import SequentialRunner
from convert.search.search import SearchResult, search
from convert.search.space import SearchSpace
from convert.search.store import TrialStore
from edge_runtime import ErrorCode
from tests.convert.search.conftest import Script

PLAIN = Recipe(name="int8")
TRAINED = Recipe(name="prune", training=Training(prune=Pruning(), epochs=4))
LONGER = Recipe(name="prune", training=Training(prune=Pruning(), epochs=8))


def test_a_trial_is_expected_to_take_as_long_as_the_slowest_before_it() -> None:
    clock = SearchClock(100.0)
    assert clock.allows(PLAIN)
    clock.learn(PLAIN, 5.0)
    clock.learn(PLAIN, 50.0)
    assert 55 < clock.estimate(PLAIN) < 70
    assert clock.allows(PLAIN)
    clock.learn(PLAIN, 90.0)
    assert not clock.allows(PLAIN)


def test_trainings_are_guessed_and_the_guess_is_corrected_by_what_they_took() -> None:
    clock = SearchClock(1000.0, lambda training: 10.0 * training.epochs)
    assert 40 <= clock.estimate(TRAINED) < 60
    clock.learn(TRAINED, 120.0)  # three times the guess
    assert 240 <= clock.estimate(LONGER) < 300
    # Its weights are there: another ending only converts.
    assert clock.estimate(TRAINED) < 60


def test_a_first_training_of_unknown_length_wants_half_of_the_time() -> None:
    clock = SearchClock(100.0)
    assert clock.estimate(TRAINED) == 50
    clock.learn(TRAINED, 10.0)
    assert clock.estimate(LONGER) < 20
    assert SearchClock(None).allows(TRAINED)


def test_time_is_set_aside_for_the_comparison_at_the_end() -> None:
    clock = SearchClock(100.0)
    assert 94 < clock.remaining <= 95
    assert SearchClock(10_000.0).remaining > 9_900
    assert SearchClock(None).rounds_for(20) == 5
    assert SearchClock(4.0).rounds_for(2) == 2
    assert SearchClock(0.0).rounds_for(2) == 0


@pytest.fixture
def slow(
    script: Script, space: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[SequentialRunner, SearchSpace, TrialStore]:
    monkeypatch.setattr("convert.search.run.measure_in_turn", lambda *_, **__: {})
    monkeypatch.setattr("convert.search.clock._LATENCY_SECONDS", 0.001)

    def slowly(recipe: Recipe) -> Any:
        time.sleep(0.05 if recipe.training is None else 0.1 * recipe.training.epochs)
        return script(recipe)

    return SequentialRunner(slowly), replace(space, layers=None), TrialStore(tmp_path / "trials")


def search_in(
    slow: tuple[SequentialRunner, SearchSpace, TrialStore], seconds: float, guess: float
) -> SearchResult:
    runner, space, store = slow
    guessed = replace(space, training_seconds=lambda training: guess * training.epochs)
    return search(runner, guessed, Budget(max_drop=0.01), store=store, context="c", deadline_s=seconds)


def test_a_search_ends_in_time_and_names_what_it_had_no_time_for(
    slow: tuple[SequentialRunner, SearchSpace, TrialStore],
) -> None:
    start = time.monotonic()
    found = search_in(slow, 1.5, 0.1)
    assert time.monotonic() - start < 1.6
    assert found.chosen is not None
    assert any("no time was left for" in note and "--search-minutes" in note for note in found.notes)


def test_a_training_that_cannot_end_in_time_is_not_begun(
    slow: tuple[SequentialRunner, SearchSpace, TrialStore], script: Script
) -> None:
    found = search_in(slow, 2.0, 100.0)
    assert not [name for name in script.tried if "prune" in name or "qat" in name]
    assert found.seconds < 1.5
    assert any("prune-80+weight-only-int8" in note for note in found.notes)


def test_with_little_time_trainings_get_fewer_epochs_and_a_later_search_finds_them_again(
    slow: tuple[SequentialRunner, SearchSpace, TrialStore], script: Script
) -> None:
    found = search_in(slow, 2.0, 0.1)
    epochs = {each.recipe.name: each.recipe.training.epochs for each in found.trials if each.recipe.training}
    assert epochs["prune-80+int8"] < 4
    script.tried.clear()
    again = search_in(slow, 60.0, 0.1)
    assert "prune-80+int8" not in script.tried
    assert {each.recipe for each in found.trials} <= {each.recipe for each in again.trials}


def test_no_time_at_all_is_an_error_that_says_so(
    slow: tuple[SequentialRunner, SearchSpace, TrialStore],
) -> None:
    found = search_in(slow, -1.0, 0.1)
    assert found.trials == ()
    assert found.refusal().code is ErrorCode.BUDGET_MISSED
    assert "--search-minutes" in found.refusal().message
