"""`hybridge bench`: measurements a user makes of their own models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edge_runtime.console import emit, format_option, say, table, usage_error

if TYPE_CHECKING:
    from edge_runtime.latency_probe import Probe

__all__ = ["bench"]


@click.group()
def bench() -> None:
    """Measures models on this machine."""


@bench.command()
@click.argument("path", type=click.Path(dir_okay=False))
@click.option(
    "--num-threads",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1,),
    show_default=True,
    help="May be repeated.",
)
@click.option(
    "--runs", type=click.IntRange(min=1), default=200, show_default=True, help="Runs counted, at least."
)
@click.option("--warmup", type=click.IntRange(min=0), default=20, show_default=True, help="Runs not counted.")
@click.option(
    "--min-seconds", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Count for so long."
)
@click.option(
    "--save", type=click.Path(dir_okay=False), help="Write the bundle with these figures in its manifest."
)
@click.option("--overwrite", is_flag=True, help="Let --save replace a file.")
@format_option
def latency(
    path: str,
    num_threads: tuple[int, ...],
    runs: int,
    warmup: int,
    min_seconds: float,
    save: str | None,
    overwrite: bool,
) -> None:
    """Measures load time, first run, median and p95 latency, and memory of a bundle or .tflite."""
    from edge_runtime import Bundle
    from edge_runtime.files import check_writable
    from edge_runtime.latency import machine_name, measure_latency, with_latency

    if save is not None:
        if not path.endswith(".edge"):
            raise usage_error("--save writes figures into a bundle's manifest; a bare .tflite has none")
        check_writable(save, overwrite=overwrite)
    say(f"measuring {path}, a fresh process for each number of threads")
    probes = measure_latency(path, num_threads=num_threads, runs=runs, warmup=warmup, min_seconds=min_seconds)
    if save is not None:
        with_latency(Bundle.open(path), probes).save(save, overwrite=overwrite)
    emit(
        {"path": path, "machine": machine_name(), "probes": probes, "saved": save},
        lambda: f"{machine_name()}, {probes[0].runtime}\n\n{_table(probes)}",
    )


def _table(probes: list[Probe]) -> str:
    rows = [
        (
            str(probe.num_threads),
            f"{probe.model.median_ms:.3f}",
            f"{probe.model.p95_ms:.3f}",
            f"{probe.prediction.median_ms:.3f}",
            f"{probe.load_ms:.1f}",
            f"{probe.first_ms:.2f}",
            f"{probe.memory_bytes / 1e6:.1f}",
            f"{probe.peak_bytes / 1e6:.0f}",
        )
        for probe in probes
    ]
    return table(
        rows,
        header=(
            "threads",
            "median ms",
            "p95 ms",
            "prediction ms",
            "load ms",
            "first ms",
            "memory MB",
            "process MB",
        ),
    )
