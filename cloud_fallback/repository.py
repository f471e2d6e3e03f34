"""The models of an endpoint, by name and version."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from os import PathLike, fspath
from pathlib import Path

from cloud_fallback.served import FORMATS, ServedModel
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Repository"]


class Repository:
    """Models that were loaded, each found by its name and version.

    Args:
        models: The models.

    Raises:
        HybridgeError: `usage` for two models of one name and version, or for none at all.

    Example:
        >>> repository = Repository.load(["digits-large-1.0.edge", "ocr=models/recognition.onnx"])
        >>> repository.find("ocr").inputs
    """

    def __init__(self, models: Iterable[ServedModel]):
        found: dict[str, dict[str, ServedModel]] = {}
        for model in models:
            versions = found.setdefault(model.name, {})
            if model.version in versions:
                raise HybridgeError(
                    ErrorCode.USAGE,
                    "models to serve",
                    received=f"two of name '{model.name}' and version '{model.version}'",
                    expected="one",
                    fix="give one of them another name, as name=path",
                )
            versions[model.version] = model
        if not found:
            raise HybridgeError(ErrorCode.USAGE, "models to serve", received="none", expected="at least one")
        # Newest first, so that a request without a version takes the first.
        self._models = {
            name: dict(sorted(versions.items(), key=lambda item: _release_order(item[0]), reverse=True))
            for name, versions in sorted(found.items())
        }

    @classmethod
    def load(
        cls,
        sources: Iterable[str | PathLike[str]],
        *,
        instances: int | None = None,
        num_threads: int | None = None,
    ) -> Repository:
        """Loads models from files and from folders of such files.

        Args:
            sources: Paths of `.edge`, `.tflite` and `.onnx` files, or of folders that hold some; a file's may be
                written ``name=path`` to give the model that name.
            instances: Requests that may run at once on each model; by default two, or one on a single core.
            num_threads: Threads that each of them may use; by default the cores, shared out among them.

        Raises:
            HybridgeError: `file-not-found`; `usage` for a file of another kind or two models of one name and version;
                what loading a model raises.
        """
        cores = os.cpu_count() or 1
        instances = instances or min(2, cores)
        num_threads = num_threads or max(1, cores // instances)
        return cls(
            FORMATS[path.suffix](path, name=name, instances=instances, num_threads=num_threads)
            for source in sources
            for name, path in _files(fspath(source))
        )

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """Every model, sorted by name, newest version first."""
        return tuple(model for versions in self._models.values() for model in versions.values())

    def versions(self, name: str) -> tuple[str, ...]:
        """The versions of the models called `name`, newest first; empty when there is none."""
        return tuple(self._models.get(name, ()))

    def find(self, name: str, version: str = "") -> ServedModel:
        """The model called `name`, of the newest version when `version` is empty.

        Raises:
            HybridgeError: `model-unknown`.
        """
        versions = self._models.get(name)
        if versions is None:
            raise HybridgeError(
                ErrorCode.MODEL_UNKNOWN,
                "model",
                received=f"name '{name[:128]}'",
                expected=f"one of {', '.join(self._models)}",
            )
        if not version:
            return next(iter(versions.values()))
        if version not in versions:
            raise HybridgeError(
                ErrorCode.MODEL_UNKNOWN,
                f"model '{name}'",
                received=f"version '{version[:128]}'",
                expected=f"one of {', '.join(versions)}, or none for the newest",
            )
        return versions[version]


def _files(source: str) -> list[tuple[str | None, Path]]:
    """The files that one argument stands for, each with the name that it is given there."""
    name, separator, path = source.partition("=")
    # A path may have an equals sign of its own.
    given = name if separator and not Path(source).exists() else None
    target = Path(path if given is not None else source)
    if target.is_dir() and given is None:
        found = sorted(file for file in target.iterdir() if file.suffix in FORMATS and file.is_file())
        if not found:
            raise HybridgeError(
                ErrorCode.FILE_NOT_FOUND,
                f"folder '{target}'",
                received="no model in it",
                expected=f"files that end in {' or '.join(FORMATS)}",
            )
        return [(None, file) for file in found]
    if target.suffix not in FORMATS or given == "":
        raise HybridgeError(
            ErrorCode.USAGE,
            "model to serve",
            received=f"'{source}'",
            expected=f"[name=]path of a file that ends in {' or '.join(FORMATS)}, or a folder of some",
        )
    return [(given, target)]


def _release_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts 1.10 after 1.9, and 1.0 after 1.0-rc1."""
    parts = re.findall(r"\d+|[A-Za-z]+", version)
    return (*((1, int(part), "") if part.isdigit() else (-1, 0, part) for part in parts), (0, 0, ""))
