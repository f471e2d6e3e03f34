"""``HYBRIDGE_DATA=... python -m benchmarks.serving_vs_peers``: our endpoint beside MLServer and Triton.

All run on this machine, in processes of their own, and answer the same requests in turn; their packages are installed
on first use. It ends with an exit code other than 0 when a bar is missed.
"""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path

import click
import msgspec

from benchmarks.data import data_file
from benchmarks.serving_vs_peers.comparison import compare
from benchmarks.serving_vs_peers.contenders import Endpoint, peers
from benchmarks.serving_vs_peers.images import measure_images
from benchmarks.serving_vs_peers.load import Job, LoadGenerator
from benchmarks.serving_vs_peers.report import Report
from edge_runtime.command import run_verb
from edge_runtime.console import EXIT_CODES, emit, format_option, say
from edge_runtime.errors import Kind
from edge_runtime.latency import machine_name

__all__ = ["serving_vs_peers"]

_SIZES = (4096, 602_112)
_IMAGES = "imagenet_ladder/mobilenet_v2_1.0_224_quant.tflite"


@click.command()
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(min=1), help="Rounds of each.")
@click.option("--seconds", default=3.0, show_default=True, type=click.FloatRange(min=0.1), help="Of each.")
@click.option("--in-flight", default=32, show_default=True, type=click.IntRange(min=1), help="Requests.")
@click.option(
    "--connections", default=32, show_default=True, type=click.IntRange(min=1), help="For those requests."
)
@click.option("--only", multiple=True, type=click.Choice(["plus-one", "images"]), help="Leave out the rest.")
@click.option(
    "--serve", default="", help="More flags of 'hybridge serve' for the trivial model, as one string."
)
@click.option(
    "--serve-images", default="--max-batch-size 4", show_default=True, help="Likewise for the images."
)
@click.option(
    "--overload", default=2.0, show_default=True, help="Requests, as a multiple of what it answers."
)
@click.option("--deadline-ms", default=250.0, show_default=True, help="Of each of those.")
@click.option("--docs", type=click.Path(path_type=Path), help="Page to write.")
@format_option
def serving_vs_peers(
    rounds: int,
    seconds: float,
    in_flight: int,
    connections: int,
    only: tuple[str, ...],
    serve: str,
    serve_images: str,
    overload: float,
    deadline_ms: float,
    docs: Path | None,
) -> None:
    """Compares serving, and measures overload."""
    image_model = data_file(_IMAGES) if not only or "images" in only else None
    job = Job(
        address="",
        request="",
        expected="",
        session=0,
        connections=min(connections, in_flight),
        in_flight=in_flight,
        warmup_s=min(1.0, seconds / 2),
        seconds=seconds,
    )
    with tempfile.TemporaryDirectory() as work, LoadGenerator() as generator:
        folder = Path(work)
        sizes = []
        if not only or "plus-one" in only:
            ours = Endpoint.contender(shlex.split(serve))
            sizes = compare(generator, ours, peers(), folder=folder, job=job, sizes=_SIZES, rounds=rounds)
        images = None
        if image_model is not None:
            images = measure_images(
                generator,
                image_model,
                folder,
                job=job,
                rounds=rounds,
                arguments=shlex.split(serve_images),
                overload=overload,
                deadline_s=deadline_ms / 1e3,
            )
    report = Report(
        machine=machine_name(),
        in_flight=in_flight,
        connections=job.connections,
        num_rounds=rounds,
        seconds=seconds,
        sizes=sizes,
        images=images,
    )
    if docs is not None:
        docs.write_text(report.page())
        say(f"written: {docs}")
    bars = [{**msgspec.to_builtins(bar), "is_reached": bar.is_reached} for bar in report.bars]
    emit({**msgspec.to_builtins(report), "bars": bars}, report.text)
    if not all(bar.is_reached for bar in report.bars):
        click.get_current_context().exit(EXIT_CODES[Kind.CHECK_FAILED])


if __name__ == "__main__":
    run_verb(serving_vs_peers)
