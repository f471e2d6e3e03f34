"""What beside the recipe shapes a bundle, as one digest: trials of one context can stand for each other."""

from __future__ import annotations

import hashlib
import os
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from convert.data import Dataset
from convert.recipes import ParityBounds
from edge_runtime import __version__

if TYPE_CHECKING:
    from convert.workbench import Workbench

__all__ = ["context_digest"]

_TOOLS = (
    "ai-edge-litert", "keras", "litert-quantizer", "numpy", "tensorflow", "tensorflow-model-optimization", "tf-keras",
)  # fmt: skip


def context_digest(
    workbench: Workbench, *, bounds: ParityBounds | None = None, modules: tuple[str, ...] = ()
) -> str:
    """SHA-256 of source, shapes, data, preprocessing, labels, bounds and versions: 64 hexadecimal digits.

    Args:
        workbench: The source and its data.
        bounds: In place of those of each recipe.
        modules: Names of modules of the user's own whose code has a part in it.
    """
    parts = [
        workbench.source.digest,
        workbench.inputs,
        workbench.batch_size,
        [_described(data) for data in (workbench.calibration, workbench.evaluation, workbench.training)],
        workbench.preprocessing,
        workbench.labels,
        workbench.given_confidence,
        bounds,
        __version__,
        {name: _version(name) for name in _TOOLS},
        {name: _code_digest(name) for name in modules},
        os.environ.get("SOURCE_DATE_EPOCH"),
    ]
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def _described(data: Dataset | None) -> list[object]:
    if data is None:
        return []
    arrays = {} if data.labels is None else {"": data.labels}
    return [data.digest, {name: _array_digest(array) for name, array in {**arrays, **data.slices}.items()}]


def _array_digest(array: np.ndarray) -> str:
    content = np.ascontiguousarray(array)
    return hashlib.sha256(f"{content.dtype.str} {content.shape} ".encode() + content.tobytes()).hexdigest()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _code_digest(module: str) -> str | None:
    try:
        found = util.find_spec(module)
    except (ImportError, ValueError):
        return None  # whoever needs it will say so
    if found is None or found.origin is None or not Path(found.origin).is_file():
        return None
    return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()
