"""The face chain: a detector, a crop for each face, 468 landmarks on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.data import data_file

__all__ = ["face_chain_file", "mediapipe_reader_path"]

_MODELS = ("face_detection_short_range.tflite", "face_landmark.tflite")


@contextmanager
def face_chain_file(*, instances: int = 1, num_threads: int = 2) -> Iterator[Path]:
    """The chain's file, beside copies of the models that it names, for as long as the block runs.

    Args:
        instances: Of each model: frames of a stream that may be in it at once.
        num_threads: That one invocation may use.

    Raises:
        HybridgeError: `file-not-found` without the benchmark data.
    """
    with TemporaryDirectory() as work:
        folder = Path(work)
        for name in _MODELS:
            shutil.copyfile(data_file(f"face/{name}"), folder / name)
        text = Path(__file__).with_name("face.toml").read_text(encoding="utf-8")
        text = text.replace("num_threads = 2", f"num_threads = {num_threads}")
        text = text.replace('.tflite"\n', f'.tflite"\ninstances = {instances}\n')
        (folder / "face.toml").write_text(text, encoding="utf-8")
        yield folder / "face.toml"


def mediapipe_reader_path() -> Path:
    """The script that the peer's own Python runs; it cannot import this package."""
    return Path(__file__).with_name("mediapipe_reader.py")
