"""Which version answers a request that does not name one."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["TrafficSplit"]


class TrafficSplit:
    """Shares requests among versions by weight; requests of one key all go to the same.

    The newest versions have the lowest places of the unit interval. As one's share grows, those keys stay that it had
    already: a device that was answered by the new version at 5% is so at 20%.

    Args:
        model: The model's name; keys fall differently for each model.
        weights: Weight of each version.
        versions: Versions that are there, newest first.

    Raises:
        HybridgeError: `usage` for weights of versions that are not there, or that are all zero.
    """

    def __init__(self, model: str, weights: Mapping[str, float], versions: Sequence[str]):
        if unknown := [version for version in weights if version not in versions]:
            raise _unusable(
                model, f"weights of versions {', '.join(unknown)}", f"versions {', '.join(versions)}"
            )
        total = sum(weights.values())
        if total <= 0:
            raise _unusable(model, "weights that are all zero", "one above zero")
        self._model = model
        self._places: list[tuple[float, str]] = []
        upper = 0.0
        for version in versions:
            if weights.get(version, 0) > 0:
                upper += weights[version] / total
                self._places.append((upper, version))

    def choose(self, key: str = "") -> str:
        """The version for a request of this key; one without a key falls anywhere."""
        place = _place(f"{self._model}\0{key}") if key else random.random()  # noqa: S311 - no secret
        for upper, version in self._places:
            if place < upper:
                return version
        # The last weights may add up to a little less than one.
        return self._places[-1][1]


def _place(key: str) -> float:
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def _unusable(model: str, received: str, expected: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.USAGE, f"traffic split of model '{model}'", received=received, expected=expected
    )
