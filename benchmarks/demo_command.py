"""`hybridge demo`: the whole way on real input, in about a minute; `hybridge demo sign`: signs in Spanish."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.console import emit, format_option, say, table

if TYPE_CHECKING:
    from benchmarks.demo import DemoResult
    from benchmarks.sign.demo import SignResult

__all__ = ["demo"]

_OUT = click.Path(file_okay=False, path_type=Path)


@click.group(invoke_without_command=True)
@click.option(
    "--out",
    type=_OUT,
    default=Path("hybridge-demo"),
    show_default=True,
    help="Folder for the bundles, the report and the figures.",
)
@click.option("--overwrite", is_flag=True, help="Replace files of an earlier demo in the folder.")
@format_option
@click.pass_context
def demo(context: click.Context, out: Path, overwrite: bool) -> None:
    """Trains, converts, runs and falls back: handwritten digits with the cloud up, slow and gone.

    `demo sign` is another: a camera translator of five models.
    """
    if context.invoked_subcommand is not None:
        return
    from benchmarks.demo import run_demo
    from convert import hide_native_logs

    with hide_native_logs():
        result = run_demo(out, overwrite=overwrite, say=say)
    emit(result.figures(), lambda: _text(result))


@demo.command()
@click.option(
    "--out",
    type=_OUT,
    default=Path("hybridge-signs"),
    show_default=True,
    help="Folder for the pictures and the report.",
)
@click.option(
    "--input",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A photograph of signs in English; may be repeated. Without one, signs are drawn.",
)
@click.option(
    "--endpoint/--no-endpoint",
    default=True,
    show_default=True,
    help="Start an endpoint with a larger reader, and Apertium where it is installed, for when the device is unsure.",
)
@click.option("--models", type=_OUT, help="Folder of the models; by default in the user's cache.")
@click.option("--overwrite", is_flag=True, help="Replace files of an earlier demo in the folder.")
@format_option
def sign(
    out: Path,
    input: tuple[Path, ...],  # noqa: A002 - a flag's name is also its key in the environment and in a file
    endpoint: bool,
    models: Path | None,
    overwrite: bool,
) -> None:
    """Translates signs in photographs from English to Spanish, in place, on the device.

    On first use the models are fetched, converted and trained, which takes some minutes.
    """
    from benchmarks.sign.demo import run_sign_demo
    from convert import hide_native_logs

    with hide_native_logs():
        result = run_sign_demo(
            out, images=input, endpoint=endpoint, overwrite=overwrite, models=models, say=say
        )
    emit(result.figures(), lambda: _sign_text(result))


def _sign_text(result: SignResult) -> str:
    rows = [
        (
            picture.name,
            line.text,
            line.translation if line.translated else "(stays)",
            f"{line.confidence:.2f}",
            line.source,
            f"{line.translation_confidence:.2f}",
            line.translator,
            line.font,
        )
        for picture in result.pictures
        for line in picture.lines
    ]
    header = ("image", "read", "translation", "sure", "read by", "sure", "translated by", "font")
    times = ", ".join(f"{picture.name} {picture.elapsed_ms:.0f} ms" for picture in result.pictures)
    return f"{table(rows, header=header)}\n\n{times}\nreport: {result.report}"


def _text(result: DemoResult) -> str:
    from benchmarks.demo.report import summary_rows

    header, rows = summary_rows(result.scenarios)
    sizes = "\n".join(f"{where}: {size:,} bytes" for where, size in result.bundle_bytes.items())
    return (
        f"{table(rows, header=header)}\n\nbundles\n{sizes}\n\n"
        f"report: {result.files['report']}\nlook inside: hybridge inspect {result.files['device']}\n"
        f"took {result.seconds:.0f} s"
    )
