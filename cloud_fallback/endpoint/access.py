"""Who may ask an endpoint what."""

from __future__ import annotations

from typing import Any

__all__ = ["client_of"]


def client_of(context: Any) -> str:  # noqa: ARG001
    """The name of the client that a call was admitted for; empty for anybody."""
    return ""
