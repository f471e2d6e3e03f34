"""Which of a model's signatures is meant."""

from __future__ import annotations

from collections.abc import Sequence

from convert.sources.export import SIGNATURE_KEY
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["choose_signature"]


def choose_signature(available: Sequence[str], wanted: str | None, name: str) -> str:
    """The signature asked for; without a wish the only one, or ``serving_default``.

    Raises:
        HybridgeError: `source-invalid` when there is no such signature, or no saying which.
    """
    if wanted is None and len(available) == 1:
        return available[0]
    chosen = SIGNATURE_KEY if wanted is None else wanted
    if chosen not in available:
        raise HybridgeError(
            ErrorCode.SOURCE_INVALID,
            f"signature of source model '{name}'",
            received="no choice" if wanted is None else f"'{wanted}'",
            expected=f"one of {', '.join(sorted(available))}",
            fix="name it (--signature)",
        )
    return chosen
