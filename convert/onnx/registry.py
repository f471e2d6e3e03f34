"""The operators that can be imported, by domain, name and the version of the operator set that changed them last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

__all__ = ["Handler", "find", "folds", "operator", "registered"]

# Takes the node and its inputs in order (None for one that is left out); gives a `Value`, a tensor in ONNX's order with
# the type of the first input, or a list of these, one for each output.
Handler: TypeAlias = Callable[..., Any]

_Function = TypeVar("_Function", bound=Handler)

_HANDLERS: dict[tuple[str, str], dict[int, Handler]] = {}
_KEPT: set[tuple[str, str]] = set()


def operator(
    *names: str, since: int = 1, domain: str = "", folds: bool = True
) -> Callable[[_Function], _Function]:
    """Registers a function as the importer of operators, from a version of their operator set on.

    Args:
        names: Operators that it imports.
        since: First version that it is right for; a later registration of the same name takes over from its own.
        domain: Of the operator set; empty for ONNX's own.
        folds: Whether it is computed at conversion when all its inputs are constants.
    """

    def register(handler: _Function) -> _Function:
        for name in names:
            versions = _HANDLERS.setdefault((domain, name), {})
            if since in versions:
                raise ValueError(f"{domain}:{name} since {since} is registered twice")
            versions[since] = handler
            if not folds:
                _KEPT.add((domain, name))
        return handler

    return register


def find(domain: str, name: str, version: int) -> Handler | None:
    """What imports an operator of that version of its operator set; None where nothing does."""
    versions = _HANDLERS.get((domain, name), {})
    since = max((each for each in versions if each <= version), default=None)
    return None if since is None else versions[since]


def folds(domain: str, name: str) -> bool:
    """Whether the operator is computed at conversion when all its inputs are constants."""
    return (domain, name) not in _KEPT


def registered() -> dict[tuple[str, str], tuple[int, ...]]:
    """All that can be imported: versions by domain and name."""
    return {key: tuple(sorted(versions)) for key, versions in sorted(_HANDLERS.items())}
