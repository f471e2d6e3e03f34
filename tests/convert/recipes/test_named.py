from __future__ import annotations

import pytest
from msgspec.structs import replace

from convert.recipes import Method, Precision, find_recipe, post_training, recipe_names, training_time
from edge_runtime import ErrorCode, HybridgeError


def test_recipes_with_activations_in_integers_need_representative_data() -> None:
    needing = {name for name in recipe_names() if find_recipe(name).needs_representative}
    assert needing == {"int8", "int16x8", "qat", "prune+qat", "cluster+qat", "prune+cluster+qat"}


def test_every_recipe_is_found_under_its_own_name_and_bounds_its_loss() -> None:
    for name in recipe_names():
        recipe = find_recipe(name)
        assert recipe.name == name
        assert recipe.bounds.max_relative_error is not None or recipe.bounds.min_snr_db is not None


def test_training_may_end_in_any_precision() -> None:
    for precision in Precision:
        recipe = find_recipe(f"prune+qat+{precision}")
        assert recipe.training == training_time("prune+qat").training
        # Rounded as it was trained to be.
        as_trained = replace(post_training(precision).quantization, method=Method.MIN_MAX, equalize=False)
        assert recipe.quantization == as_trained
        pruned = find_recipe(f"prune+{precision}")
        assert pruned.quantization == post_training(precision).quantization


@pytest.mark.parametrize("name", ["int9", "", "int8+prune", "prune+", "prune+int9", "+int8", "INT8"])
def test_an_unknown_recipe_names_those_there_are(name: str) -> None:
    with pytest.raises(HybridgeError) as caught:
        find_recipe(name)
    assert caught.value.code is ErrorCode.RECIPE_UNKNOWN
    assert f"received '{name}', expected one of float32, float16" in caught.value.message
    assert "prune+cluster+qat" in caught.value.message
