"""Parameters of requests, as Triton has them: the one that is honoured, and those that must not be ignored."""

from __future__ import annotations

from collections.abc import Iterable

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["refuse_extensions", "timeout_s"]

# They change what a tensor means; ignoring one would give a wrong answer for a right one.
_UNSUPPORTED = {"classification", "shared_memory_region"}


def refuse_extensions(what: str, parameters: Iterable[str]) -> None:
    """Whether a tensor may have these parameters.

    Args:
        what: The tensor, for the error.
        parameters: Their names.

    Raises:
        HybridgeError: `input-invalid`.
    """
    if found := _UNSUPPORTED.intersection(parameters):
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            f"parameters of {what}",
            received=", ".join(sorted(found)),
            expected="tensors within the message, and outputs as they are",
        )


def timeout_s(value: object) -> float | None:
    """The parameter ``timeout`` of a request, which is in microseconds; None for 0, which is none.

    Raises:
        HybridgeError: `input-invalid` for what is no such number.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            "parameter timeout of request",
            received=str(value)[:32],
            expected="microseconds, 0 or more",
        )
    return value / 1e6 if value else None
