"""Bodies of inference over REST: JSON, binary data and both, as tritonclient writes them, and as nobody should."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="needs the 'serve' extra")

from cloud_fallback.endpoint.rest.inference_body import InferenceBody, decode_inference, encode_inference
from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import TensorSpec

Array = np.ndarray[Any, Any]
X = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
IMAGE = (TensorSpec("image", ("batch", 2, "width", 3), "uint8"),)


def _nothing() -> tuple[TensorSpec, ...]:
    raise AssertionError("a body with JSON says itself what it is")


def _decoded(request: object, tail: bytes = b"", **more: Any) -> InferenceBody:
    head = json.dumps(request).encode()
    return decode_inference(head + tail, len(head) if tail else None, _nothing, **more)


def _binary(
    name: str, size: object, datatype: str = "FP32", shape: tuple[int, ...] = (1, 2)
) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def _code(request: object, tail: bytes = b"") -> ErrorCode:
    with pytest.raises(HybridgeError) as refusal:
        _decoded(request, tail)
    assert len(refusal.value.message) < 1000
    return refusal.value.code


def test_tensors_in_json_and_in_binary_are_read_in_one_request() -> None:
    strings = b"\x01\x00\x00\x00a\x00\x00\x00\x00"
    numbers = np.array([[3, 4]], "<f4").tobytes()
    request = {
        "id": "7",
        "inputs": [_binary("b", 8), X, _binary("s", 9, "BYTES", (2,))],
        "outputs": [{"name": "y"}],
    }
    body = _decoded(request, numbers + strings)
    assert {name: array.tolist() for name, array in body.inputs.items()} == {
        "b": [[3, 4]],
        "x": [[1, 2]],
        "s": [b"a", b""],
    }
    assert (body.id, body.outputs, body.binary("y"), body.timeout_s) == ("7", ["y"], False, None)


def test_arrays_of_binary_data_are_aligned_wherever_they_stand_in_the_body() -> None:
    for name in ("a", "ab", "abc", "abcd"):
        assert _decoded({"inputs": [_binary(name, 8)]}, bytes(8)).inputs[name].flags.aligned


def test_outputs_are_binary_where_the_request_says_so() -> None:
    outputs = [{"name": "a"}, {"name": "b", "parameters": {"binary_data": True}}]
    body = _decoded({"inputs": [X], "outputs": outputs})
    assert [body.binary(name) for name in "ab"] == [False, True]
    body = _decoded({"inputs": [X], "outputs": [{"name": "b", "parameters": {"binary_data": False}}],
                     "parameters": {"binary_data_output": True}})  # fmt: skip
    assert [body.binary(name) for name in "ab"] == [True, False]


def test_a_timeout_is_in_microseconds() -> None:
    assert _decoded({"inputs": [X], "parameters": {"timeout": 1500}}).timeout_s == pytest.approx(0.0015)
    assert _decoded({"inputs": [X], "parameters": {"timeout": 0}}).timeout_s is None


def test_fields_that_are_null_are_as_those_that_are_not_there() -> None:
    body = _decoded({"inputs": [X | {"parameters": None}], "outputs": None, "id": None, "parameters": None})
    assert (list(body.inputs), body.outputs, body.id) == (["x"], [], "")


@pytest.mark.parametrize(
    ("request_", "tail", "code"),
    [
        ([], b"", ErrorCode.INPUT_INVALID),
        ({}, b"", ErrorCode.INPUT_INVALID),
        ({"inputs": [X, X]}, b"", ErrorCode.INPUT_INVALID),
        ({"inputs": [X | {"datatype": "FP8"}]}, b"", ErrorCode.INPUT_DTYPE),
        ({"inputs": [X | {"datatype": "a" * 10_000}]}, b"", ErrorCode.INPUT_DTYPE),
        ({"inputs": [X | {"name": "a" * 10_000, "data": []}]}, b"", ErrorCode.INPUT_INVALID),
        ({"inputs": [X | {"shape": [-1, 2]}]}, b"", ErrorCode.INPUT_SHAPE),
        ({"inputs": [X | {"shape": [2**40, 2**40]}]}, b"", ErrorCode.INPUT_SHAPE),
        ({"inputs": [X | {"shape": [10**99]}]}, b"", ErrorCode.INPUT_SHAPE),
        ({"inputs": [X | {"shape": [1] * 33}]}, b"", ErrorCode.INPUT_SHAPE),
        ({"inputs": [X | {"parameters": {"binary_data_size": 8}}]}, bytes(8), ErrorCode.INPUT_INVALID),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]}, b"", ErrorCode.INPUT_INVALID),
        ({"inputs": [_binary("x", 8)]}, b"", ErrorCode.INPUT_INVALID),
        ({"inputs": [_binary("x", 8)]}, bytes(7), ErrorCode.INPUT_INVALID),
        ({"inputs": [_binary("x", 8)]}, bytes(9), ErrorCode.INPUT_INVALID),
        ({"inputs": [_binary("x", 7)]}, bytes(7), ErrorCode.INPUT_INVALID),
        ({"inputs": [_binary("x", -8), _binary("y", 8)]}, bytes(8), ErrorCode.INPUT_INVALID),
        ({"inputs": [_binary("x", True)]}, bytes(1), ErrorCode.INPUT_INVALID),
        ({"inputs": [_binary("x", "8")]}, bytes(8), ErrorCode.INPUT_INVALID),
        ({"inputs": [_binary("x", 10**40)]}, bytes(8), ErrorCode.INPUT_INVALID),
        ({"inputs": [_binary("x", 3, "BYTES", (1,))]}, b"\x01\0\0", ErrorCode.INPUT_INVALID),
        ({"inputs": [_binary("x", 5, "BYTES", (1,))]}, b"\xff\xff\xff\xffa", ErrorCode.INPUT_INVALID),
        ({"inputs": [X | {"parameters": {"shared_memory_region": "a"}}]}, b"", ErrorCode.INPUT_INVALID),
        ({"inputs": [X | {"parameters": {"list": [[]]}}]}, b"", ErrorCode.INPUT_INVALID),
        ({"inputs": [X], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, b"", ErrorCode.INPUT_INVALID),
        ({"inputs": [X], "outputs": [{"name": "", "parameters": {"classification": 3}}]}, b"", ErrorCode.INPUT_INVALID),
        ({"inputs": [X], "parameters": {"binary_data_output": "yes"}}, b"", ErrorCode.INPUT_INVALID),
        ({"inputs": [X], "parameters": {"timeout": -1}}, b"", ErrorCode.INPUT_INVALID),
        ({"inputs": [X], "id": 7}, b"", ErrorCode.INPUT_INVALID),
        ({"inputs": [X], "parameters": {"padding": "a" * 17_000_000}}, b"", ErrorCode.MESSAGE_TOO_LARGE),
    ],
)  # fmt: skip
def test_what_does_not_follow_the_protocol_is_refused(request_: object, tail: bytes, code: ErrorCode) -> None:
    assert _code(request_, tail) is code


@pytest.mark.parametrize("size", [-1, 10_000])
def test_a_size_of_the_json_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(HybridgeError) as refusal:
        decode_inference(json.dumps({"inputs": [X]}).encode(), size, _nothing)
    assert refusal.value.code is ErrorCode.INPUT_INVALID


def test_json_as_deep_as_it_is_long_is_refused() -> None:
    depth = 1_000_000
    for body in (b"[" * depth, b'{"x":' * depth, b'{"inputs":[],"x":' + b"[" * depth + b"]" * depth + b"}"):
        with pytest.raises(HybridgeError):
            decode_inference(body, None, _nothing)


def test_a_body_without_json_is_the_one_input_in_the_shape_that_it_must_have() -> None:
    body = decode_inference(bytes(24), 0, lambda: IMAGE)
    assert (body.inputs["image"].shape, body.inputs["image"].dtype) == ((1, 2, 4, 3), np.uint8)
    assert body.binary("anything")
    text = decode_inference(b"427", 0, lambda: (TensorSpec("text", ("n",), "string"),))
    assert text.inputs["text"].tolist() == [b"427"]
    scalar = decode_inference(b"\0\0\x80?", 0, lambda: (TensorSpec("x", (), "float32"),))
    assert scalar.inputs["x"].tolist() == 1.0


@pytest.mark.parametrize(
    "specs",
    [
        (),
        (*IMAGE, *IMAGE),
        IMAGE,
        (TensorSpec("x", (2,), "float32"),),
        (TensorSpec("x", ("a", "b", "c"), "float32"),),
        (TensorSpec("x", ("a", 0), "float32"),),
    ],
)
def test_a_body_without_json_that_has_no_one_shape_is_refused(specs: tuple[TensorSpec, ...]) -> None:
    with pytest.raises(HybridgeError) as refusal:
        decode_inference(bytes(25), 0, lambda: specs)
    assert refusal.value.code is ErrorCode.INPUT_INVALID


def test_an_answer_is_json_and_behind_it_what_is_binary() -> None:
    outputs: Mapping[str, Array] = {
        "a": np.array([[1.5, 2]], np.float32),
        "b": np.array([[1, 2], [3, 4]], ">i2").T,
        "s": np.array([b"x", "yz"], object),
    }
    body, size = encode_inference("m", "2", outputs, binary=lambda name: name != "a", request_id="7")
    assert size is not None
    assert json.loads(body[:size]) == {
        "model_name": "m",
        "model_version": "2",
        "id": "7",
        "outputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0]},
            {"name": "b", "datatype": "INT16", "shape": [2, 2], "parameters": {"binary_data_size": 8}},
            {"name": "s", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 11}},
        ],
    }
    assert body[size:] == np.array([1, 3, 2, 4], "<i2").tobytes() + b"\x01\0\0\0x\x02\0\0\0yz"
    alone, size = encode_inference("m", "2", {"a": outputs["a"]}, binary=lambda _: False)
    assert size is None
    assert "id" not in json.loads(alone)


def test_what_tritonclient_writes_is_read_and_what_is_written_tritonclient_reads() -> None:
    http = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    from tritonclient.utils import np_to_triton_dtype

    chance = random.Random(3)
    numbers = np.random.default_rng(3)
    for _ in range(300):
        arrays: dict[str, Array] = {}
        inputs = []
        for index in range(chance.randrange(1, 5)):
            shape = tuple(chance.randrange(4) for _ in range(chance.randrange(1, 4)))
            dtype = chance.choice(
                ["float32", "float64", "float16", "int8", "uint16", "int64", "bool", "object"]
            )
            array = (numbers.normal(size=shape) * 50).astype("float32" if dtype == "object" else dtype)
            if dtype == "object":
                array = array.astype(str).astype(object)
            tensor = http.InferInput(f"t{index}", list(shape), np_to_triton_dtype(array.dtype))
            # It does not write 16-bit floats as JSON.
            tensor.set_data_from_numpy(array, binary_data=dtype == "float16" or chance.random() < 0.5)
            inputs.append(tensor)
            arrays[f"t{index}"] = array
        outputs = [http.InferRequestedOutput(name, binary_data=chance.random() < 0.7) for name in arrays]
        content, size = http.InferenceServerClient.generate_request_body(
            inputs, outputs=outputs, request_id="9"
        )
        body = decode_inference(content, size, _nothing)
        assert (body.id, body.outputs) == ("9", list(arrays))
        for name, array in arrays.items():
            expected = (
                [str(each).encode() for each in array.ravel()]
                if array.dtype == object
                else array.ravel().tolist()
            )
            assert body.inputs[name].ravel().tolist() == expected
            assert body.inputs[name].shape == array.shape
        answer, size = encode_inference("m", "1", body.inputs, binary=body.binary, request_id=body.id)
        result = http.InferenceServerClient.parse_response_body(answer, header_length=size)
        for name, array in arrays.items():
            back = result.as_numpy(name)
            assert back.shape == array.shape
            if array.dtype == object:
                texts = [each.decode() if isinstance(each, bytes) else str(each) for each in back.ravel()]
                assert texts == array.ravel().tolist()
            else:
                assert np.array_equal(back, array)


def test_no_damage_to_a_body_does_more_than_be_refused() -> None:
    chance = random.Random(5)
    head = json.dumps(
        {"inputs": [X, _binary("b", 8), _binary("s", 9, "BYTES", (2,))], "outputs": [{"name": "y"}]}
    ).encode()
    whole = head + bytes(8) + b"\x01\x00\x00\x00a\x00\x00\x00\x00"
    for _ in range(3000):
        body = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            body[chance.randrange(len(body))] = chance.choice(b'[]{}:,"0-1e\xff\x00')
        cut = bytes(body[: chance.choice((len(body), len(body), chance.randrange(len(body))))])
        try:
            decode_inference(cut, chance.choice((len(head), len(head), len(head) - 1, None)), _nothing)
        except HybridgeError as error:
            assert error.code in (ErrorCode.INPUT_INVALID, ErrorCode.INPUT_DTYPE, ErrorCode.INPUT_SHAPE)  # noqa: PT017
