"""Flags of commands that ask a fallback by its URL: whom they trust, and by what they are known there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["access_flags", "access_settings"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FLAGS = (
    click.option(
        "--tls-ca",
        metavar="PEM",
        help="Authorities to trust, in place of the public ones; the URL begins with grpcs://.",
    ),
    click.option("--tls-cert", metavar="PEM", help="The certificate to be known by (mutual TLS)."),
    click.option("--tls-key", metavar="PEM", help="Its private key."),
    click.option(
        "--tls-server-name",
        metavar="NAME",
        help="The name in the endpoint's certificate, where that is not the one in the URL.",
    ),
    click.option("--token-file", metavar="FILE", help="A file with the bearer token to be let in by."),
    click.option("--token-in-clear", is_flag=True, help="Send it without TLS, to this machine only."),
)


def access_flags(command: _Command) -> _Command:
    """Adds the flags to a click command, which hands them to `access_settings`."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def access_settings(
    *,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_server_name: str | None,
    token_file: str | None,
    token_in_clear: bool,
) -> dict[str, Any]:
    """What the flags say, by the keys that a chain's file has for it; nothing where none was given."""
    tls = {"ca": tls_ca, "cert": tls_cert, "key": tls_key, "server_name": tls_server_name}
    settings = {
        "tls": {key: value for key, value in tls.items() if value is not None},
        "token_file": token_file,
        "token_in_clear": token_in_clear,
    }
    return {key: value for key, value in settings.items() if value}
