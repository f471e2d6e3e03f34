"""Samples in image files: a folder with a folder a class, or a flat one without labels.

An image is decoded to RGB or grey as the device's own `decode` operator does it, turned as its EXIF data says, and
brought to the size that is taken: by area average when it shrinks, linearly otherwise, without keeping its aspect.
Values are 0..255 in the type that is taken, as Keras's `image_dataset_from_directory` gives them; a model that was
trained on 0..1 needs preprocessing, or a `Rescaling` layer of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convert.data.dataset import invalid
from convert.data.given import Given
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.manifest import RawInput
from edge_runtime.operators import find_operator
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["read_images"]

_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
# Those that hold 0..255.
_TYPES = frozenset(("uint8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64"))
_SHOWN = 5


def read_images(
    folder: Path,
    inputs: tuple[TensorSpec, ...],
    preprocessing: tuple[RawInput, ...],
    labels: tuple[str, ...],
) -> Given:
    """Finds the images of a folder; each is decoded when it is asked for.

    With a folder a class, the index of a class is that of its folder in sorted order, as Keras and torchvision count,
    or that of its name among `labels`. Files that are no images by their suffix, and hidden ones, are passed over.

    Args:
        folder: The folder.
        inputs: What the model takes: one image.
        preprocessing: What it takes raw, if steps follow.
        labels: Names of the classes.

    Raises:
        HybridgeError: `data-invalid` for a folder without images, with images beside folders, or of other classes than
            the model's, and for a model that takes no single image.
    """
    name = f"dataset '{folder.resolve().name}'"
    takes = _takes(name, inputs, preprocessing)
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        classes = [entry for entry in entries if entry.is_dir()]
        flat = [entry for entry in entries if _is_image(entry)]
        files = {
            each.name: sorted(found for found in each.rglob("*") if _is_image(found)) for each in classes
        }
    except OSError as error:
        raise HybridgeError(
            ErrorCode.FILE_NOT_FOUND,
            name,
            received=error.strerror or str(error),
            expected="a readable folder",
            fix="check its permissions",
        ) from error
    if flat and any(files.values()):
        raise invalid(
            name,
            received=f"images beside folders of images ({flat[0].name}, {classes[0].name}/)",
            expected="a folder for each class, or images alone",
            fix="move every image into the folder of its class",
        )
    if not flat and not any(files.values()):
        raise invalid(
            name,
            received="no images",
            expected=f"files that end in {' '.join(sorted(_SUFFIXES))}, in a folder for each class",
            fix="check the path",
        )
    column = inputs[0].name
    if flat:
        return Given(name, {column: _ImageFiles(folder, tuple(flat), takes)}, None, {})
    indices = _class_indices(name, list(files), labels)
    paths = tuple(path for found in files.values() for path in found)
    truth = np.repeat([indices[key] for key in files], [len(found) for found in files.values()])
    return Given(name, {column: _ImageFiles(folder, paths, takes)}, truth, {})


@dataclass(frozen=True)
class _ImageFiles:
    """Images as rows, decoded when they are asked for."""

    folder: Path
    files: tuple[Path, ...]
    takes: TensorSpec

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> Array:
        path = self.files[index]
        try:
            content = np.frombuffer(path.read_bytes(), np.uint8)
            if len(self.takes.shape) == 1:
                return content
            return _fitted(content, self.takes)
        except (OSError, HybridgeError) as error:
            if isinstance(error, HybridgeError) and error.code is not ErrorCode.INPUT_INVALID:
                raise
            reason = error.received if isinstance(error, HybridgeError) else error.strerror or str(error)
            raise invalid(
                f"image '{path.relative_to(self.folder)}' of dataset '{self.folder.resolve().name}'",
                received=reason,
                expected="a whole image file",
                fix="mend it or take it out",
            ) from error


def _takes(name: str, inputs: tuple[TensorSpec, ...], preprocessing: tuple[RawInput, ...]) -> TensorSpec:
    """What one sample is brought to: (height, width, channels), (height, width), or a file's bytes."""
    if len(inputs) != 1:
        raise invalid(
            name,
            received=f"a folder of images for a model with {len(inputs)} inputs",
            expected="a model that takes one image",
            fix="give the samples in an .npz file, or by module:function",
        )
    raw = next((each.takes for each in preprocessing if each.name == inputs[0].name), None)
    spec = raw or inputs[0]
    shape = spec.shape[1:] if raw is None or len(spec.shape) == 4 else spec.shape
    is_file = raw is not None and len(shape) == 1 and spec.dtype == "uint8"
    is_image = len(shape) == 2 or (len(shape) == 3 and (shape[2] in (1, 3) or isinstance(shape[2], str)))
    if not is_file and not (is_image and spec.dtype in _TYPES):
        raise invalid(
            name,
            received=f"a folder of images for input '{inputs[0].name}', "
            f"{spec.dtype} of shape ({', '.join(map(str, spec.shape))})",
            expected="an input of shape (batch, height, width, channels), with 1 or 3 channels and values up to 255",
            fix="give the steps from an image to this input (--preprocessing), or the samples in an .npz file",
        )
    return TensorSpec(spec.name, shape, spec.dtype)


def _fitted(content: Array, takes: TensorSpec) -> Array:
    channels = 1 if len(takes.shape) == 2 or takes.shape[2] == 1 else 3
    image = find_operator("decode").run({"content": content}, {"channels": channels})["image"]
    height, width = (
        have if isinstance(want, str) else want
        for want, have in zip(takes.shape[:2], image.shape[:2], strict=True)
    )
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    image = find_operator("resize").run(
        {"image": image},
        {"height": height, "width": width, "interpolation": "area" if shrinks else "linear"},
    )["image"]
    prepared: Array = (image[:, :, 0] if len(takes.shape) == 2 else image).astype(takes.dtype)
    return prepared


def _class_indices(name: str, folders: Sequence[str], labels: tuple[str, ...]) -> dict[str, int]:
    if not labels:
        return {folder: index for index, folder in enumerate(folders)}
    if unknown := [folder for folder in folders if folder not in labels]:
        raise invalid(
            name,
            received=f"folders named {_some(folders)}",
            expected=f"a folder for each class, named as in the labels: {_some(labels)}",
            fix=f"rename {_some(unknown)}, or give the labels in the order of the folders",
        )
    return {folder: labels.index(folder) for folder in folders}


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _is_image(path: Path) -> bool:
    # A link that leads nowhere is one that cannot be read, not one less.
    return not path.name.startswith(".") and path.suffix.lower() in _SUFFIXES and not path.is_dir()
