"""Requests at random: right ones, and what becomes of those when bytes are changed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest
from cloud_fallback.open_inference.tensors import decode_request, encode_request

__all__ = ["Generator"]

Array = np.ndarray[Any, Any]
_NUMBERS = ("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
_TYPED_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
# Lengths and numbers that are at the edge of something.
_EDGES = (0, 1, 127, 128, 255, 256, 2**14, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_LARGEST = 64 * 2**10


class Generator:
    """Makes the same from the same seed.

    Args:
        seed: Of everything that it makes.
    """

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self._numbers = np.random.default_rng(seed)

    def arrays(self) -> dict[str, Array]:
        """Tensors of every type, of any rank, some without elements; their values are any bits that there are."""
        names = [f"x{index}" for index in range(self.random.randrange(4))]
        return {name: self._array() for name in names}

    def request(self) -> ModelInferRequest:
        """A request that follows the specification, with raw or with typed contents."""
        model = self.random.choice(("linear", "strings", "doubles", "logarithm", ""))
        kind = {"linear": "f4", "doubles": "f4", "logarithm": "f4"}.get(model)
        given = self.random.random() < 0.4 and kind is not None
        request = encode_request(
            model,
            {"x": np.ones((2, 3) if model == "linear" else 3, kind)} if given else self.arrays(),
            version=self.random.choice(("", "1")),
            outputs=self.random.choice(((), ("y",), ("y", "z"))),
        )
        request.id = self._text()
        if self.random.random() < 0.3:
            request.parameters["priority"].int64_param = self.random.choice((0, 1, -1))
        return _typed(request) if self.random.random() < 0.4 else request

    def bytes(self) -> bytes:
        """What is sent in place of a request: one that was changed, or nothing of the kind."""
        if self.random.random() < 0.05:
            return self.random.randbytes(self.random.randrange(200))
        request = self.request()
        if self.random.random() < 0.5:
            self._contradict(request)
        content = bytearray(request.SerializeToString())
        if self.random.random() < 0.1:
            content += self.request().SerializeToString()
        for _ in range(self.random.choice((0, 0, 1, 1, 1, 2, 8))):
            self.random.choice(_CHANGES)(self, content)
        return bytes(content[:_LARGEST])

    def _contradict(self, request: ModelInferRequest) -> None:
        """Has a request say what it does not hold, in a message that is whole."""
        if not request.inputs:
            return
        tensor = self.random.choice(request.inputs)
        match self.random.randrange(6):
            case 0:
                tensor.datatype = self.random.choice((*_TYPED_FIELDS, "FP16", "BF16", "", "fp32"))
            case 1:
                tensor.shape.append(self.random.choice((0, 1, 2, -1, 2**31, 2**40, 2**62)))
            case 2:
                del tensor.shape[:]
            case 3:
                tensor.name = request.inputs[0].name
            case 4:
                request.raw_input_contents.append(self.random.randbytes(4))
            case _:
                tensor.contents.int_contents.append(-1)

    def _array(self) -> Array:
        shape = tuple(self.random.choice((0, 1, 1, 2, 3, 7)) for _ in range(self.random.randrange(4)))
        count = int(np.prod(shape))
        if self.random.random() < 0.2:
            strings = np.empty(count, object)
            strings[:] = [self.random.randbytes(self.random.choice((0, 1, 5, 300))) for _ in range(count)]
            return strings.reshape(shape)
        kind = np.dtype(self.random.choice(_NUMBERS))
        if kind.kind == "b":
            return self._numbers.integers(0, 2, shape).astype(bool)
        return np.frombuffer(self._numbers.bytes(count * kind.itemsize), kind).reshape(shape)

    def _text(self) -> str:
        return self.random.choice(("", "7", "é" * 20, "x" * 300, "\0"))

    def _flip(self, content: bytearray) -> None:
        if content:
            content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)

    def _set(self, content: bytearray) -> None:
        if content:
            content[self.random.randrange(len(content))] = self.random.choice((0, 1, 0x7F, 0x80, 0xFF))

    def _cut(self, content: bytearray) -> None:
        start = self.random.randrange(len(content) + 1)
        del content[start : start + self.random.choice((1, 2, 8, len(content)))]

    def _insert(self, content: bytearray) -> None:
        start = self.random.randrange(len(content) + 1)
        content[start:start] = self.random.randbytes(self.random.choice((1, 2, 8, 64)))

    def _repeat(self, content: bytearray) -> None:
        start = self.random.randrange(len(content) + 1)
        part = content[start : start + self.random.choice((1, 2, 16, 64))]
        content[start:start] = part * self.random.choice((1, 2, 100))

    def _number(self, content: bytearray) -> None:
        """Puts a number where one may be: a length, a size, or a tag."""
        start = self.random.randrange(len(content) + 1)
        content[start : start + 1] = _varint(self.random.choice(_EDGES))

    def _field(self, content: bytearray) -> None:
        """Adds a field, of any number and type, that may tell another length than it has."""
        number, kind = self.random.choice((1, 3, 4, 5, 6, 7, 8, 1000)), self.random.randrange(8)
        part = self.random.randbytes(self.random.choice((0, 1, 4, 8, 40)))
        size = len(part) if self.random.random() < 0.7 else self.random.choice(_EDGES)
        content += _varint(number << 3 | kind) + (_varint(size) if kind == 2 else b"") + part


_CHANGES: tuple[Callable[[Generator, bytearray], None], ...] = (
    Generator._flip,
    Generator._set,
    Generator._cut,
    Generator._insert,
    Generator._repeat,
    Generator._number,
    Generator._field,
)


def _typed(request: ModelInferRequest) -> ModelInferRequest:
    """The same with contents in typed fields, which 16-bit floats do not have."""
    if any(tensor.datatype not in _TYPED_FIELDS for tensor in request.inputs):
        return request
    arrays = decode_request(request)
    for tensor in request.inputs:
        field = getattr(tensor.contents, _TYPED_FIELDS[tensor.datatype])
        field.extend(arrays[tensor.name].ravel().tolist())
    del request.raw_input_contents[:]
    return request


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
