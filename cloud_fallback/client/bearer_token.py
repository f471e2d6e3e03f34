"""A bearer token in a file that something else renews."""

from __future__ import annotations

import os
import re
import threading
from os import PathLike
from pathlib import Path

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["BearerToken"]

# RFC 6750, section 2.1: b64token.
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
# Nothing that is a token is as long, and most peers refuse headers of more than 8 KB.
_MAX_BYTES = 8000


class BearerToken:
    """The token in a file, as the metadata of a call (RFC 6750); safe from many threads.

    The file is looked at for each call and read again when it changed, so that it may be replaced at any time. While
    it cannot be read, or holds no token because it is being written, the last one stays. The token itself is in no
    message and no representation.

    Args:
        path: The file, with the token and nothing else but white space around it.

    Raises:
        HybridgeError: `credentials-invalid` for a file without a token.
    """

    def __init__(self, path: str | PathLike[str]):
        self._path = Path(path)
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] = ()
        self._metadata: tuple[tuple[str, str], ...] = ()
        try:
            self._read()
        except OSError as error:
            raise self._invalid(error.strerror or str(error)) from error
        except ValueError as error:
            raise self._invalid(str(error)) from error

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call carries to be let in."""
        try:
            if self._mark() != self._seen:
                with self._lock:
                    self._read()
        except (OSError, ValueError):
            # It is being replaced: what was there a moment ago is likely still good, and if not the endpoint says so.
            pass
        return self._metadata

    def __repr__(self) -> str:
        return f"BearerToken({str(self._path)!r})"

    def _mark(self) -> tuple[int, ...]:
        status = os.stat(self._path)
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> None:
        # The mark is older than what is read: a change in between is seen the next time.
        mark = self._mark()
        with self._path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1).strip()
        if len(content) > _MAX_BYTES or not _TOKEN.fullmatch(content):
            raise ValueError(f"{len(content)} bytes that are no token" if content else "nothing")
        self._metadata = (("authorization", f"Bearer {content.decode()}"),)
        self._seen = mark

    def _invalid(self, received: str) -> HybridgeError:
        return HybridgeError(
            ErrorCode.CREDENTIALS_INVALID,
            f"token file '{self._path}'",
            received=received,
            expected="one bearer token: letters, digits and any of ._~+/-=",
        )
