"""What is drawn on a frame's image: the tensors of its prediction that hold boxes, outlines, points and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.frame import StreamResult
from edge_runtime.operators import find_operator
from edge_runtime.prediction import Prediction
from edge_runtime.tensor_spec import Array, Value

__all__ = ["Annotation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """Names of tensors among a prediction's outputs, or else among the frame's inputs.

    A tensor that is not there because its stage was skipped is not drawn.

    Attributes:
        image: The image to draw on, uint8 of shape (height, width, 3 or 1), with any axes of size 1 before, or a
            file's bytes; without it, the frame's only image.
        boxes: float32 of shape (n, 4), rows of top, left, bottom and right, in pixels.
        quads: float32 of shape (n, corners, 2), points (x, y), in pixels.
        points: float32 of shape (..., 2 or more), x and y first, in pixels.
        labels: Texts or numbers of shape (n,), written at the boxes, else at the quads, else at the points, else at
            the image's corner; several names are joined.
    """

    image: str | None = None
    boxes: str | None = None
    quads: str | None = None
    points: str | None = None
    labels: str | Sequence[str] | None = None

    def plain(self, result: StreamResult) -> Array | None:
        """The image as it is, RGB of shape (height, width, 3), or None when the result has none.

        Raises:
            HybridgeError: `input-shape` or `input-invalid` when what is there is no image; `output-unknown` when
                nothing is.
        """
        tensors = _tensors(result)
        if self.image is None:
            images = [value for value in result.frame.inputs.values() if _is_image(value)]
            if len(images) == 1:
                return _canvas(images[0])
            if not result.frame.inputs:
                return None
            raise _unknown("image", f"{len(images)} images among the frame's inputs", tensors)
        value = self._find("image", self.image, result, tensors)
        return None if value is None else _canvas(value)

    def draw(self, result: StreamResult) -> Array | None:
        """The image with what was found drawn on it, or None when the result has no image.

        Raises:
            HybridgeError: As `plain`, and for tensors that are not as described.
        """
        image = self.plain(result)
        if image is None or result.prediction is None:
            return image
        tensors = _tensors(result)
        regions: Array | None = None
        for kind, name in (("points", self.points), ("quads", self.quads), ("boxes", self.boxes)):
            value = None if name is None else self._find(kind, name, result, tensors)
            if value is None:
                continue
            found = _regions(kind, value)
            image = _run(f"draw-{kind}", image=image, **{kind: found})
            regions = found
        texts = self._texts(result, result.prediction, tensors)
        if texts is None or not texts.size:
            return image
        if not self._has_regions:
            texts, regions = np.array([", ".join(texts.tolist())]), np.zeros((1, 2), np.float32)
        if regions is None:  # their stage was skipped
            return image
        if len(regions) != len(texts):
            raise HybridgeError(
                ErrorCode.INPUT_SHAPE,
                f"labels '{self.labels}'",
                received=f"{len(texts)} texts",
                expected=f"one for each of {len(regions)} regions",
            )
        return _run("draw-labels", image=image, regions=regions, texts=texts)

    @property
    def _has_regions(self) -> bool:
        return any(name is not None for name in (self.boxes, self.quads, self.points))

    def _texts(
        self, result: StreamResult, prediction: Prediction, tensors: Mapping[str, Value]
    ) -> Array | None:
        if self.labels is None:
            if prediction.label is None or self._has_regions:
                return None
            sure = "" if prediction.confidence is None else f" {prediction.confidence:.2f}"
            return np.array([prediction.label + sure])
        names = [self.labels] if isinstance(self.labels, str) else self.labels
        columns = [self._find("labels", name, result, tensors) for name in names]
        lists = [_texts(column) for column in columns if column is not None]
        if not lists:
            return None
        if len({len(texts) for texts in lists}) > 1:
            counts = ", ".join(f"{len(texts)}" for texts in lists)
            raise HybridgeError(
                ErrorCode.INPUT_SHAPE, "labels", received=f"{counts} texts", expected="as many of each"
            )
        return np.array([" ".join(row) for row in zip(*lists, strict=True)], np.str_)

    def _find(
        self, setting: str, name: str, result: StreamResult, tensors: Mapping[str, Value]
    ) -> Value | None:
        if name in tensors:
            return tensors[name]
        # Without an answer, or with a stage that was skipped, it may be right and not there.
        if result.prediction is None or any(stage.skipped for stage in result.prediction.stages):
            return None
        raise _unknown(setting, f"'{name}'", tensors)


def _tensors(result: StreamResult) -> dict[str, Value]:
    outputs = result.prediction.outputs if result.prediction is not None else {}
    return {**result.frame.inputs, **outputs}


def _is_image(value: Value) -> bool:
    if isinstance(value, list) or value.dtype != np.uint8:
        return False
    shape: tuple[int, ...] = value.shape
    if len(shape) < 3:
        return len(shape) == 1
    return shape[-1] in (1, 3) and all(size == 1 for size in shape[:-3])


def _canvas(value: Value) -> Array:
    if not _is_image(value):
        raise HybridgeError(
            ErrorCode.INPUT_SHAPE,
            "image to draw on",
            received="a list" if isinstance(value, list) else f"{value.dtype} of shape {value.shape}",
            expected="uint8 of shape (height, width, 3), (height, width, 1), or a file's bytes",
        )
    image = np.asarray(value)
    if image.ndim == 1:
        image = _run("decode", content=image)
    height, width, channels = image.shape[-3:]
    image = image.reshape(height, width, channels)
    return np.repeat(image, 3, axis=2) if channels == 1 else image


def _regions(kind: str, value: Value) -> Array:
    """Regions of any axes or of several items as one array of shape (n, 4), (n, corners, 2) or (n, 2 or more)."""
    parts = value if isinstance(value, list) else [value]
    inner = 2 if kind == "quads" else 1
    try:
        flat = [np.asarray(part, np.float32) for part in parts if np.size(part)]
        shaped = [part.reshape(-1, *part.shape[-inner:]) for part in flat]
        if not shaped:
            return np.empty((0, 4, 2) if kind == "quads" else (0, 4 if kind == "boxes" else 2), np.float32)
        regions = np.concatenate(shaped)
    except ValueError as error:
        raise _no_regions(kind, str(error)) from error
    last = regions.shape[-1]
    if (kind == "boxes" and last != 4) or (kind == "quads" and (regions.ndim != 3 or last != 2)) or last < 2:
        raise _no_regions(kind, f"shape {np.shape(parts[0])}")
    return regions[:, :2] if kind == "points" else regions


def _no_regions(kind: str, received: str) -> HybridgeError:
    shape = {"boxes": "(n, 4)", "quads": "(n, corners, 2)", "points": "(..., 2 or more)"}[kind]
    return HybridgeError(ErrorCode.INPUT_SHAPE, kind, received=received, expected=f"shape {shape}")


def _texts(value: Value) -> list[str]:
    parts = value if isinstance(value, list) else [value]
    return [
        item if isinstance(item, str) else f"{item:.2f}" if isinstance(item, float) else str(item)
        for part in parts
        for item in np.asarray(part).reshape(-1).tolist()
    ]


def _run(name: str, **tensors: Array) -> Array:
    return np.asarray(find_operator(name).run(tensors, {})["image"])


def _unknown(setting: str, received: str, tensors: Mapping[str, Value]) -> HybridgeError:
    return HybridgeError(
        ErrorCode.OUTPUT_UNKNOWN,
        f"{setting} to draw",
        received=received,
        expected=f"one of {', '.join(tensors) or 'none'}",
        fix=f"name it with {setting}=",
    )
