"""The file that says who may ask an endpoint what: clients by name, each with the hashes of its tokens."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import tomllib
from collections.abc import Mapping
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from cloud_fallback.endpoint.rate_limit import RateLimit
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Client", "Scope", "TokenFile", "token_digest"]

_log = logging.getLogger(__name__)

# What a client may do: ask models, or load and unload them.
Scope: TypeAlias = Literal["infer", "admin"]

_Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
_Rate = Annotated[float, Meta(gt=0)]
_Count = Annotated[int, Meta(ge=1)]
_Moment = Annotated[datetime, Meta(tz=True)]


class Client(Struct, frozen=True, forbid_unknown_fields=True):
    """One client in the file.

    Attributes:
        token_sha256: SHA-256 of each of its tokens, in hexadecimal: two while one takes the place of the other, and
            none for a client that is known by its certificate alone.
        scopes: What it may do.
        models: Names of the models that it may ask; None for all.
        requests_per_second: See `RateLimit`; what is not given here is as the endpoint is told for all.
        burst: See `RateLimit`.
        bytes_per_second: See `RateLimit`.
        expires: When it is no longer let in, by the calendar.
    """

    token_sha256: tuple[_Digest, ...] = ()
    scopes: tuple[Scope, ...] = ("infer",)
    models: tuple[str, ...] | None = None
    requests_per_second: _Rate | None = None
    burst: _Count | None = None
    bytes_per_second: _Rate | None = None
    expires: _Moment | None = None

    def limit(self, default: RateLimit) -> RateLimit:
        """What it may do in a second."""
        calls, burst = self.requests_per_second, self.burst
        if calls is None:
            calls, burst = default.requests_per_second, burst or default.burst
        return RateLimit(
            calls, burst, default.bytes_per_second if self.bytes_per_second is None else self.bytes_per_second
        )


class _Content(Struct, frozen=True, forbid_unknown_fields=True):
    """The file as TOML has it."""

    clients: dict[Annotated[str, Meta(min_length=1, max_length=128)], Client] = {}


class TokenFile:
    """Clients by name and by token, read again when the file changes; safe from many threads.

    A file that cannot be read, or holds what cannot be, is logged, and who was known before stays so.

    A token is found by its hash. How long that takes says something of the hash alone, and from a hash nobody gets to a
    token of 256 random bits; what people make up is not as safe, so tokens are made by `hybridge fallback token`.

    Args:
        path: A TOML file with a table ``[clients.NAME]`` for each; see `Client`.
        look_s: How often it is looked at, at most: a token that is taken out of it works no longer than that.

    Raises:
        HybridgeError: `credentials-invalid`, which shows nothing of a token or its hash.
    """

    def __init__(self, path: str | PathLike[str], *, look_s: float = 0.5):
        self._path = Path(path)
        self._reading = threading.Lock()
        self._look_s = look_s
        self._look_at = time.monotonic() + look_s
        self._seen: object = self
        # Each is replaced as a whole.
        self._by_name: Mapping[str, Client] = {}
        self._by_token: Mapping[str, tuple[str, Client]] = {}
        self._read()

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def with_token(self, token: str) -> tuple[str, Client] | None:
        """The client that a token is of, and its name."""
        self._refresh()
        return self._by_token.get(token_digest(token))

    def named(self, name: str) -> Client | None:
        """The client of this name."""
        self._refresh()
        return self._by_name.get(name)

    def _refresh(self) -> None:
        # One thread looks, and all others go on with what is known.
        if time.monotonic() < self._look_at or not self._reading.acquire(blocking=False):
            return
        try:
            self._read()
        except HybridgeError as error:
            _log.error("tokens stay as they were: %s", error)
        finally:
            self._look_at = time.monotonic() + self._look_s
            self._reading.release()

    def _read(self) -> None:
        # By content: the time of a file need not change when it does, and may go back.
        content, missing = None, ""
        try:
            content = self._path.read_bytes()
        except OSError as error:
            missing = error.strerror or str(error)
        if content == self._seen:
            return
        is_first, self._seen = self._seen is self, content
        if content is None:
            raise _invalid(self._path, missing)
        self._by_name, self._by_token = _parse(self._path, content)
        if not is_first:
            _log.info("tokens of '%s' were read anew: %d clients", self._path, len(self._by_name))


def token_digest(token: str) -> str:
    """What the file has of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _parse(path: Path, content: bytes) -> tuple[dict[str, Client], dict[str, tuple[str, Client]]]:
    try:
        by_name = msgspec.convert(tomllib.loads(content.decode()), _Content).clients
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise _invalid(path, str(error)) from error
    by_token: dict[str, tuple[str, Client]] = {}
    for name, client in by_name.items():
        for digest in client.token_sha256:
            other, _ = by_token.setdefault(digest, (name, client))
            if other != name:
                raise _invalid(path, f"one token for two clients, '{other}' and '{name}'")
    return by_name, by_token


def _invalid(path: Path, received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.CREDENTIALS_INVALID,
        f"tokens '{path}'",
        received=received,
        expected=f"TOML with a table [clients.NAME] for each client, and keys among "
        f"{', '.join(Client.__struct_fields__)}",
        fix="make entries with: hybridge fallback token NAME",
    )
