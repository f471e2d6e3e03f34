from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from convert.budget import Budget
from convert.recipes import Precision, Rule
from convert.search.outcome import as_data, as_text
from convert.search.runner import SequentialRunner
from convert.search.search import SearchResult, search
from convert.search.space import SearchSpace
from convert.search.store import TrialStore
from convert.search.trial import TrialStatus
from edge_runtime import ErrorCode
from tests.convert.search.conftest import Layers, Script, broken, metrics

pytestmark = pytest.mark.usefixtures("no_comparison")

PLAIN = [str(precision) for precision in Precision if precision is not Precision.INT16X8]


@pytest.fixture
def run(runner: SequentialRunner, space: SearchSpace, tmp_path: Path) -> Any:
    def run(budget: Budget, *, changed: dict[str, Any] | None = None, **options: Any) -> SearchResult:
        options.setdefault("store", TrialStore(tmp_path / "trials"))
        options.setdefault("context", "c")
        return search(runner, replace(space, **(changed or {})), budget, **options)

    return run


def test_cheap_trials_come_first_and_the_smallest_within_the_budget_wins(run: Any, script: Script) -> None:
    found = run(Budget(max_drop=0.01))
    assert script.tried[: len(PLAIN)] == PLAIN
    trained = [index for index, name in enumerate(script.tried) if "prune" in name or "qat" in name]
    assert min(trained) > max(index for index, name in enumerate(script.tried) if "mixed" in name)
    sizes = {each.recipe.name: each.size.model for each in found.trials if each.status is TrialStatus.OK}
    assert found.chosen.size.model <= 1.01 * min(sizes.values())
    assert found.bundle.digest == found.chosen.digest
    assert found.misses == ()


def test_as_few_layers_are_spared_as_the_limit_allows_found_by_bisection(run: Any, script: Script) -> None:
    # int4 loses 0.03 with the best scales, and 0.01 less for each layer spared: two must be.
    found = run(Budget(max_drop=0.0101), changed={"trainable": False})
    assert found.chosen.recipe.name == "int4-octav-mixed-2"
    tried = [name for name in script.tried if "mixed" in name]
    assert len(tried) <= 4
    assert "int4-octav-mixed-1" in tried


def test_int16x8_is_for_models_that_no_other_eight_bits_suit(run: Any, script: Script) -> None:
    assert run(Budget(max_drop=0.01), changed={"trainable": False}).chosen
    assert "int16x8" not in script.tried
    script.costs.update({name: metrics(270, 0.03) for name in ("int8", "dynamic-int8", "weight-only-int8")})
    run(Budget(max_drop=0.01), changed={"trainable": False}, context="another")
    assert "int16x8" in script.tried


def test_mixed_precision_starts_from_the_choice_of_scales_that_loses_least(run: Any, script: Script) -> None:
    script.costs["int4"] = metrics(150, 0.05)
    script.costs["int4-octav"] = metrics(150, 0.02)
    run(Budget(max_drop=0.0101), changed={"trainable": False})
    assert "int4-octav-mixed-8" in script.tried
    mine = (Rule(layers="head", precision=Precision.FLOAT32),)
    found = run(Budget(max_drop=0.0101), changed={"trainable": False, "rules": mine}, context="another")
    rules = {each.recipe.name: each.recipe.quantization.rules for each in found.trials}
    assert all(each[-1:] == mine for each in rules.values())
    assert any(len(each) > 1 for each in rules.values())


def test_layers_that_take_too_long_to_rank_are_left_unranked_with_a_note(run: Any, script: Script) -> None:
    found = run(Budget(max_drop=0.01), changed={"trainable": False, "layers": Layers(None)})
    assert any("rank the layers for int4" in note for note in found.notes)
    assert not [name for name in script.tried if "mixed" in name]


def test_other_methods_are_tried_only_where_little_is_missing(run: Any, script: Script) -> None:
    script.costs["int4-octav"] = metrics(150, 0.009)
    found = run(Budget(max_drop=0.01), changed={"trainable": False, "layers": None})
    assert found.chosen.recipe.name == "int4-octav"
    assert "int4-gptq" not in script.tried
    script.tried.clear()
    script.costs["int4"] = script.costs["int4-block32"] = metrics(150, 0.08)
    far = run(Budget(max_drop=0.01), changed={"trainable": False, "layers": None}, context="another")
    assert far.chosen.recipe.name == "int8"
    assert not [name for name in script.tried if "octav" in name]


def test_pruning_goes_as_far_as_the_limit_allows(run: Any, script: Script) -> None:
    found = run(Budget(max_drop=0.025), changed={"layers": None})
    # 0.001 for int8, and 0.02 for each tenth beyond 0.8: 0.9 keeps within, 0.95 does not.
    pruned = {each.recipe.name: each.status for each in found.trials if each.recipe.name.startswith("prune")}
    assert pruned["prune-80+weight-only-int8"] is TrialStatus.OK
    assert pruned["prune-90+weight-only-int8"] is TrialStatus.OK
    assert pruned["prune-95+weight-only-int8"] is TrialStatus.OUT_OF_BUDGET
    assert not [name for name in script.tried if name.startswith("prune-70")]
    # The same training ends in what runs in int8, too.
    assert pruned["prune-90+int8"] is TrialStatus.OK
    # Shared values make the same file lighter over the air.
    assert found.chosen.recipe.name == "prune-90+cluster+weight-only-int8"


def test_pruning_less_is_tried_when_the_usual_share_is_too_much(run: Any, script: Script) -> None:
    for name, drop in (("80", 0.05), ("70", 0.006), ("75", 0.0)):
        script.costs[f"prune-{name}+weight-only-int8"] = metrics(112, drop)
        script.costs[f"prune-{name}+int8"] = metrics(260, drop)
    run(Budget(max_drop=0.01), changed={"layers": None})
    pruned = [
        name for name in script.tried if name.startswith("prune") and name.endswith("+weight-only-int8")
    ]
    assert pruned == [
        "prune-80+weight-only-int8",
        "prune-70+weight-only-int8",
        "prune-70+cluster+weight-only-int8",
    ]


def test_zeros_that_do_not_make_the_file_smaller_are_tried_once(run: Any, script: Script) -> None:
    script.costs["int4"] = metrics(50, 0.0)
    found = run(Budget(max_drop=0.01), changed={"layers": None})
    pruned = [name for name in script.tried if name.startswith("prune") and name.endswith("weight-only-int8")]
    assert pruned == ["prune-80+weight-only-int8"]
    # What is best without is tried with them, for what travels over the air.
    assert {"prune-80+int4", "prune-80+cluster+qat+int4"} <= set(script.tried)
    assert found.chosen is not None


def test_rounding_in_training_is_for_precisions_that_lose_too_much(run: Any, script: Script) -> None:
    for share in (80, 70, 50):
        script.costs[f"prune-{share}+weight-only-int8"] = script.costs[f"prune-{share}+int8"] = metrics(
            100, 0.5
        )
    found = run(Budget(max_drop=0.01), changed={"layers": None})
    assert "qat+int4" in script.tried
    assert "qat+int8" not in script.tried
    assert found.chosen.recipe.name in ("qat+int4", "cluster+qat+int4")


def test_between_files_of_one_size_what_travels_over_the_air_decides(run: Any, script: Script) -> None:
    script.costs["int8"] = metrics(100, 0.005, deflated=90)
    script.costs["prune-80+int8"] = metrics(100, 0.005, deflated=50)
    script.costs["prune-80+cluster+qat+int8"] = metrics(100, 0.005, deflated=30)
    for share in (80, 90):
        script.costs[f"prune-{share}+weight-only-int8"] = metrics(110, 0.5)
    found = run(Budget(max_drop=0.01), changed={"layers": None})
    assert found.chosen.recipe.name == "prune-80+cluster+qat+int8"


def test_data_that_is_missing_is_said_and_what_needs_it_is_left_out(run: Any, script: Script) -> None:
    found = run(Budget(max_drop=0.01), changed={"representative": False, "trainable": False})
    assert not {"int8", "int16x8", "int4-gptq", "int4-oscar"} & set(script.tried)
    assert any("--representative" in note for note in found.notes)
    assert any("--train" in note for note in found.notes)
    assert found.chosen is not None


def test_a_trial_that_fails_is_an_outcome_with_its_reason(run: Any, script: Script) -> None:
    script.costs["int8"] = broken()
    script.costs["int4"] = ValueError("no such\nkernel")
    found = run(Budget(max_drop=0.01), changed={"trainable": False})
    failed = {each.recipe.name: each.failure for each in found.trials if each.status is TrialStatus.FAILED}
    assert failed["int8"].code is ErrorCode.CONVERSION_FAILED
    assert failed["int4"].code is ErrorCode.INTERNAL
    assert failed["int4"].message == "ValueError: no such kernel"
    assert found.chosen is not None
    assert "failed: int8: " in as_text(found)


def test_when_no_precision_makes_a_model_nothing_is_trained_and_the_reason_is_the_error(
    run: Any, script: Script
) -> None:
    everything = [*PLAIN, "int16x8"]
    script.costs.update(dict.fromkeys(everything, broken(ErrorCode.SOURCE_INVALID)))
    found = run(Budget(max_drop=0.01))
    assert script.tried == everything
    assert (found.chosen, found.nearest, found.bundle) == (None, None, None)
    assert found.refusal().code is ErrorCode.SOURCE_INVALID
    assert "none of 8 recipes" in found.refusal().message


def test_one_training_that_fails_ends_the_others(run: Any, script: Script) -> None:
    for ending in ("int8", "weight-only-int8"):
        script.costs[f"prune-80+{ending}"] = broken(ErrorCode.TRAINING_FAILED)
    found = run(Budget(max_drop=0.01), changed={"layers": None})
    trained = [name for name in script.tried if "prune" in name or "qat" in name]
    assert trained == ["prune-80+weight-only-int8"]
    assert not any("no time" in note for note in found.notes)
    assert any("pruning failed" in note for note in found.notes)


def test_when_nothing_fits_the_nearest_and_what_it_reached_is_the_error(run: Any) -> None:
    found = run(Budget(max_drop=0.01, max_size=20), changed={"trainable": False})
    assert found.chosen is None
    assert found.nearest is not None
    assert found.bundle is not None
    refusal = found.refusal()
    assert refusal.code is ErrorCode.BUDGET_MISSED
    assert found.nearest.recipe.name in refusal.message
    assert "at most 20" in refusal.message
    assert "nearest: " in as_text(found)


def test_no_limit_on_accuracy_means_one_point_and_the_reader_is_told(run: Any) -> None:
    said: list[str] = []
    found = run(Budget(), changed={"trainable": False}, progress=said.append)
    assert found.goal.budget.max_drop == 0.01
    assert any("no limit on accuracy" in line for line in said)
    assert any("no limit on accuracy" in note for note in found.notes)
    assert found.chosen.drop == pytest.approx(0.01)


def test_a_repeated_search_tries_nothing_again_and_finds_the_same(run: Any, script: Script) -> None:
    first = run(Budget(max_drop=0.01))
    tried, script.tried = script.tried, []
    second = run(Budget(max_drop=0.01))
    assert tried
    assert script.tried == []
    assert all(each.cached for each in second.trials)
    assert second.chosen.recipe == first.chosen.recipe
    assert [each.recipe for each in second.trials] == [each.recipe for each in first.trials]
    other = run(Budget(max_drop=0.01), context="another source", changed={"trainable": False})
    assert script.tried[: len(PLAIN)] == PLAIN
    assert not any(each.cached for each in other.trials)


def test_another_budget_reuses_conversions_but_not_trainings_that_stopped_on_it(
    run: Any, script: Script
) -> None:
    run(Budget(max_drop=0.01), changed={"layers": None})
    script.tried.clear()
    run(Budget(max_drop=0.02), changed={"layers": None})
    assert not set(script.tried) & set(PLAIN)
    assert "prune-80+int8" in script.tried


def test_the_outcome_can_be_written_and_shown(run: Any, script: Script) -> None:
    script.costs["float16"] = broken()
    found = run(Budget(max_drop=0.01))
    data = msgspec.json.decode(msgspec.json.encode(as_data(found)))
    rows = {row["name"]: row for row in data["trials"]}
    assert [name for name, row in rows.items() if row["chosen"]] == [found.chosen.recipe.name]
    assert rows["float16"]["error"]["code"] == "conversion-failed"
    assert rows["int4"]["status"] == "out-of-budget"
    assert {name for name, row in rows.items() if row["on_front"]} == {
        each.recipe.name for each in found.front
    }
    text = as_text(found)
    assert f"chosen: {found.chosen.recipe.name}" in text
    line = next(line for line in text.splitlines() if line.endswith("chosen"))
    assert f"{found.chosen.size.model:,}" in line
