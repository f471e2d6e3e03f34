from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from convert.recipes import (
    Method,
    Precision,
    Pruning,
    Quantization,
    Recipe,
    Rule,
    Training,
    find_recipe,
    load_recipe,
    recipe_names,
    recipe_toml,
    save_recipe,
)
from edge_runtime import Bundle, ErrorCode, HybridgeError
from edge_runtime.manifest import Lineage, Manifest, Signature
from edge_runtime.tensor_spec import TensorSpec


def message(source: Path | str) -> str:
    with pytest.raises(HybridgeError) as caught:
        load_recipe(source)
    assert caught.value.code is ErrorCode.RECIPE_UNKNOWN
    return caught.value.message


def test_a_name_is_that_recipe() -> None:
    assert load_recipe("prune+int8") == find_recipe("prune+int8")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_comes_back_from_its_own_file(name: str, tmp_path: Path) -> None:
    recipe = find_recipe(name)
    assert load_recipe(save_recipe(recipe, tmp_path / "own.toml")) == recipe


def test_rules_and_training_come_back(tmp_path: Path) -> None:
    recipe = Recipe(
        name="mine",
        training=Training(prune=Pruning(sparsity=0.7), qat=True, skip=("head",)),
        quantization=Quantization(
            precision=Precision.INT8,
            method=Method.MSE,
            rules=(Rule(layers="^a$", operators=("CONV_2D",), precision=Precision.INT16X8),),
        ),
    )
    loaded = load_recipe(save_recipe(recipe, tmp_path / "mine.toml"))
    assert (loaded.training, loaded.quantization) == (recipe.training, recipe.quantization)
    assert 'layers = "^a$"' in recipe_toml(recipe)


def test_a_part_of_a_recipe_takes_name_and_bounds_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "small.toml"
    file.write_text('[quantization]\nprecision = "int8"\n[[quantization.rules]]\nlayers = "head"\n')
    recipe = load_recipe(file)
    assert recipe.name == "small"
    assert recipe.bounds == find_recipe("int8").bounds
    assert recipe.quantization.rules == (Rule(layers="head"),)
    file.write_text('[quantization]\nprecision = "int8"\n[bounds]\nmin_snr_db = 33.0\n')
    assert load_recipe(file).bounds.min_snr_db == 33.0
    file.write_text("[training]\nqat = true\n")
    assert load_recipe(file).bounds == find_recipe("float32").bounds
    file.write_text('[quantization]\nprecision = "int8"\n[[quantization.rules]]\nprecision = "int4"\n')
    assert load_recipe(file).bounds == find_recipe("int4").bounds


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("precision = 'int8'", "precision"),
        ("[quantization]\nbits = 8", "bits"),
        ("[quantization]\nprecision = 'int9'", "$.quantization.precision"),
        ("[training.prune]\nsparsity = 1.5", "$.training.prune.sparsity"),
        ("[quantization", "']'"),
        ("", ""),
    ],
)
def test_a_wrong_file_names_the_field(content: str, named: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(content)
    if not content:
        assert load_recipe(file).quantization == Quantization()  # nothing asked for is float32
        return
    assert named in message(file)
    assert "wrong.toml" in message(file)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "binary.toml"
    file.write_bytes(b"\xff\xfe\x00")
    assert "binary.toml" in message(file)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(HybridgeError) as caught:
        load_recipe(tmp_path / "absent.toml")
    assert caught.value.code is ErrorCode.FILE_NOT_FOUND


def test_a_bundle_gives_the_recipe_that_made_it(tmp_path: Path) -> None:
    recipe = find_recipe("prune+cluster+qat")
    path = bundle(tmp_path, Lineage("a.keras", "0", recipe.name, recipe.to_builtins()))
    assert load_recipe(path) == recipe
    assert msgspec.convert(recipe.to_builtins(), Recipe) == recipe


def test_a_bundle_without_a_recipe_says_so(tmp_path: Path) -> None:
    assert "does not say how it was made" in message(bundle(tmp_path, None))
    assert "does not say" in message(bundle(tmp_path, Lineage("a.keras", "0", "int8")))


def test_a_file_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    save_recipe(find_recipe("int8"), tmp_path / "a.toml")
    with pytest.raises(HybridgeError) as caught:
        save_recipe(find_recipe("int4"), tmp_path / "a.toml")
    assert caught.value.code is ErrorCode.FILE_EXISTS
    save_recipe(find_recipe("int4"), tmp_path / "a.toml", overwrite=True)
    assert load_recipe(tmp_path / "a.toml").name == "int4"


def bundle(folder: Path, lineage: Lineage | None) -> Path:
    spec = TensorSpec("x", (1, 2), "float32")
    manifest = Manifest(
        schema_version=1, name="a", version="1", signature=Signature((spec,), (spec,)), lineage=lineage
    )
    return Bundle.create(manifest, {"model.tflite": b"content"}).save(folder / "a.edge", overwrite=True)
