"""Recipes from where a user keeps them: by name, as a TOML file, in a bundle that one made."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from convert.libraries import load_library
from convert.recipes.named import default_bounds, find_recipe
from convert.recipes.recipe import ParityBounds, Recipe
from edge_runtime.bundle import Bundle
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file, write_file

__all__ = ["load_recipe", "recipe_toml", "save_recipe"]


def load_recipe(source: str | PathLike[str]) -> Recipe:
    """The recipe of that name, or in that file.

    Args:
        source: A name such as ``int8``; a path to a `.toml` file with the fields of a `Recipe`, of which only those
            that differ from the defaults need be given; or to an `.edge` bundle, whose lineage holds its recipe.

    Raises:
        HybridgeError: `recipe-unknown` for a name there is not, or a file that holds no recipe; `file-not-found`;
            `bundle-damaged`, `bundle-invalid`.

    Example:
        >>> load_recipe("prune+int8").quantization.precision
        <Precision.INT8: 'int8'>
    """
    text = fspath(source)
    suffix = Path(text).suffix.lower()
    if suffix == ".toml":
        return _from_file(Path(text))
    if suffix == ".edge":
        return _from_bundle(Path(text))
    return find_recipe(text)


def recipe_toml(recipe: Recipe) -> str:
    """The recipe as a TOML file, without the fields that have their defaults."""
    written: str = load_library("tomli_w").dumps(recipe.to_builtins())
    return written


def save_recipe(recipe: Recipe, path: str | PathLike[str], *, overwrite: bool = False) -> Path:
    """Writes the recipe to a TOML file.

    Raises:
        HybridgeError: `file-exists` when something is there and `overwrite` is false, `file-unwritable`.
    """
    target = Path(path)
    write_file(target, recipe_toml(recipe).encode(), overwrite=overwrite)
    return target


def _from_file(path: Path) -> Recipe:
    try:
        tables = msgspec.toml.decode(read_file(path))
        return _from_tables({"name": path.stem, **tables})
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _invalid(path.name, str(error), "write a field as one of the recipe's own") from error


def _from_bundle(path: Path) -> Recipe:
    lineage = Bundle.open(path).manifest.lineage
    if lineage is None or not lineage.recipe_definition:
        raise _invalid(path.name, "a bundle that does not say how it was made", "convert its source again")
    try:
        return _from_tables(lineage.recipe_definition)
    except msgspec.ValidationError as error:
        raise _invalid(path.name, str(error), "use the release of hybridge that made the bundle") from error


def _from_tables(tables: dict[str, Any]) -> Recipe:
    recipe = msgspec.convert(tables, Recipe)
    if recipe.bounds == ParityBounds() and "bounds" not in tables:
        return replace(recipe, bounds=default_bounds(recipe))
    return recipe


def _invalid(name: str, received: str, fix: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.RECIPE_UNKNOWN,
        f"recipe in '{name}'",
        received=received,
        expected='tables such as [quantization] with precision = "int8"',
        fix=fix,
    )
