"""`hybridge demo`: the whole way on real input, in about a minute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.console import emit, format_option, say, table

if TYPE_CHECKING:
    from benchmarks.demo import DemoResult

__all__ = ["demo"]


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("hybridge-demo"),
    show_default=True,
    help="Folder for the bundles, the report and the figures.",
)
@click.option("--overwrite", is_flag=True, help="Replace files of an earlier demo in the folder.")
@format_option
def demo(out: Path, overwrite: bool) -> None:
    """Trains, converts, runs and falls back: handwritten digits with the cloud up, slow and gone."""
    from benchmarks.demo import run_demo
    from convert import hide_native_logs

    with hide_native_logs():
        result = run_demo(out, overwrite=overwrite, say=say)
    emit(result.figures(), lambda: _text(result))


def _text(result: DemoResult) -> str:
    from benchmarks.demo.report import summary_rows

    header, rows = summary_rows(result.scenarios)
    sizes = "\n".join(f"{where}: {size:,} bytes" for where, size in result.bundle_bytes.items())
    return (
        f"{table(rows, header=header)}\n\nbundles\n{sizes}\n\n"
        f"report: {result.files['report']}\nlook inside: hybridge inspect {result.files['device']}\n"
        f"took {result.seconds:.0f} s"
    )
