"""The models of an endpoint, by name and version."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from os import PathLike, fspath

from cloud_fallback.endpoint.model_source import find_models
from cloud_fallback.endpoint.served.served_model import ServedModel
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
        """Loads models from files, from folders of such files, and from functions that make them.

        Args:
            sources: Paths of `.edge`, `.tflite` and `.onnx` files, or of folders that hold some, of chains (`.toml`),
                or ``module:function``; a file's and a function's may be written ``name=path`` to give the model that
                name. The function takes the keywords `name`, which may be None, `instances` and `num_threads`, and
                returns a `ServedModel`.
            instances: Requests that may run at once on each model; by default two, or one on a single core.
            num_threads: Threads that each of them may use; by default the cores, shared out among them.

        Raises:
            HybridgeError: `file-not-found`; `usage` for a file of another kind or two models of one name and version;
                `model-invalid` for a function that cannot be imported, or fails; what loading a model raises.
        """
        cores = os.cpu_count() or 1
        instances = instances or min(2, cores)
        num_threads = num_threads or max(1, cores // instances)
        loaded: list[ServedModel] = []
        try:
            for source in sources:
                for name, make in find_models(fspath(source)):
                    loaded.append(make(name=name, instances=instances, num_threads=num_threads))
            return cls(loaded)
        except BaseException:
            _close(loaded)
            raise

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """Every model, sorted by name, newest version first."""
        return tuple(model for versions in self._models.values() for model in versions.values())

    def versions(self, name: str) -> tuple[str, ...]:
        """The versions of the models called `name`, newest first; empty when there is none."""
        return tuple(self._models.get(name, ()))

    def close(self) -> None:
        """Closes the models that hold more than memory; none is used again."""
        _close(self.models)

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


def _close(models: Iterable[ServedModel]) -> None:
    for model in models:
        close = getattr(model, "close", None)
        if close is not None:
            close()


def _release_order(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts 1.10 after 1.9, and 1.0 after 1.0-rc1."""
    parts = re.findall(r"\d+|[A-Za-z]+", version)
    return (*((1, int(part), "") if part.isdigit() else (-1, 0, part) for part in parts), (0, 0, ""))
