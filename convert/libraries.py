"""The libraries of the `convert` extra, imported when they are needed and not before."""

from __future__ import annotations

import importlib
from typing import Any

from edge_runtime.errors import missing_extra

__all__ = ["load_library"]


def load_library(module: str) -> Any:
    """The module of that name, which the `convert` extra installs.

    Raises:
        HybridgeError: `extra-missing`.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing_extra("convert", error.name or module) from error
