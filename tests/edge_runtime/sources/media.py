"""Real pictures and videos for tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edge_runtime.tensor_spec import Array


def jpeg(image: Array) -> bytes:
    return bytes(cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


def photograph(height: int = 48, width: int = 64, seed: int = 0) -> Array:
    """Something with edges and noise, uint8 RGB."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 2))


def write_video(
    path: Path, *, frames: int = 30, fps: float = 25.0, size: tuple[int, int] = (48, 64), codec: str = "MJPG"
) -> None:
    """A video whose frame i is (8 * i, 40, 200) all over, RGB."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (size[1], size[0]))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((*size, 3), (200, 40, 8 * index % 256), np.uint8))
    writer.release()
