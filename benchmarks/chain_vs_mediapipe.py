"""The face chain beside MediaPipe's face mesh on one photograph.

``HYBRIDGE_DATA=... python -m benchmarks.chain_vs_mediapipe``: each in a process of its own, in turn; MediaPipe in
static mode, so that both detect in every image. Landmarks are compared point by point, in shares of the face's width.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np

from benchmarks.data import data_file
from benchmarks.face import face_chain_file, mediapipe_reader_path
from benchmarks.peers import peer_python
from edge_runtime import load_chain
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, say, table
from edge_runtime.sources.file_value import read_image

__all__ = ["chain_vs_mediapipe"]

_PEER = "mediapipe==0.10.21"
_PHOTOGRAPH = "images/grace_hopper.bmp"


@click.command()
@click.option(
    "--pairs", default=41, show_default=True, type=click.IntRange(min=3), help="Blocks of each, in turn."
)
@click.option("--calls", default=20, show_default=True, type=click.IntRange(min=1), help="Calls a block.")
@format_option
def chain_vs_mediapipe(pairs: int, calls: int) -> None:
    """Finds a face and its landmarks with the chain and with MediaPipe: time and agreement."""
    image = read_image(data_file(_PHOTOGRAPH))
    python = peer_python("mediapipe", [_PEER], say=say)
    ours, theirs = [], []
    with face_chain_file() as path, load_chain(path) as chain, TemporaryDirectory() as work:
        np.save(Path(work) / "image.npy", image)
        peer = subprocess.Popen(
            [str(python), str(mediapipe_reader_path())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            for pair in range(-1, pairs):  # the first is for warming up
                for side in ("chain", "peer") if pair % 2 else ("peer", "chain"):
                    if side == "peer":
                        answer = _ask(peer, f"{calls} {work}/image.npy")
                        theirs.append(float(np.median(answer["seconds"])))
                    else:
                        seconds = []
                        for _ in range(calls):
                            start = time.perf_counter()
                            prediction = chain.run({"photo": image})
                            seconds.append(time.perf_counter() - start)
                        ours.append(float(np.median(seconds)))
        finally:
            assert peer.stdin is not None  # noqa: S101 - as opened
            peer.stdin.close()
            peer.wait(timeout=20)
    expected = np.asarray(answer["landmarks"][0])
    found = prediction.outputs["landmarks"][0][:, :2]
    width = float(np.ptp(expected[:, 0]))
    distances = np.linalg.norm(found - expected, axis=1) / width
    ratio = float(np.median(np.array(theirs[1:]) / np.array(ours[1:])))
    models = [trace for trace in prediction.stages if trace.stage in ("detect", "mesh")]
    result = {
        "photograph": _PHOTOGRAPH,
        "chain_ms": float(np.median(ours[1:])) * 1e3,
        "models_of_the_chain_ms": sum(trace.device_ms for trace in models),
        "mediapipe_ms": float(np.median(theirs[1:])) * 1e3,
        "times_faster": ratio,
        "mean_distance": float(distances.mean()),
        "max_distance": float(distances.max()),
    }
    emit(
        result,
        lambda: table(
            [
                (
                    _PHOTOGRAPH,
                    f"{result['chain_ms']:.2f}",
                    f"{result['mediapipe_ms']:.2f}",
                    f"{ratio:.2f}",
                    f"{result['mean_distance']:.3%}",
                    f"{result['max_distance']:.3%}",
                )
            ],
            header=("photograph", "chain ms", "MediaPipe ms", "faster", "landmarks off by", "at most"),
        ),
    )


def _ask(peer: subprocess.Popen[str], question: str) -> dict[str, list[float]]:
    assert peer.stdin is not None and peer.stdout is not None  # noqa: S101, PT018 - as opened
    peer.stdin.write(question + "\n")
    peer.stdin.flush()
    answer: dict[str, list[float]] = json.loads(peer.stdout.readline())
    return answer


if __name__ == "__main__":
    run_verb(chain_vs_mediapipe)
