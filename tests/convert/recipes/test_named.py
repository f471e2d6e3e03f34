from __future__ import annotations

import pytest

from convert import find_recipe, recipe_names
from edge_runtime import ErrorCode, HybridgeError


def test_only_full_int8_needs_representative_data() -> None:
    assert [name for name in recipe_names() if find_recipe(name).needs_representative] == ["int8"]


def test_every_recipe_is_found_under_its_own_name_and_bounds_its_loss() -> None:
    for name in recipe_names():
        recipe = find_recipe(name)
        assert recipe.name == name
        assert recipe.bounds.max_relative_error or recipe.bounds.min_snr_db


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(HybridgeError) as caught:
        find_recipe("int9")
    assert caught.value.code is ErrorCode.RECIPE_UNKNOWN
    assert (
        caught.value.message
        == "recipe: received 'int9', expected one of float32, float16, dynamic-int8, int8"
    )
