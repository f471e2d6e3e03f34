"""The `hybridge` command: its verbs are entry points, each imported only when it is called."""

from __future__ import annotations

import os
import sys
import tomllib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from edge_runtime import __version__
from edge_runtime.console import report_error
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file

__all__ = ["main", "run_verb"]

_GROUP = "hybridge.commands"


class _LazyVerbs(click.Group):
    """A group whose verbs are the entry points of `hybridge.commands`."""

    def _verbs(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=_GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(self._verbs())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        point = self._verbs().get(cmd_name)
        if point is None:
            return None
        try:
            verb: click.Command = point.load()
        except ImportError as error:
            # One verb that cannot be imported must not take the help of all others with it.
            return _unavailable(cmd_name, error)
        return verb


def _unavailable(verb: str, cause: ImportError) -> click.Command:
    def fail() -> None:
        raise HybridgeError(
            ErrorCode.INTERNAL, f"verb '{verb}'", received=str(cause), fix="install hybridge again"
        ) from cause

    return click.Command(verb, callback=fail, short_help=f"(cannot be loaded: {cause})")


def _read_config(context: click.Context, _parameter: click.Parameter, path: str | None) -> None:
    """Takes defaults from a TOML file: a table a verb, a key a flag."""
    if path is None:
        return
    try:
        tables: dict[str, Any] = tomllib.loads(read_file(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HybridgeError(
            ErrorCode.USAGE,
            f"config '{path}'",
            received=str(error),
            expected="TOML with a table for each verb",
        ) from error
    context.default_map = {
        verb: {flag.replace("-", "_"): value for flag, value in flags.items()}
        if isinstance(flags, dict)
        else flags
        for verb, flags in tables.items()
    }


@click.group(
    cls=_LazyVerbs,
    context_settings={
        "auto_envvar_prefix": "HYBRIDGE",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    },
)
@click.version_option(__version__, "--version", prog_name="hybridge", message="%(prog)s %(version)s")
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="TOML file with defaults: a table for each verb, a key for each flag.",
)
def hybridge() -> None:
    """Carries a trained model to a device, and asks the cloud when the device is unsure.

    Every flag can also be set by an environment variable, HYBRIDGE_<VERB>_<FLAG>, or in the file that --config
    names; a flag comes before the environment, the environment before the file.

    Shell completion: eval "$(_HYBRIDGE_COMPLETE=bash_source hybridge)" (or zsh_source, fish_source)
    """


def main() -> None:
    """Runs the command and ends the process with its exit code."""
    run_verb(hybridge, name="hybridge")


def run_verb(verb: click.Command, *, name: str | None = None) -> None:
    """Runs a click command as hybridge does: its errors, formats and exit codes; ends the process.

    Args:
        verb: The command; its arguments are the process's.
        name: What to call it in messages; without it, the name of the program.
    """
    # The interpreter's and TensorFlow's C++ logs are no progress that a person asked for.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        result = verb.main(prog_name=name, standalone_mode=False)
        exit_code = result if isinstance(result, int) else 0
    except HybridgeError as error:
        exit_code = report_error(error)
    except click.exceptions.Exit as exit_:
        exit_code = exit_.exit_code
    except click.ClickException as error:
        exit_code = _report_usage(error)
    except (click.Abort, KeyboardInterrupt):
        click.echo("hybridge: interrupted", err=True)
        exit_code = 130
    except BrokenPipeError:
        # The reader, such as `head`, has gone; nothing is left to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        exit_code = 0
    sys.exit(exit_code)


def _report_usage(error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    where = context.command_path if context else "hybridge"
    return report_error(
        HybridgeError(ErrorCode.USAGE, error.format_message().rstrip("."), fix=f"see '{where} --help'")
    )
