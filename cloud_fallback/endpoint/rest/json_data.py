"""The elements of one tensor as JSON, in the tensor's own shape or flat, and back.

Numbers are converted a piece at a time. A whole body of them at once would become Python objects of ten times its size,
and hold the interpreter's lock, and with it every other request, for seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate
from operator import mul
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from cloud_fallback.open_inference.tensors import numpy_type
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["from_json", "to_json"]

# Some thousands of numbers: under a millisecond each way.
_PIECE_BYTES = 2**16
_PIECE_ELEMENTS = 2**13
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[],"))


def _integers(bits: int) -> tuple[Any, Any]:
    signed = Annotated[int, Meta(ge=-(2 ** (bits - 1)), le=2 ** (bits - 1) - 1)]
    # The constraint itself is a 64-bit integer; NumPy refuses what UINT64 cannot hold.
    unsigned = Annotated[int, Meta(ge=0) if bits == 64 else Meta(ge=0, le=2**bits - 1)]
    return signed, unsigned


# null is how JSON writes a number that is not one (NaN); there is no other way to write it.
_ELEMENTS: dict[str, Any] = {"BOOL": bool | Annotated[int, Meta(ge=0, le=1)]} | dict.fromkeys(
    ("FP16", "FP32", "FP64"), float | None
)
for _bits in (8, 16, 32, 64):
    _ELEMENTS[f"INT{_bits}"], _ELEMENTS[f"UINT{_bits}"] = _integers(_bits)
_DECODERS: dict[str, msgspec.json.Decoder[list[Any]]] = {
    name: msgspec.json.Decoder(list[element])  # type: ignore[valid-type]
    for name, element in _ELEMENTS.items()
}


def from_json(what: str, datatype: str, shape: tuple[int, ...], text: bytes) -> Array:
    """The array that a tensor's ``data`` stands for.

    Args:
        what: What to call the tensor in an error.
        datatype: The protocol's name of its type. FP16 is rounded to the nearest; BYTES are strings in UTF-8.
        shape: Its shape; `text` follows it, or is one flat list.
        text: The JSON, which is well-formed.

    Returns:
        An array of `shape`; of strings, an object array of bytes.

    Raises:
        HybridgeError: `input-invalid` for another number of elements, or one that the type cannot hold.
    """
    if datatype == "BYTES":
        return _strings(what, shape, text)
    count = math.prod(shape)
    skeleton = text.translate(None, _NOT_STRUCTURE)
    if not _is_flat(skeleton, count) and not _is_shaped(skeleton, shape):
        raise _invalid(what, "data of another structure", _structure(count, shape))
    array: Array = np.empty(count, numpy_type(datatype))
    _fill(what, datatype, array, text.translate(None, b"[]" if count else b"[], \t\r\n"))
    if array.dtype.kind == "f" and np.isinf(array).any():
        raise _invalid(what, "a number that is too large", f"numbers that {datatype} can hold")
    return array.reshape(shape)


def to_json(what: str, array: Array) -> bytes:
    """A flat list of an array's elements; what is not a finite number becomes null, which JSON has nothing else for.

    Raises:
        HybridgeError: `input-invalid` for bytes that are no UTF-8, which JSON cannot hold.
    """
    flat = array.reshape(-1)
    if array.dtype.kind in "OSU":
        try:
            return msgspec.json.encode([_text(element) for element in flat.tolist()])
        except (UnicodeError, AttributeError) as error:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                what,
                received=f"elements that are no text ({error})",
                expected="strings in UTF-8, the only ones that JSON holds",
                fix='ask for it as binary data: "parameters": {"binary_data": true}',
            ) from error
    pieces = (
        msgspec.json.encode(flat[start : start + _PIECE_ELEMENTS].tolist())[1:-1]
        for start in range(0, len(flat), _PIECE_ELEMENTS)
    )
    return b"[%b]" % b",".join(pieces)


def _is_flat(skeleton: bytes, count: int) -> bool:
    commas = max(count - 1, 0)
    return len(skeleton) == commas + 2 and skeleton.count(b",") == commas


def _is_shaped(skeleton: bytes, shape: tuple[int, ...]) -> bool:
    """Whether brackets and commas are those of nested lists of this shape."""
    if not shape:
        return False
    if 0 in shape:
        # Nothing is within an empty list, whatever sizes follow.
        shape = shape[: shape.index(0) + 1]
    lists = list(accumulate(shape[:-1], mul, initial=1))
    # Counted before the expected ones are made: a shape may name far more of them than came.
    commas = lists[-1] * (shape[-1] or 1) - 1
    if len(skeleton) != 2 * sum(lists) + commas:
        return False
    expected = b""
    for size in reversed(shape):
        expected = b"[%b]" % b",".join([expected] * size)
    return skeleton == expected


def _fill(what: str, datatype: str, array: Array, text: bytes) -> None:
    decoder, filled = _DECODERS[datatype], 0
    try:
        with np.errstate(over="ignore"):
            for piece in _pieces(text):
                elements = decoder.decode(piece)
                array[filled : filled + len(elements)] = elements
                filled += len(elements)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, OverflowError) as error:
        # Where in the piece it is says nothing to who sent the whole.
        raise _invalid(
            what, str(error).partition(" - at ")[0], f"{len(array)} elements of {datatype}"
        ) from error
    if filled != len(array):
        raise _invalid(what, f"{filled} elements", f"{len(array)}")


def _pieces(text: bytes) -> Iterator[bytes]:
    """A flat list's elements in lists of some thousands."""
    start = 0
    while start < len(text):
        end = text.find(b",", start + _PIECE_BYTES)
        end = len(text) if end < 0 else end
        yield b"[%b]" % text[start:end]
        start = end + 1


def _strings(what: str, shape: tuple[int, ...], text: bytes) -> Array:
    count = math.prod(shape)
    elements = _lists_of_strings(text, 1)
    if elements is None and len(shape) > 1:
        nested = _lists_of_strings(text, len(shape))
        elements = None if nested is None else _flattened(nested, shape)
    if elements is None or len(elements) != count:
        raise _invalid(what, "other data", f"strings: {_structure(count, shape)}")
    array: Array = np.empty(count, object)
    # JSON may escape half of a surrogate pair; msgspec refuses it.
    array[:] = [element.encode() for element in elements]
    return array.reshape(shape)


def _lists_of_strings(text: bytes, rank: int) -> list[Any] | None:
    kind: Any = str
    for _ in range(rank):
        kind = list[kind]
    try:
        lists: list[Any] = msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return lists


def _flattened(lists: list[Any], shape: tuple[int, ...]) -> list[Any] | None:
    """The elements of nested lists of this shape; None for others."""
    if len(lists) != shape[0]:
        return None
    if len(shape) == 1:
        return lists
    inner = [_flattened(each, shape[1:]) for each in lists]
    return None if None in inner else [element for each in inner if each is not None for element in each]


def _structure(count: int, shape: tuple[int, ...]) -> str:
    return f"{count} elements, as one list or nested as shape {list(shape)}"


def _text(element: str | bytes) -> str:
    return element if isinstance(element, str) else element.decode()


def _invalid(what: str, received: str, expected: str) -> HybridgeError:
    return HybridgeError(ErrorCode.INPUT_INVALID, what, received=received, expected=expected)
