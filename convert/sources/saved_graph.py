"""Changing the functions of a saved model where it lies, before it is converted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["change_functions"]


def change_functions(folder: str, change: Callable[[Any], None]) -> None:
    """Rewrites the graph of a saved model.

    Args:
        folder: The saved model.
        change: Changes a `FunctionDefLibrary` in place.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    path = Path(folder, "saved_model.pb")
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in saved.meta_graphs:
        change(graph.graph_def.library)
    path.write_bytes(saved.SerializeToString(deterministic=True))
