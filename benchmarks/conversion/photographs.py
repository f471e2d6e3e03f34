"""Natural images for models of any size: squares cut from the photographs in the benchmark data."""

from __future__ import annotations

import numpy as np

from benchmarks.data import data_file
from edge_runtime.tensor_spec import Array

__all__ = ["Crops", "photographs"]


class Crops:
    """Squares cut from photographs at random places and sizes, values 0 to 255.

    Args:
        pictures: Arrays of shape (height, width, 3), uint8.
        size: Height and width of a square.
        smallest: Of the side that is cut out, in pixels.
        seed: Of places and sizes.
    """

    def __init__(self, pictures: list[Array], size: int, *, smallest: int = 64, seed: int = 0):
        self._pictures, self._size, self._smallest = pictures, size, smallest
        self._random = np.random.default_rng(seed)

    def take(self, count: int) -> Array:
        """The next squares, shape (count, size, size, 3), float32; photographs take turns."""
        import cv2

        cut = []
        for index in range(count):
            picture = self._pictures[index % len(self._pictures)]
            side = int(self._random.integers(self._smallest, min(picture.shape[:2])))
            top, left = (int(self._random.integers(0, size - side + 1)) for size in picture.shape[:2])
            square = picture[top : top + side, left : left + side]
            cut.append(cv2.resize(square, (self._size, self._size), interpolation=cv2.INTER_AREA))
        return np.stack(cut).astype(np.float32)


def photographs() -> dict[str, Array]:
    """All of them by the file's name, RGB."""
    import cv2

    paths = [path for path in sorted(data_file("images").glob("*.*")) if path.suffix in (".jpg", ".bmp")]
    return {path.name: cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths}
