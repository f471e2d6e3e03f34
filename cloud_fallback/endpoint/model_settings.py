"""How a model is served: which versions, which share of the requests each gets, and how requests are run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from cloud_fallback.endpoint.served.model_queue import Batching
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["ModelSettings", "newest_first"]

_Count = Annotated[int, Meta(ge=1)]
_Weight = Annotated[float, Meta(ge=0)]
_LATEST = re.compile(r"latest(?::([1-9]\d*))?")


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What `model.toml` in a model's folder may say, each in place of what the endpoint is told for all.

    Attributes:
        versions: Which are loaded: ``"all"``, ``"latest"``, ``"latest:2"``, or their names.
        split: Weight of each version for requests that do not name one, such as ``{"1" = 95, "2" = 5}``; without it
            they go to the newest.
        instances: Runs that may be under way at once.
        num_threads: Threads that each of them may use.
        batching: How requests are run together.
    """

    versions: str | tuple[str, ...] = "all"
    split: dict[str, _Weight] = {}
    instances: _Count | None = None
    num_threads: _Count | None = None
    batching: Batching | None = None

    def choose(self, found: Sequence[str]) -> list[str]:
        """The versions to load among those that are there, the newest first.

        Raises:
            HybridgeError: `usage` for a version that is not there, or for a word that means nothing.
        """
        newest = newest_first(found)
        if not isinstance(self.versions, str):
            if missing := [version for version in self.versions if version not in found]:
                raise _unusable("versions", ", ".join(missing), f"some of {', '.join(newest) or 'none'}")
            return newest_first(self.versions)
        if self.versions == "all":
            return newest
        latest = _LATEST.fullmatch(self.versions)
        if latest is None:
            raise _unusable("versions", f"'{self.versions}'", "all, latest, latest:2, or a list of versions")
        return newest[: int(latest[1] or 1)]


def newest_first(versions: Sequence[str]) -> list[str]:
    """Versions in the order of their releases: 1.10 is newer than 1.9, and 1.0 than 1.0-rc1."""
    return sorted(versions, key=_release_order, reverse=True)


def _release_order(version: str) -> tuple[tuple[int, int, str], ...]:
    parts = re.findall(r"\d+|[A-Za-z]+", version)
    return (*((1, int(part), "") if part.isdigit() else (-1, 0, part) for part in parts), (0, 0, ""))


def _unusable(what: str, received: str, expected: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.USAGE, f"{what} in a model's settings", received=received, expected=expected
    )
