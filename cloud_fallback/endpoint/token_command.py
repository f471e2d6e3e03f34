"""`hybridge fallback token`: makes a client's token, and the entry that the endpoint knows it by."""

from __future__ import annotations

import json
import os
import secrets
from datetime import datetime
from pathlib import Path

import click

from edge_runtime.console import emit, format_option, usage_error
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["token"]

# Random bits that nobody guesses, in characters that a header may have.
_TOKEN_BYTES = 32


@click.command()
@click.argument("name")
@click.option(
    "--out", required=True, metavar="FILE", help="Where to write the token; a new file, for its owner only."
)
@click.option(
    "--scope",
    type=click.Choice(["infer", "admin"]),
    multiple=True,
    default=["infer"],
    show_default=True,
    help="What the client may do; may be repeated.",
)
@click.option("--model", multiple=True, help="A model that it may ask; may be repeated.  [default: all]")
@click.option("--expires", metavar="TIME", help="When it is no longer let in, such as 2030-01-01T00:00:00Z.")
@format_option
def token(name: str, out: str, scope: tuple[str, ...], model: tuple[str, ...], expires: str | None) -> None:
    """Makes a token for the client NAME.

    The token goes into a file, for the client's token_file. Standard output has the entry for the endpoint's
    --tokens, which holds its hash only: hybridge fallback token gate-17 --out gate-17.token >> tokens.toml
    """
    from cloud_fallback.endpoint.token_file import token_digest
    from edge_runtime.files import write_file

    end = None if expires is None else _moment(expires).isoformat()
    made = secrets.token_urlsafe(_TOKEN_BYTES)
    if Path(out).exists():
        raise HybridgeError(
            ErrorCode.FILE_EXISTS,
            f"token '{out}'",
            received="a file that exists",
            expected="a new name",
            fix="choose another name; a token that is in use is never replaced",
        )
    # For its owner only, from the first moment.
    os.umask(0o077)
    write_file(out, f"{made}\n".encode())
    entry: dict[str, list[str] | str] = {
        "token_sha256": [token_digest(made)],
        "scopes": list(scope),
        **({"models": list(model)} if model else {}),
        **({"expires": end} if end is not None else {}),
    }
    emit({"name": name, "token_file": out, **entry}, lambda: _table(name, entry))


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise usage_error(f"--expires '{text}' is no time with a time zone, such as 2030-01-01T00:00:00Z")
    return moment


def _table(name: str, entry: dict[str, list[str] | str]) -> str:
    """The entry in TOML, whose strings are written as JSON's are."""
    lines = [f"[clients.{json.dumps(name, ensure_ascii=False)}]"]
    for key, value in entry.items():
        lines.append(f"{key} = {value if key == 'expires' else json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines)
