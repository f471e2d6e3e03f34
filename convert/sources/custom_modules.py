"""Modules of the user's own that define the classes and functions which a saved Keras model names."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["import_custom"]


def import_custom(modules: Sequence[str]) -> dict[str, Any]:
    """Imports modules, which may register what they define, and collects their classes and functions.

    Args:
        modules: Dotted names, importable from the current directory too.

    Returns:
        Classes and functions by name, as Keras takes them for `custom_objects`. What a module imported from another
        package is left out.

    Raises:
        HybridgeError: `usage` for a module that is not found or fails.
    """
    found: dict[str, Any] = {}
    for name in modules:
        package = name.partition(".")[0]
        for key, value in vars(_imported(name)).items():
            own = getattr(value, "__module__", None) or ""
            if (inspect.isclass(value) or inspect.isfunction(value)) and own.partition(".")[0] == package:
                found[key] = value
    return found


def _imported(name: str) -> Any:
    try:
        with _current_directory_importable():
            return importlib.import_module(name)
    except Exception as error:
        # The module is the user's own code, which raises what it likes.
        raise HybridgeError(
            ErrorCode.USAGE,
            f"custom module '{name}'",
            received=f"{type(error).__name__}: {error}",
            expected="a module that can be imported, installed or in the current directory",
            fix="give its dotted name, such as models.layers, and run from the folder that holds it",
        ) from error


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    folder = os.getcwd()
    sys.path.insert(0, folder)
    # A file may have been written since this folder was last looked through.
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # The module itself may have changed the path; only what was added here goes.
        if folder in sys.path:
            sys.path.remove(folder)
