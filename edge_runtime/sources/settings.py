"""Settings that come by name, given to what has them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["make"]

Made = TypeVar("Made")


def make(what: str, kind: Callable[..., Made], *arguments: Any, settings: Mapping[str, Any]) -> Made:
    """Calls `kind` with keyword-only settings; one that is None is left at its default.

    Args:
        what: What is made, for the error.
        kind: A class or function.
        *arguments: Its positional arguments.
        settings: Its settings by name.

    Raises:
        HybridgeError: `input-invalid` for a setting that it does not have, with those it has.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    known = [
        parameter.name
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    if unknown := sorted(given.keys() - set(known)):
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            f"settings of {what}",
            received=", ".join(unknown),
            expected=f"among {', '.join(known)}",
        )
    return kind(*arguments, **given)
