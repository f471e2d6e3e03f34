"""Images as OpenCV's reader of videos and cameras gives them."""

from __future__ import annotations

import numpy as np

from edge_runtime.operators.opencv import opencv
from edge_runtime.tensor_spec import Array

__all__ = ["rgb"]


def rgb(image: Array) -> Array:
    """An image with blue first, or a grey one, as RGB of shape (height, width, 3), an array of its own."""
    cv2 = opencv()
    grey = image.ndim == 2 or image.shape[2] == 1
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if grey else cv2.COLOR_BGR2RGB))
