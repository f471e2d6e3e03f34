"""Named arrays in the messages of the Open Inference Protocol, and out of them.

Sent tensors are raw: row-major, little-endian, one entry a tensor, which is some fifty times cheaper than the typed
fields. Received ones may be either. Nothing that arrives is trusted: whatever does not follow the specification is a
`HybridgeError` with an ``input-*`` code, and no array is made larger than the bytes that came for it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from cloud_fallback.open_inference.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
)
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = [
    "RAW_INPUT_TAG",
    "RAW_OUTPUT_TAG",
    "datatype",
    "decode_request",
    "decode_response",
    "element_count",
    "encode_request",
    "encode_response",
    "encode_size",
    "from_raw",
    "numpy_type",
    "raw_contents",
    "serialize_request",
    "serialize_response",
    "wire_shape",
]

_Tensor: TypeAlias = ModelInferRequest.InferInputTensor | ModelInferResponse.InferOutputTensor

# NumPy's name, and the field of InferTensorContents; the specification gives FP16 no typed field. BYTES is apart.
_FIXED_SIZE = {
    "BOOL": (np.dtype("bool"), "bool_contents"),
    "UINT8": (np.dtype("<u1"), "uint_contents"),
    "UINT16": (np.dtype("<u2"), "uint_contents"),
    "UINT32": (np.dtype("<u4"), "uint_contents"),
    "UINT64": (np.dtype("<u8"), "uint64_contents"),
    "INT8": (np.dtype("<i1"), "int_contents"),
    "INT16": (np.dtype("<i2"), "int_contents"),
    "INT32": (np.dtype("<i4"), "int_contents"),
    "INT64": (np.dtype("<i8"), "int64_contents"),
    "FP16": (np.dtype("<f2"), None),
    "FP32": (np.dtype("<f4"), "fp32_contents"),
    "FP64": (np.dtype("<f8"), "fp64_contents"),
}
_DATATYPES = {dtype.newbyteorder("="): name for name, (dtype, _) in _FIXED_SIZE.items()}
# How NumPy marks an array of the other byte order; one without a mark has elements of one byte.
_BIG_ENDIAN = ">" if sys.byteorder == "little" else "=>"
# Object arrays hold strings of any length, S and U arrays strings of one.
_STRING_KINDS = "OSU"
# NumPy 1 has no more axes than this.
_MAX_RANK = 32
_MAX_ELEMENTS = 2**47
_LENGTH_BYTES = 4
# Field 7 of ModelInferRequest and 6 of ModelInferResponse, length-delimited, as the encoding of Protocol Buffers
# writes them.
RAW_INPUT_TAG, RAW_OUTPUT_TAG = b"\x3a", b"\x32"


def datatype(dtype: str | np.dtype[np.generic]) -> str:
    """The protocol's name for an element type.

    Args:
        dtype: A NumPy type or its name; ``"string"`` is what a `TensorSpec` calls one of strings.

    Raises:
        HybridgeError: `input-dtype` for one that the protocol does not have, such as complex numbers.
    """
    if isinstance(dtype, np.dtype) and dtype in _DATATYPES:
        return _DATATYPES[dtype]
    if dtype == "string":
        return "BYTES"
    known = np.dtype(dtype)
    if known.kind in _STRING_KINDS:
        return "BYTES"
    try:
        return _DATATYPES[known.newbyteorder("=")]
    except KeyError:
        raise HybridgeError(
            ErrorCode.INPUT_DTYPE,
            "tensor for the Open Inference Protocol",
            received=str(known),
            expected=f"one of {', '.join(map(str, _DATATYPES))} or strings",
            fix="cast it with .astype",
        ) from None


def numpy_type(name: str) -> np.dtype[np.generic] | None:
    """The element type that the protocol's name stands for, in this machine's byte order; None for BYTES and others."""
    known = _FIXED_SIZE.get(name)
    return None if known is None else known[0].newbyteorder("=")


def wire_shape(shape: Sequence[int | str]) -> list[int]:
    """A shape as metadata has it: -1 for a dimension that may vary."""
    return [-1 if isinstance(size, str) else size for size in shape]


def encode_request(
    model: str, inputs: Mapping[str, Array], *, version: str = "", outputs: Iterable[str] = ()
) -> ModelInferRequest:
    """A request with raw contents.

    Args:
        model: Name of the model to ask.
        inputs: Its inputs by name.
        version: Its version, or empty for the server to choose.
        outputs: Names of the outputs to send back, or none for all.

    Raises:
        HybridgeError: `input-dtype` for an array that cannot be sent.
    """
    request = ModelInferRequest(model_name=model, model_version=version)
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=datatype(array.dtype), shape=array.shape)
        request.raw_input_contents.append(_raw(name, array))
    for name in outputs:
        request.outputs.add(name=name)
    return request


def serialize_request(
    model: str, inputs: Mapping[str, Array], *, version: str = "", outputs: Iterable[str] = ()
) -> bytes:
    """The bytes of `encode_request`, with one copy of the arrays on the way instead of three.

    Protobuf's Python takes `bytes` only, copies them into the message, and once more to serialise it. Raw contents
    are the message's last field, so they are put behind the rest here (https://protobuf.dev/programming-guides/encoding).

    Raises:
        HybridgeError: `input-dtype` for an array that cannot be sent.
    """
    tensors, contents = _serialized_tensors(inputs, RAW_INPUT_TAG)
    # A buffer is joined as it is, which the types do not say.
    return b"".join((_request_head(model, version, tensors, tuple(outputs)), *contents))  # type: ignore[arg-type]


def serialize_response(
    model: str, outputs: Mapping[str, Array], *, version: str = "", request_id: str = ""
) -> bytes:
    """The bytes of `encode_response`; as `serialize_request`.

    Raises:
        HybridgeError: `input-dtype` for an array that cannot be sent.
    """
    tensors, contents = _serialized_tensors(outputs, RAW_OUTPUT_TAG)
    head = _response_head(model, version, tensors)
    if request_id:
        # Fields may come in any order, and no two requests have the same.
        head = ModelInferResponse(id=request_id).SerializeToString() + head
    return b"".join((head, *contents))  # type: ignore[arg-type]


def _serialized_tensors(
    arrays: Mapping[str, Array], tag: bytes
) -> tuple[tuple[tuple[str, str, tuple[int, ...]], ...], list[bytes | Array]]:
    """Names, datatypes and shapes; and for each its raw contents, after their tag and size."""
    contents: list[bytes | Array] = []
    tensors = []
    for name, array in arrays.items():
        tensors.append((name, datatype(array.dtype), array.shape))
        content = raw_contents(name, array)
        size = len(content) if isinstance(content, bytes) else content.nbytes
        contents += (tag, encode_size(size), content)
    return tuple(tensors), contents


# A device asks about the same shapes again and again.
@lru_cache(256)
def _request_head(
    model: str, version: str, tensors: tuple[tuple[str, str, tuple[int, ...]], ...], outputs: tuple[str, ...]
) -> bytes:
    """A serialised request without its contents."""
    head = ModelInferRequest(model_name=model, model_version=version)
    for name, kind, shape in tensors:
        head.inputs.add(name=name, datatype=kind, shape=shape)
    for output in outputs:
        head.outputs.add(name=output)
    return head.SerializeToString()


@lru_cache(256)
def _response_head(model: str, version: str, tensors: tuple[tuple[str, str, tuple[int, ...]], ...]) -> bytes:
    """A serialised response without its contents."""
    head = ModelInferResponse(model_name=model, model_version=version)
    for name, kind, shape in tensors:
        head.outputs.add(name=name, datatype=kind, shape=shape)
    return head.SerializeToString()


@lru_cache(256)
def encode_size(number: int) -> bytes:
    """A number as the encoding of Protocol Buffers writes it, such as the size of a field."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def encode_response(
    model: str, outputs: Mapping[str, Array], *, version: str = "", request_id: str = ""
) -> ModelInferResponse:
    """A response with raw contents, in the order of `outputs`.

    Raises:
        HybridgeError: `input-dtype` for an array that cannot be sent.
    """
    response = ModelInferResponse(model_name=model, model_version=version, id=request_id)
    for name, array in outputs.items():
        response.outputs.add(name=name, datatype=datatype(array.dtype), shape=array.shape)
        response.raw_output_contents.append(_raw(name, array))
    return response


def decode_request(request: ModelInferRequest) -> dict[str, Array]:
    """The input arrays of a request, by name; strings as object arrays of bytes.

    The arrays are views of the message and cannot be written to.

    Raises:
        HybridgeError: `input-dtype`, `input-shape` or `input-invalid` for what does not follow the specification.
    """
    return _decode("input", request.inputs, request.raw_input_contents)


def decode_response(response: ModelInferResponse) -> dict[str, Array]:
    """The output arrays of a response, by name; as `decode_request`."""
    return _decode("output", response.outputs, response.raw_output_contents)


def _decode(kind: str, tensors: Sequence[_Tensor], raw: Sequence[bytes]) -> dict[str, Array]:
    if raw and len(raw) != len(tensors):
        raise _invalid(
            f"raw contents of {len(tensors)} {kind}s",
            f"{len(raw)} entries",
            "one entry for each tensor, in order",
        )
    arrays: dict[str, Array] = {}
    for index, tensor in enumerate(tensors):
        what = f"{kind} '{tensor.name}'"
        if tensor.name in arrays:
            raise _invalid(what, "two tensors of this name", "one")
        # MLServer sends contents that are there and empty.
        if raw and tensor.HasField("contents") and tensor.contents.ListFields():
            raise _invalid(what, "contents beside raw contents", "one of the two")
        shape = tuple(tensor.shape)
        count = element_count(what, tensor.datatype, shape)
        flat = from_raw(what, tensor.datatype, count, raw[index]) if raw else _from_typed(what, tensor, count)
        arrays[tensor.name] = flat.reshape(shape)
    return arrays


def element_count(what: str, name: str, shape: tuple[int, ...]) -> int:
    """Elements of a tensor that someone sent.

    Args:
        what: What to call it in an error.
        name: Its datatype, as the protocol names it.
        shape: Its shape.

    Raises:
        HybridgeError: `input-dtype` for a datatype that there is not, `input-shape` for a shape that cannot be.
    """
    if name not in _FIXED_SIZE and name != "BYTES":
        raise HybridgeError(
            ErrorCode.INPUT_DTYPE,
            what,
            received=f"datatype '{name[:32]}'",
            expected=f"one of {', '.join(_FIXED_SIZE)} or BYTES",
        )
    # Nearly every tensor is plainly one.
    if len(shape) <= _MAX_RANK and min(shape, default=1) > 0 and math.prod(shape) <= _MAX_ELEMENTS:
        return math.prod(shape)
    # An empty tensor has no bytes to hold its other dimensions to: those are held to what NumPy can count.
    count, bound = 1, 1
    for size in shape:
        count *= size
        bound *= size or 1
        if size < 0 or bound > _MAX_ELEMENTS:
            break
    else:
        if len(shape) <= _MAX_RANK:
            return count
    raise HybridgeError(
        ErrorCode.INPUT_SHAPE,
        what,
        received=f"shape {shape[: _MAX_RANK + 1]}",
        expected=f"at most {_MAX_RANK} dimensions, none negative, and at most {_MAX_ELEMENTS} elements",
    )


def from_raw(what: str, name: str, count: int, content: bytes) -> Array:
    """A flat array of raw contents, a view where it can be.

    Args:
        what: What to call the tensor in an error.
        name: Its datatype.
        count: Its elements.
        content: Its bytes.

    Raises:
        HybridgeError: `input-invalid` for another number of bytes, or strings that end elsewhere.
    """
    if name == "BYTES":
        return _strings(_split(what, count, content))
    dtype, _ = _FIXED_SIZE[name]
    if len(content) != count * dtype.itemsize:
        raise _invalid(
            what, f"{len(content)} bytes", f"{count * dtype.itemsize} bytes for {count} elements of {name}"
        )
    array: Array = np.frombuffer(content, dtype)
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def _from_typed(what: str, tensor: _Tensor, count: int) -> Array:
    if tensor.datatype == "BYTES":
        wanted: str | None = "bytes_contents"
    else:
        dtype, wanted = _FIXED_SIZE[tensor.datatype]
    filled = [field.name for field, _ in tensor.contents.ListFields()]
    if filled and filled != [wanted]:
        raise _invalid(
            what,
            f"{' and '.join(filled)} for {tensor.datatype}",
            wanted or "raw contents, the only ones that a 16-bit float has",
        )
    values = getattr(tensor.contents, wanted) if wanted else ()
    if len(values) != count:
        raise _invalid(what, f"{len(values)} elements", f"{count} elements for shape {tuple(tensor.shape)}")
    if tensor.datatype == "BYTES":
        return _strings(list(values))
    native = dtype.newbyteorder("=")
    if wanted not in ("int_contents", "uint_contents"):
        return np.array(values, native)
    # The field is wider than the smaller types.
    wide = np.array(values, np.int64)
    limits = np.iinfo(native.name)
    if count and (wide.min() < limits.min or wide.max() > limits.max):
        raise _invalid(
            what, f"values from {wide.min()} to {wide.max()}", f"values that {tensor.datatype} can hold"
        )
    return wide.astype(native)


def _raw(name: str, array: Array) -> bytes:
    content = raw_contents(name, array)
    return content if isinstance(content, bytes) else content.tobytes()


def raw_contents(name: str, array: Array) -> bytes | Array:
    """Raw contents: of strings as bytes, of numbers as a row-major little-endian array, where it can be the array."""
    if array.dtype in _DATATYPES and array.flags.c_contiguous:
        return array
    if array.dtype.kind in _STRING_KINDS:
        return b"".join(_length_prefixed(name, element) for element in array.ravel().tolist())
    if array.dtype.byteorder in _BIG_ENDIAN:
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(array)


def _length_prefixed(name: str, element: object) -> bytes:
    if isinstance(element, str):
        element = element.encode()
    if not isinstance(element, bytes):
        raise HybridgeError(
            ErrorCode.INPUT_DTYPE,
            f"tensor '{name}'",
            received=f"an array of objects with a {type(element).__name__}",
            expected="numbers, or strings and bytes only",
            fix="cast it with .astype",
        )
    return len(element).to_bytes(_LENGTH_BYTES, "little") + element


def _split(what: str, count: int, content: bytes) -> list[bytes]:
    elements: list[bytes] = []
    start = 0
    while start < len(content):
        end = start + _LENGTH_BYTES + int.from_bytes(content[start : start + _LENGTH_BYTES], "little")
        if start + _LENGTH_BYTES > len(content) or end > len(content):
            raise _invalid(
                what, f"an element that ends after {len(content)} bytes", "elements within the contents"
            )
        elements.append(content[start + _LENGTH_BYTES : end])
        start = end
    if len(elements) != count:
        raise _invalid(what, f"{len(elements)} elements", f"{count}")
    return elements


def _strings(elements: list[bytes]) -> Array:
    array: Array = np.empty(len(elements), object)
    array[:] = elements
    return array


def _invalid(what: str, received: str, expected: str) -> HybridgeError:
    return HybridgeError(ErrorCode.INPUT_INVALID, what, received=received, expected=expected)
