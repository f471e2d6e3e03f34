"""What every verb of the command shares: the output format, and how data, progress and errors reach a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import click
import msgspec

from edge_runtime.errors import ErrorCode, HybridgeError, Kind

__all__ = [
    "EXIT_CODES",
    "emit",
    "emit_line",
    "format_option",
    "is_json",
    "report_error",
    "say",
    "table",
    "usage_error",
]

# 2 is also what click gives a usage error; 130 is an interrupt.
EXIT_CODES = {
    Kind.INTERNAL: 1,
    Kind.INVALID: 2,
    Kind.NOT_FOUND: 3,
    Kind.EXISTS: 4,
    Kind.DAMAGED: 5,
    Kind.UNAVAILABLE: 6,
    Kind.DEADLINE: 7,
    Kind.EXHAUSTED: 8,
    Kind.MISSING_DEPENDENCY: 9,
    Kind.CHECK_FAILED: 10,
    Kind.UNAUTHENTICATED: 11,
    Kind.FORBIDDEN: 12,
}

_output_format: ContextVar[str] = ContextVar("output_format", default="text")


def _remember(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    # Errors are reported outside the verb, in the format that the verb was given.
    _output_format.set(value)
    return value


format_option = click.option(
    "--format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    is_eager=True,
    expose_value=False,
    callback=_remember,
    help="How results are written to standard output.",
)


def emit(data: dict[str, Any], text: Callable[[], str]) -> None:
    """Writes a verb's result to standard output.

    Args:
        data: The result, for ``--format json``; anything msgspec can encode.
        text: Makes the form for people; called only when it is wanted.
    """
    if is_json():
        encoded = msgspec.json.encode(data, enc_hook=_encode)
        click.echo(msgspec.json.format(encoded, indent=2).decode())
    else:
        click.echo(text())


def is_json() -> bool:
    """Whether the verb was asked for JSON."""
    return _output_format.get() == "json"


def emit_line(text: str) -> None:
    """Writes one of many results, for people, to standard output as it comes."""
    click.echo(text)


def say(message: str) -> None:
    """Writes a line of progress to standard error."""
    click.echo(message, err=True)


def table(rows: Sequence[tuple[str, ...]], *, header: tuple[str, ...]) -> str:
    """Rows as aligned columns, all but the first aligned to the right."""
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def report_error(error: HybridgeError) -> int:
    """Writes an error for the person and, with ``--format json``, for the program; returns the exit code."""
    exit_code = EXIT_CODES[error.code.kind]
    # Names of files need not be text; what is not is shown as it is escaped.
    message = error.message.encode(errors="backslashreplace").decode()
    click.echo(f"hybridge: {message} [{error.code}]", err=True)
    if _output_format.get() == "json":
        body = {"error": {"code": error.code, "message": message, "exit_code": exit_code}}
        click.echo(msgspec.json.format(msgspec.json.encode(body), indent=2).decode())
    return exit_code


def usage_error(message: str) -> HybridgeError:
    """The error for flags that do not go together."""
    return HybridgeError(ErrorCode.USAGE, message, fix="see --help")


def _encode(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy arrays and scalars
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")
