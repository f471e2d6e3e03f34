"""Writing a `.tflite` file anew: aligned, without what is stored twice or read by nobody.

litert-quantizer keeps data of files beyond 256 KB outside of the flatbuffer, at offsets that older runtimes do not
read; writes a zero point of eight bytes for every channel of every weight; and the converter names what it fuses by
everything that went in, often twice. In a small model that is a quarter of the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.quantization.flatbuffer import schema
from edge_runtime.tensor_spec import Array

__all__ = ["compact", "pack", "unpack"]

# Offsets inside a flatbuffer are signed and 32 bits wide.
_LARGEST = (1 << 31) - (1 << 24)
_IDENTIFIER = b"TFL3"


def compact(content: bytes) -> bytes:
    """A `.tflite` file that computes the same, in fewer bytes where there are any to save.

    Names of tensors keep each of their parts once. Inputs, outputs, their order and names stay as they are.

    Args:
        content: The file. One of 2 GB or more, which keeps data outside of the flatbuffer, is returned as it is.
    """
    if len(content) > _LARGEST:
        return content
    model = unpack(content)
    _shorten_names(model)
    _merge_buffers(model)
    packed = pack(model)
    return packed if len(packed) < len(content) or _has_outside_data(content) else content


def unpack(content: bytes) -> Any:
    """The file as the generated classes of the schema, with all data inside; arrays are views of `content`."""
    model = schema().ModelT.InitFromPackedBuf(content, 0)
    whole = np.frombuffer(content, np.uint8)
    for buffer in model.buffers:
        if buffer.size:
            buffer.data = whole[buffer.offset : buffer.offset + buffer.size]
            buffer.offset = buffer.size = 0
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            if operator.largeCustomOptionsSize:
                start = operator.largeCustomOptionsOffset
                operator.customOptions = whole[start : start + operator.largeCustomOptionsSize]
                operator.largeCustomOptionsOffset = operator.largeCustomOptionsSize = 0
    return model


def pack(model: Any) -> bytes:
    """The bytes of an unpacked file; the same content gives the same bytes."""
    builder = _builder()
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _builder() -> Any:
    flatbuffers = load_library("flatbuffers")

    class Builder(flatbuffers.Builder):  # type: ignore[misc, name-defined]
        """Aligns data, and writes scales and zero points that are the same once."""

        def __init__(self) -> None:
            super().__init__(1 << 20)
            self._written: dict[tuple[str, bytes], int] = {}

        def StartVector(self, size: int, count: int, alignment: int) -> Any:  # noqa: N802
            # The schema says so of buffers, for kernels that read 16 bytes at once; code generated for Python does not.
            return super().StartVector(size, count, max(alignment, 16) if size == 1 else alignment)

        def CreateNumpyVector(self, x: Array) -> Any:  # noqa: N802
            # Lists of tensors are not shared: `in_order` changes those of a graph in place.
            if x.dtype not in (np.dtype(np.int64), np.dtype(np.float32)):
                return super().CreateNumpyVector(x)
            key = (x.dtype.str, x.tobytes())
            if key not in self._written:
                self._written[key] = super().CreateNumpyVector(x)
            return self._written[key]

    return Builder()


def _shorten_names(model: Any) -> None:
    names = [tensor.name for graph in model.subgraphs for tensor in graph.tensors if tensor.name]
    taken = set(names)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if not tensor.name:
                continue
            short = b";".join(dict.fromkeys(tensor.name.split(b";")))
            # Names stay unique, as tools ask for.
            if short not in taken:
                taken.add(short)
                tensor.name = short


def _merge_buffers(model: Any) -> None:
    """Keeps one of several buffers with the same data, and none that nothing refers to."""
    owners = [tensor for graph in model.subgraphs for tensor in graph.tensors] + list(model.metadata or [])
    kept: list[Any] = [model.buffers[0]]  # by convention the one without data
    place_of: dict[int, int] = {0: 0}
    known: dict[bytes, int] = {}
    for owner in owners:
        if owner.buffer not in place_of:
            data = model.buffers[owner.buffer].data
            key = b"" if data is None else bytes(data)
            # Buffers without data belong to variables and to what is computed, each with its own.
            place = known.setdefault(key, len(kept)) if key else len(kept)
            if place == len(kept):
                kept.append(model.buffers[owner.buffer])
            place_of[owner.buffer] = place
        owner.buffer = place_of[owner.buffer]
    model.buffers = kept


def _has_outside_data(content: bytes) -> bool:
    model = schema().Model.GetRootAs(content, 0)
    return any(model.Buffers(index).Size() for index in range(model.BuffersLength()))
