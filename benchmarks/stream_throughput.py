"""Frames a second of the face chain: as a stream, beside one frame after the other.

``HYBRIDGE_DATA=... python -m benchmarks.stream_throughput``: the same frames, decoded beforehand, in turn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import click
import numpy as np

from benchmarks.data import data_file
from benchmarks.face import face_chain_file
from edge_runtime import Chain, load_chain
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, table
from edge_runtime.sources.file_value import read_image
from edge_runtime.tensor_spec import Array

__all__ = ["stream_throughput"]


@click.command()
@click.option("--frames", default=200, show_default=True, type=click.IntRange(min=10), help="Frames a block.")
@click.option("--pairs", default=15, show_default=True, type=click.IntRange(min=3), help="Pairs of blocks.")
@click.option(
    "--workers", default=2, show_default=True, type=click.IntRange(min=1), help="Threads of the stream."
)
@format_option
def stream_throughput(frames: int, pairs: int, workers: int) -> None:
    """Compares a stream with single runs on the face chain."""
    image = read_image(data_file("images/grace_hopper.bmp"))
    with face_chain_file(instances=workers, num_threads=1) as path, load_chain(path) as chain:
        _stream(chain, image, frames, workers)
        single, streamed = [], []
        for pair in range(pairs):
            for side in ("single", "stream") if pair % 2 else ("stream", "single"):
                if side == "single":
                    single.append(_single(chain, image, frames))
                else:
                    streamed.append(_stream(chain, image, frames, workers))
    ratio = float(np.median(np.array(streamed) / np.array(single)))
    result = {
        "cores": os.cpu_count(),
        "workers": workers,
        "single_fps": float(np.median(single)),
        "stream_fps": float(np.median(streamed)),
        "ratio": ratio,
    }
    emit(
        result,
        lambda: table(
            [(str(workers), f"{result['single_fps']:.0f}", f"{result['stream_fps']:.0f}", f"{ratio:.2f}")],
            header=("workers", "one at a time, frames/s", "stream, frames/s", "ratio"),
        ),
    )


def _frames(image: Array, count: int) -> Iterator[dict[str, Array]]:
    for _ in range(count):
        yield {"photo": image}


def _single(chain: Chain, image: Array, count: int) -> float:
    start = time.perf_counter()
    for frame in _frames(image, count):
        chain.run(frame)
    return count / (time.perf_counter() - start)


def _stream(chain: Chain, image: Array, count: int, workers: int) -> float:
    start = time.perf_counter()
    with chain.stream(_frames(image, count), workers=workers) as stream:
        answered = sum(result.prediction is not None for result in stream)
    seconds = time.perf_counter() - start
    assert answered == count  # noqa: S101 - else the figure would be of something else
    return count / seconds


if __name__ == "__main__":
    run_verb(stream_throughput)
