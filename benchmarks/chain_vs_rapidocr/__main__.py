"""``HYBRIDGE_DATA=... python -m benchmarks.chain_vs_rapidocr``: the sign chain's reading beside RapidOCR.

Each runs in a process of its own with the same number of threads; they read the same images in turn. What they read is
held against what was drawn.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import click
import numpy as np

from benchmarks.chain_vs_rapidocr import chain_reader, rapidocr_reader_path
from benchmarks.chain_vs_rapidocr.accuracy import ReadLine, Score, score_scene
from benchmarks.data import data_file
from benchmarks.peers import peer_python
from benchmarks.sign.drawing import Scene, photograph_scenes, sign_scenes
from benchmarks.sign.models import cache_folder, prepare, reading_chain
from benchmarks.sign.texts import sign_texts
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, say, table

__all__ = ["chain_vs_rapidocr"]

_PEER = "rapidocr-onnxruntime==1.4.4"
_PEER_NEEDS = (
    "numpy",
    "onnxruntime==1.20.1",
    "opencv-python-headless",
    "pillow",
    "pyclipper",
    "pyyaml",
    "shapely",
    "six",
    "tqdm",
)
# Not the one of a hot dog stand, which has text of its own that nobody wrote down.
_PHOTOGRAPHS = ("cat_720p.jpg", "grace_hopper.bmp", "owl.jpg", "parrot.jpg")


@dataclass(slots=True)
class Outcome:
    """One set of images: seconds an image of each reader in turn, and what each read."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    our_score: Score = field(default_factory=lambda: Score(0, 0, 0, 0))
    their_score: Score = field(default_factory=lambda: Score(0, 0, 0, 0))
    our_letters: Score = field(default_factory=lambda: Score(0, 0, 0, 0))
    their_letters: Score = field(default_factory=lambda: Score(0, 0, 0, 0))

    def figures(self) -> dict[str, Any]:
        """What is reported."""
        ours, theirs = np.array(self.ours), np.array(self.theirs)
        return {
            "images": len(ours),
            "chain_ms": float(np.median(ours)) * 1e3,
            "rapidocr_ms": float(np.median(theirs)) * 1e3,
            "times_faster": float(np.median(theirs / ours)),
            "chain_accuracy": self.our_score.accuracy,
            "rapidocr_accuracy": self.their_score.accuracy,
            "chain_accuracy_without_spaces": self.our_letters.accuracy,
            "rapidocr_accuracy_without_spaces": self.their_letters.accuracy,
            "chain_whole_lines": self.our_score.whole_lines,
            "rapidocr_whole_lines": self.their_score.whole_lines,
            "lines": self.our_score.lines,
            "characters": self.our_score.characters,
        }


@click.command()
@click.option(
    "--images",
    default=60,
    show_default=True,
    type=click.IntRange(min=1),
    help="Small signs; two thirds as many large.",
)
@click.option(
    "--num-threads", default=2, show_default=True, type=click.IntRange(min=1), help="Threads of each."
)
@click.option("--seed", default=0, show_default=True, help="Of the signs that are drawn.")
@format_option
def chain_vs_rapidocr(images: int, num_threads: int, seed: int) -> None:
    """Reads signs with the chain and with RapidOCR: time, memory, characters."""
    photographs = [data_file(f"images/{name}") for name in _PHOTOGRAPHS]
    folder = prepare(cache_folder(), say=say)
    python = peer_python("rapidocr", _PEER_NEEDS, without_dependencies=[_PEER], say=say)
    texts = sign_texts(seed)
    few = max(images * 2 // 3, 1)
    sets: dict[str, Iterable[Scene]] = {
        "signs 640x360": sign_scenes(images, size=(360, 640), seed=seed, phrases=texts),
        "signs 1280x720": sign_scenes(few, size=(720, 1280), seed=seed + 1, phrases=texts),
        "photographs": photograph_scenes(photographs, few, size=(720, 1280), seed=seed + 2, phrases=texts),
    }
    chain = reading_chain(folder, num_threads=num_threads)
    results = {}
    with (
        tempfile.TemporaryDirectory() as work,
        _Reader([sys.executable, "-m", chain_reader.__name__, str(chain)]) as ours,
        _Reader([str(python), str(rapidocr_reader_path()), str(num_threads)]) as theirs,
    ):
        for name, scenes in sets.items():
            say(f"reading {name}")
            results[name] = _compare(scenes, ours, theirs, Path(work) / "image.npy").figures()
        peaks = {"chain_peak_mb": ours.peak_bytes / 1e6, "rapidocr_peak_mb": theirs.peak_bytes / 1e6}
    emit(
        {
            "num_threads": num_threads,
            "sets": results,
            **peaks,
            "memory_ratio": ours.peak_bytes / theirs.peak_bytes,
        },
        lambda: _text(results, peaks),
    )


def _compare(scenes: Iterable[Scene], ours: _Reader, theirs: _Reader, path: Path) -> Outcome:
    outcome = Outcome()
    for number, scene in enumerate(scenes):
        np.save(path, scene.image)
        truth = [ReadLine(line.quad, line.text) for line in scene.lines]
        if not number:  # both meet a size of image for the first time
            ours.read(path)
            theirs.read(path)
        for reader in (ours, theirs) if number % 2 else (theirs, ours):
            seconds, lines = reader.read(path)
            score, letters = score_scene(truth, lines), score_scene(truth, lines, spaces=False)
            if reader is ours:
                outcome.ours.append(seconds)
                outcome.our_score += score
                outcome.our_letters += letters
            else:
                outcome.theirs.append(seconds)
                outcome.their_score += score
                outcome.their_letters += letters
    return outcome


class _Reader:
    """A process that reads the images whose paths it is sent."""

    def __init__(self, command: list[str]):
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.peak_bytes = 0

    def read(self, path: Path) -> tuple[float, list[ReadLine]]:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018 - as opened
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a reader ended: {self._process.args!r}")
        answer = json.loads(line)
        self.peak_bytes = answer["peak_bytes"]
        lines = [ReadLine(np.asarray(each["quad"], np.float32), each["text"]) for each in answer["lines"]]
        return answer["seconds"], lines

    def __enter__(self) -> _Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None  # noqa: S101 - as opened
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _text(results: dict[str, dict[str, Any]], peaks: dict[str, float]) -> str:
    rows = [
        (
            name,
            str(each["images"]),
            f"{each['chain_ms']:.0f}",
            f"{each['rapidocr_ms']:.0f}",
            f"{each['times_faster']:.2f}",
            f"{each['chain_accuracy']:.2%}",
            f"{each['rapidocr_accuracy']:.2%}",
            f"{each['chain_accuracy_without_spaces']:.2%}",
            f"{each['rapidocr_accuracy_without_spaces']:.2%}",
            f"{each['chain_whole_lines']}/{each['lines']}",
            f"{each['rapidocr_whole_lines']}/{each['lines']}",
        )
        for name, each in results.items()
    ]
    header = (
        "images",
        "count",
        "chain ms",
        "RapidOCR ms",
        "faster",
        "chain read",
        "RapidOCR",
        "no spaces",
        "RapidOCR",
        "lines",
        "RapidOCR",
    )
    chain, peer = peaks["chain_peak_mb"], peaks["rapidocr_peak_mb"]
    memory = f"peak memory: {chain:.0f} MB, RapidOCR {peer:.0f} MB, ratio {chain / peer:.2f}"
    return f"{table(rows, header=header)}\n\n{memory}"


if __name__ == "__main__":
    run_verb(chain_vs_rapidocr)
