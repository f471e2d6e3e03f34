"""Keeping what native libraries write to the process's standard error away from a person's terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["hide_native_logs"]

_STANDARD_ERROR = 2


@contextmanager
def hide_native_logs() -> Iterator[None]:
    """Hides what C++ code writes to standard error; what Python writes to `sys.stderr` still arrives.

    TensorFlow logs from C++ before any of its log levels apply, so the descriptor itself is turned away. This
    changes the whole process: it is for commands, not for libraries. Setting ``TF_CPP_MIN_LOG_LEVEL`` below 3 keeps
    the logs.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") < "3":
        yield
        return
    python_stream = sys.stderr
    python_stream.flush()
    kept = os.dup(_STANDARD_ERROR)
    own = _writes_to_standard_error(python_stream)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), _STANDARD_ERROR)
        if own:
            sys.stderr = os.fdopen(
                os.dup(kept), "w", buffering=1, encoding=python_stream.encoding, errors="replace"
            )
        yield
    finally:
        if own:
            sys.stderr.close()
            sys.stderr = python_stream
        os.dup2(kept, _STANDARD_ERROR)
        os.close(kept)


def _writes_to_standard_error(stream: object) -> bool:
    try:
        return bool(stream.fileno() == _STANDARD_ERROR)  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
