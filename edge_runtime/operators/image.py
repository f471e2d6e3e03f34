"""Operators on whole images of shape (height, width, channels); all but those that rotate need the `vision` extra.

Where one changes an image's geometry it also gives a `transform`: the float32 matrix of shape (3, 3) that takes a point
(x, y, 1) of the result to the point of the original. Points are counted from the corner of the first pixel, so that an
image of width w reaches from 0 to w.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.operators.opencv import interpolation_flag, opencv
from edge_runtime.operators.registry import operator
from edge_runtime.tensor_spec import Array

__all__ = [
    "convert_color",
    "letterbox",
    "pad_to_width",
    "resize",
    "resize_to_stride",
    "rotate",
    "rotate_by_class",
]

# Colour spaces and how many channels they have.
_COLORS = {"rgb": 3, "bgr": 3, "gray": 1, "rgba": 4, "bgra": 4, "hsv": 3, "lab": 3}
# OpenCV 4's warps take no longer side; where so much shrinks, half a pixel is nothing.
_LONGEST_WARPED = 2**15 - 1
# An image longer than this many times its width is not enlarged any more.
_LONGEST_ASPECT = 8


@operator("resize", takes={"image": "T[h, w, ...]"}, gives={"image": "T[height, width, ...]"})
def resize(image: Array, *, height: int, width: int, interpolation: str = "linear") -> Array:
    """The image at another size; `interpolation` is nearest, linear, area (best when shrinking) or cubic."""
    flag = interpolation_flag(interpolation)
    if image.shape[:2] == (height, width):
        return image
    resized: Array = opencv().resize(_filled(image), (width, height), interpolation=flag)
    # OpenCV drops a last axis of size one.
    return resized.reshape(height, width, *image.shape[2:])


@operator(
    "letterbox",
    takes={"image": "T[h, w, c]"},
    gives={"image": "T[height, width, c]", "transform": "float32[3, 3]"},
)
def letterbox(
    image: Array,
    *,
    height: int,
    width: int,
    fill: float = 114,
    interpolation: str = "linear",
    half_pixel_centers: bool = True,
) -> dict[str, Array]:
    """The image as large as it fits into a size, in its middle, with its aspect kept and `fill` around it.

    Args:
        image: The image.
        height: Of the result.
        width: Of the result.
        fill: Value of the pixels around it.
        interpolation: As for `resize`.
        half_pixel_centers: Whether a pixel is taken from where its middle lies. Models of MediaPipe are run with pixels
            taken from where their top left corners lie (false); a small detector tells the difference.

    Returns:
        The `image`, and the `transform` that takes a point of it to the original.
    """
    rows, columns = _filled(image).shape[:2]
    scale = min(height / rows, width / columns)
    if not half_pixel_centers and max(rows, columns) < _LONGEST_WARPED:
        step = 1 / scale
        transform = _transform(step, step, (columns - width * step) / 2, (rows - height * step) / 2)
        boxed = _sampled(image, transform[:2], (height, width), fill, interpolation)
        return {"image": boxed, "transform": transform}
    inner = min(height, max(1, round(rows * scale))), min(width, max(1, round(columns * scale)))
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    resized = resize(image, height=inner[0], width=inner[1], interpolation=interpolation)
    if inner == (height, width):
        boxed = resized
    else:
        boxed = np.empty((height, width, *image.shape[2:]), image.dtype)
        boxed[:top], boxed[top + inner[0] :] = fill, fill
        middle = boxed[top : top + inner[0]]
        middle[:, :left], middle[:, left + inner[1] :] = fill, fill
        middle[:, left : left + inner[1]] = resized
    down, across = rows / inner[0], columns / inner[1]
    return {"image": boxed, "transform": _transform(across, down, -left * across, -top * down)}


@operator(
    "resize-to-stride",
    takes={"image": "T[h, w, c]"},
    gives={"image": "T[rows, columns, c]", "transform": "float32[3, 3]"},
)
def resize_to_stride(
    image: Array,
    *,
    stride: int = 32,
    min_side: int = 0,
    max_side: int = 0,
    interpolation: str = "linear",
) -> dict[str, Array]:
    """The image at a size that a fully convolutional model takes: both sides multiples of its stride.

    The image is enlarged until its shorter side has `min_side`, shrunk until its longer one has `max_side`, then each
    side goes to the nearest multiple, so the aspect may change a little. PP-OCR's text detector takes 32 and a
    `min_side` of 736, or a `max_side` of 960. A strip is enlarged at most until its longer side has 8 `min_side`.

    Args:
        image: The image.
        stride: Of the model; no side becomes smaller than this.
        min_side: Least length of the shorter side; 0 for any.
        max_side: Greatest length of the longer side, which goes before `min_side`; 0 for any.
        interpolation: As for `resize`.

    Returns:
        The `image`, and the `transform` that takes a point of it to the original.
    """
    rows, columns = _filled(image).shape[:2]
    scale = max(1.0, min(min_side / min(rows, columns), _LONGEST_ASPECT * min_side / max(rows, columns)))
    if max_side:
        scale = min(scale, max_side / max(rows, columns))
    height, width = (max(stride, round(int(side * scale) / stride) * stride) for side in (rows, columns))
    resized = resize(image, height=height, width=width, interpolation=interpolation)
    return {"image": resized, "transform": _transform(columns / width, rows / height, 0.0, 0.0)}


@operator("pad-to-width", takes={"image": "T[h, w, c]"}, gives={"image": "T[h, padded, c]"})
def pad_to_width(image: Array, *, width: int, step: int = 0, fill: float = 0) -> Array:
    """The image at its left, with `fill` to its right until it has a width that a text reader takes.

    An image that is wider is squeezed to `width` when `step` is 0. Otherwise it gets the next of the widths
    `width`, `width` + `step`, `width` + 2 `step` ... that holds it, so that a model of dynamic width meets few of them.
    """
    have = _filled(image).shape[1]
    if have > width and not step:
        squeezed: Array = resize(image, height=image.shape[0], width=width)
        return squeezed
    wanted = width + -(-max(have - width, 0) // step) * step if step else width
    if have == wanted:
        return image
    padded = np.empty((image.shape[0], wanted, *image.shape[2:]), image.dtype)
    padded[:, :have] = image
    padded[:, have:] = fill
    return padded


@operator("rotate", takes={"image": "T[h, w, ...]"}, gives={"image": "T[rows, columns, ...]"})
def rotate(image: Array, *, degrees: int = 180) -> Array:
    """The image turned clockwise by 0, 90, 180 or 270 degrees."""
    if degrees % 90:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID, "degrees", received=str(degrees), expected="a multiple of 90"
        )
    return np.ascontiguousarray(np.rot90(image, -degrees // 90 % 4))


@operator(
    "rotate-by-class",
    takes={"images": "T[h, w, c]*", "probabilities": "float32[n, classes]"},
    gives={"images": "T[rows, columns, c]*"},
)
def rotate_by_class(
    images: Sequence[Array],
    probabilities: Array,
    *,
    degrees: Sequence[int] = (0, 180),
    threshold: float = 0.9,
) -> list[Array]:
    """Each image turned clockwise by the angle of its class, where a classifier of directions is sure of it.

    Args:
        images: One for each row of probabilities.
        probabilities: Of each class.
        degrees: The angle for each class: (0, 180) turns what PP-OCR's direction classifier finds upside down.
        threshold: A class that is not more probable than this turns nothing; nor does NaN.

    Raises:
        HybridgeError: `input-shape` when there are not as many images as rows, or as many angles as classes.
    """
    if probabilities.shape != (len(images), len(degrees)):
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "probabilities",
            received=f"shape {probabilities.shape}",
            expected=f"({len(images)}, {len(degrees)}): a row for each image, a column for each of 'degrees'",
        )
    turned = []
    for image, row in zip(images, np.nan_to_num(probabilities, nan=-1.0), strict=True):
        best = int(row.argmax())
        turned.append(rotate(image, degrees=degrees[best]) if row[best] > threshold else image)
    return turned


@operator("convert-color", takes={"image": "T[h, w, c]"}, gives={"image": "T[h, w, channels]"})
def convert_color(image: Array, *, source: str = "rgb", target: str) -> Array:
    """The image in another colour space: rgb, bgr, gray, rgba, bgra, hsv (hue 0..179 in uint8), lab."""
    cv2 = opencv()
    if source == target and source in _COLORS:
        return image
    # Not every pair has a conversion of its own.
    code = getattr(cv2, f"COLOR_{source.upper()}2{target.upper()}", None)
    if source not in _COLORS or target not in _COLORS or code is None:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            "colour conversion",
            received=f"{source} to {target}",
            expected=f"two of {', '.join(_COLORS)} that OpenCV converts",
        )
    if image.shape[2:] != (_COLORS[source],):
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "image",
            received=f"shape {image.shape}",
            expected=f"(height, width, {_COLORS[source]}), being {source}",
        )
    converted: Array = cv2.cvtColor(_filled(image), code)
    return converted.reshape(*image.shape[:2], -1)


def _filled(image: Array) -> Array:
    if image.ndim < 2 or not image.size:
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "image",
            received=f"shape {image.shape}",
            expected="(height, width, channels), with a pixel at least",
        )
    return image


def _sampled(image: Array, matrix: Array, size: tuple[int, int], fill: float, interpolation: str) -> Array:
    cv2 = opencv()
    boxed: Array = cv2.warpAffine(
        image,
        matrix,
        size[::-1],
        flags=interpolation_flag(interpolation) | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(fill,) * 4,
    )
    return boxed.reshape(*size, *image.shape[2:])


def _transform(across: float, down: float, left: float, top: float) -> Array:
    return np.array([[across, 0, left], [0, down, top], [0, 0, 1]], np.float32)
