"""Arrays in protocol messages: every type both ways, and nothing malformed gets through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest
from cloud_fallback.open_inference.tensors import (
    datatype,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    wire_shape,
)
from edge_runtime import ErrorCode, HybridgeError

Array = np.ndarray[Any, Any]

DATATYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
TYPED_FIELDS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


def _extremes(dtype: type[np.generic]) -> Array:
    if dtype is np.bool_:
        return np.array([[True, False], [False, True]])
    limits = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.finfo(dtype)  # type: ignore[type-var]
    return np.array([[limits.min, limits.max], [0, 1]], dtype)


@pytest.mark.parametrize(("name", "dtype"), DATATYPES.items())
def test_every_datatype_survives_raw(name: str, dtype: type[np.generic]) -> None:
    array = _extremes(dtype)
    request = encode_request("m", {"x": array})
    assert request.inputs[0].datatype == name
    assert not request.inputs[0].HasField("contents")
    back = decode_request(ModelInferRequest.FromString(request.SerializeToString()))["x"]
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    np.testing.assert_array_equal(decode_response(encode_response("m", {"y": array}))["y"], array)


@pytest.mark.parametrize(("name", "field"), TYPED_FIELDS.items())
def test_every_datatype_is_read_from_typed_contents(name: str, field: str) -> None:
    array = _extremes(DATATYPES[name])
    request = ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype=name, shape=array.shape)
    getattr(tensor.contents, field).extend(array.ravel().tolist())
    back = decode_request(request)["x"]
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_raw_contents_are_row_major_and_little_endian() -> None:
    column_major = np.asfortranarray(np.array([[1, 2], [3, 4]], np.int16))
    big_endian = np.array([258], ">i2")
    request = encode_request(
        "m", {"a": column_major, "b": big_endian, "c": np.arange(6, dtype=np.uint8)[::2]}
    )
    assert list(request.raw_input_contents) == [b"\1\0\2\0\3\0\4\0", b"\2\1", b"\0\2\4"]
    assert request.inputs[1].datatype == "INT16"


@pytest.mark.parametrize("strings", [["", "é", "z" * 300], [b"\xff\0", b"a"]])
def test_strings_are_length_prefixed_bytes(strings: list[Any]) -> None:
    request = encode_request("m", {"x": np.array(strings, object)})
    as_bytes = [text.encode() if isinstance(text, str) else text for text in strings]
    assert request.raw_input_contents[0] == b"".join(
        len(text).to_bytes(4, "little") + text for text in as_bytes
    )
    assert decode_request(request)["x"].tolist() == as_bytes
    typed = ModelInferRequest()
    typed.inputs.add(name="x", datatype="BYTES", shape=[len(strings)]).contents.bytes_contents.extend(
        as_bytes
    )
    assert decode_request(typed)["x"].tolist() == as_bytes


@pytest.mark.parametrize("array", [np.array(["ab", "c"]), np.array([b"ab", b"c"])])
def test_arrays_of_fixed_size_strings_are_sent_too(array: Array) -> None:
    assert decode_request(encode_request("m", {"x": array}))["x"].tolist() == [b"ab", b"c"]


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1, 1, 1)])
def test_scalars_and_empty_tensors_keep_their_shape(shape: tuple[int, ...]) -> None:
    assert decode_request(encode_request("m", {"x": np.zeros(shape, np.float32)}))["x"].shape == shape
    typed = ModelInferRequest()
    tensor = typed.inputs.add(name="x", datatype="FP32", shape=shape)
    tensor.contents.fp32_contents.extend([0.0] * int(np.prod(shape)))
    assert decode_request(typed)["x"].shape == shape


def test_several_tensors_keep_their_order_and_names() -> None:
    arrays: dict[str, Array] = {"b": np.array([1.0], np.float32), "a": np.array([2], np.int8)}
    back = decode_request(encode_request("m", arrays))
    assert list(back) == ["b", "a"]
    assert [array.item() for array in back.values()] == [1.0, 2]


@pytest.mark.parametrize(
    "array", [np.zeros(1, np.complex64), np.zeros(1, "M8[s]"), np.array([1, "a"], object)]
)
def test_an_array_that_the_protocol_has_no_type_for_is_refused(array: Array) -> None:
    with pytest.raises(HybridgeError) as caught:
        encode_request("m", {"x": array})
    assert caught.value.code is ErrorCode.INPUT_DTYPE


def _raw(datatype: str, shape: list[int], *contents: bytes) -> ModelInferRequest:
    request = ModelInferRequest(raw_input_contents=contents)
    request.inputs.add(name="x", datatype=datatype, shape=shape)
    return request


def _typed(datatype: str, shape: list[int], **contents: list[Any]) -> ModelInferRequest:
    request = ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    return request


def _twice() -> ModelInferRequest:
    request = _raw("UINT8", [1], b"1", b"2")
    request.inputs.add(name="x", datatype="UINT8", shape=[1])
    return request


def _both() -> ModelInferRequest:
    request = _typed("FP32", [1], fp32_contents=[1.0])
    request.raw_input_contents.append(b"1234")
    return request


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: _raw("FP32", [2], b"1234567"), ErrorCode.INPUT_INVALID),
        (lambda: _raw("FP32", [2], b"123456789"), ErrorCode.INPUT_INVALID),
        (lambda: _raw("FP32", [2], b"12345678", b""), ErrorCode.INPUT_INVALID),
        (lambda: _raw("FP32", [-1], b"1234"), ErrorCode.INPUT_SHAPE),
        (lambda: _raw("FP32", [-1, -1], b"1234"), ErrorCode.INPUT_SHAPE),
        (lambda: _raw("FP32", [2**62, 2**62], b"1234"), ErrorCode.INPUT_SHAPE),
        (lambda: _raw("FP32", [2**32, 2**32], b""), ErrorCode.INPUT_SHAPE),
        (lambda: _raw("FP32", [0, 2**62], b""), ErrorCode.INPUT_SHAPE),
        (lambda: _raw("FP32", [1] * 70, b"1234"), ErrorCode.INPUT_SHAPE),
        (lambda: _raw("UINT8", [2**40], b"1"), ErrorCode.INPUT_INVALID),
        (lambda: _raw("BF16", [2], b"1234"), ErrorCode.INPUT_DTYPE),
        (lambda: _raw("", [2], b"1234"), ErrorCode.INPUT_DTYPE),
        (lambda: _raw("BYTES", [1], b"\5\0\0\0abcd"), ErrorCode.INPUT_INVALID),
        (lambda: _raw("BYTES", [1], b"\1\0\0"), ErrorCode.INPUT_INVALID),
        (lambda: _raw("BYTES", [2], b"\1\0\0\0a"), ErrorCode.INPUT_INVALID),
        (lambda: _raw("BYTES", [1], b"\1\0\0\0a\1\0\0\0b"), ErrorCode.INPUT_INVALID),
        (lambda: _raw("BYTES", [1], b"\xff\xff\xff\xffabc"), ErrorCode.INPUT_INVALID),
        (_twice, ErrorCode.INPUT_INVALID),
        (_both, ErrorCode.INPUT_INVALID),
        (lambda: _typed("FP32", [2], fp32_contents=[1.0]), ErrorCode.INPUT_INVALID),
        (lambda: _typed("FP32", [1], fp64_contents=[1.0]), ErrorCode.INPUT_INVALID),
        (lambda: _typed("FP32", [1], fp32_contents=[1.0], int_contents=[1]), ErrorCode.INPUT_INVALID),
        (lambda: _typed("FP32", [1]), ErrorCode.INPUT_INVALID),
        (lambda: _typed("FP16", [1], fp32_contents=[1.0]), ErrorCode.INPUT_INVALID),
        (lambda: _typed("FP16", [1]), ErrorCode.INPUT_INVALID),
        (lambda: _typed("INT8", [1], int_contents=[128]), ErrorCode.INPUT_INVALID),
        (lambda: _typed("UINT16", [1], uint_contents=[65536]), ErrorCode.INPUT_INVALID),
    ],
)
def test_what_does_not_follow_the_specification_is_refused(
    make: Callable[[], ModelInferRequest], code: ErrorCode
) -> None:
    with pytest.raises(HybridgeError) as caught:
        decode_request(make())
    assert caught.value.code is code


def test_metadata_spells_types_and_shapes_as_the_protocol_does() -> None:
    assert [datatype(name) for name in ("float32", "uint8", "bool", "string")] == [
        "FP32",
        "UINT8",
        "BOOL",
        "BYTES",
    ]
    assert wire_shape(("batch", 3)) == [-1, 3]


def test_contents_that_are_there_and_empty_are_none() -> None:
    # As MLServer sends them beside raw ones.
    request = encode_request("m", {"x": np.ones(3, np.float32)})
    request.inputs[0].contents.SetInParent()
    assert request.inputs[0].HasField("contents")
    np.testing.assert_array_equal(decode_request(request)["x"], np.ones(3))
