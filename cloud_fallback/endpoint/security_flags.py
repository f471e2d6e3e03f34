"""Flags of `hybridge serve` about who may ask, and over what connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_runtime.console import usage_error

if TYPE_CHECKING:
    from cloud_fallback.endpoint.access import Access
    from cloud_fallback.endpoint.server_tls import ServerTls

__all__ = ["Security", "security_flags"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FLAGS = (
    click.option(
        "--tls-cert",
        metavar="PEM",
        help="The server's certificate; read again when it changes, as the next two are.",
    ),
    click.option("--tls-key", metavar="PEM", help="Its private key."),
    click.option(
        "--client-ca",
        metavar="PEM",
        help="Authorities of clients' certificates, which they must then have (mutual TLS).",
    ),
    click.option(
        "--tokens",
        metavar="TOML",
        help="Clients, with the hashes of their tokens and what they may do; read again when it changes.",
    ),
    click.option(
        "--tokens-in-clear",
        is_flag=True,
        help="Take tokens without TLS from other machines, because something before this ends TLS.",
    ),
    click.option(
        "--requests-per-second",
        type=click.FloatRange(min=0, min_open=True),
        help="Calls of each client, or without --tokens of each address; the file of tokens may say otherwise.",
    ),
    click.option(
        "--bytes-per-second",
        type=click.FloatRange(min=0, min_open=True),
        help="Bytes that each of them may send.",
    ),
)


def security_flags(command: _Command) -> _Command:
    """Adds the flags to a click command, which hands them to `Security.of`."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


@dataclass(frozen=True, slots=True)
class Security:
    """What the flags come to; the arguments of `Endpoint` by these names."""

    access: Access
    tls: ServerTls | None
    tokens_in_clear: bool

    @classmethod
    def of(
        cls,
        *,
        tls_cert: str | None,
        tls_key: str | None,
        client_ca: str | None,
        tokens: str | None,
        tokens_in_clear: bool,
        requests_per_second: float | None,
        bytes_per_second: float | None,
    ) -> Security:
        """Reads the files that the flags name.

        Raises:
            HybridgeError: `usage` for flags that do not go together; `credentials-invalid` for what a file holds.
        """
        from cloud_fallback.endpoint.access import Access
        from cloud_fallback.endpoint.rate_limit import RateLimit
        from cloud_fallback.endpoint.server_tls import ServerTls
        from cloud_fallback.endpoint.token_file import TokenFile

        if (tls_cert is None) != (tls_key is None):
            raise usage_error("--tls-cert and --tls-key go together")
        if client_ca is not None and tls_cert is None:
            raise usage_error("--client-ca needs --tls-cert and --tls-key")
        access = Access(
            None if tokens is None else TokenFile(tokens),
            limit=RateLimit(requests_per_second, None, bytes_per_second),
        )
        tls = None if tls_cert is None or tls_key is None else ServerTls(tls_cert, tls_key, client_ca)
        return cls(access, tls, tokens_in_clear)
