"""Messages read by their heads say what they say when they are parsed, and nothing else is read so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from cloud_fallback.open_inference.known_heads import KnownHeads
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from cloud_fallback.open_inference.tensors import (
    RAW_INPUT_TAG,
    RAW_OUTPUT_TAG,
    decode_request,
    encode_request,
    encode_response,
    serialize_request,
    serialize_response,
)

Array = np.ndarray[Any, Any]


def _heads() -> KnownHeads[str]:
    return KnownHeads(ModelInferRequest, RAW_INPUT_TAG)


def _keep(heads: KnownHeads[str], content: bytes, facts: str = "") -> None:
    message = ModelInferRequest.FromString(content)
    heads.keep(content, decode_request(message), message.raw_input_contents, facts)


def _inputs(seed: int) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    return {
        "x": generator.random((2, 3), dtype=np.float32),
        "mask": generator.random((5,)) > 0.5,
        "long": generator.integers(-9, 9, (200, 2)),
        "none": np.zeros((0, 4), np.float16),
    }


@pytest.mark.parametrize("outputs", [(), ("y", "z")])
def test_another_message_with_the_same_head_is_read(outputs: tuple[str, ...]) -> None:
    heads = _heads()
    first, second = (serialize_request("m", _inputs(seed), version="3", outputs=outputs) for seed in (1, 2))
    assert heads.read(first) is None
    _keep(heads, first, "kept")
    known = heads.read(second)
    assert known is not None
    facts, arrays = known
    assert facts == "kept"
    assert list(arrays) == list(_inputs(2))
    for name, array in _inputs(2).items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].flags.aligned
        assert not arrays[name].flags.writeable


def test_heads_that_differ_are_told_apart_though_the_messages_are_as_long() -> None:
    heads = _heads()
    for model in ("a", "b", "c", "d", "e"):
        for shape in ((2, 3), (3, 2)):
            _keep(heads, serialize_request(model, {"x": np.zeros(shape, np.float32)}), f"{model}{shape}")
    for model in ("a", "b", "c", "d", "e"):
        for shape in ((2, 3), (3, 2)):
            known = heads.read(serialize_request(model, {"x": np.ones(shape, np.float32)}))
            assert known is not None
            assert known[0] == f"{model}{shape}"
            assert known[1]["x"].shape == shape
    assert heads.read(serialize_request("f", {"x": np.zeros((2, 3), np.float32)})) is None


def test_what_is_not_exactly_contents_after_a_known_head_is_not_read() -> None:
    heads = _heads()
    content = serialize_request("m", {"x": np.arange(4, dtype=np.float32), "y": np.arange(2)})
    _keep(heads, content)
    assert heads.read(content) is not None
    # Another size of the first tensor, made up for by the second: as long in all.
    end = content.index(RAW_INPUT_TAG + b"\x10")
    other = content[:end] + RAW_INPUT_TAG + b"\x11" + content[end + 2 : end + 19] + RAW_INPUT_TAG + b"\x0f"
    other += content[-15:]
    assert len(other) == len(content)
    assert heads.read(other) is None
    # A field of another number in place of contents.
    assert heads.read(content[:end] + b"\x42" + content[end + 1 :]) is None
    assert heads.read(content + b"\x00") is None
    assert heads.read(content[:-1]) is None


def test_contents_that_do_not_come_last_are_left_to_the_parser() -> None:
    heads = _heads()
    request = encode_request("m", {"x": np.arange(4, dtype=np.float32)})
    raw = ModelInferRequest(raw_input_contents=request.raw_input_contents).SerializeToString()
    del request.raw_input_contents[:]
    content = raw + request.SerializeToString()
    assert decode_request(ModelInferRequest.FromString(content))["x"].tolist() == [0, 1, 2, 3]
    _keep(heads, content)
    assert heads.read(content) is None


def test_contents_that_only_look_so_within_another_field_are_left_to_the_parser() -> None:
    heads = _heads()
    x = np.arange(1, dtype=np.float32)
    whole = serialize_request("m", {"x": x})
    contents = RAW_INPUT_TAG + b"\x04" + x.tobytes()
    head = whole.removesuffix(contents)
    # The contents come first; what looks like them at the end is part of an id.
    content = contents + head + b"\x1a" + bytes([len(contents)]) + contents
    message = ModelInferRequest.FromString(content)
    assert len(message.raw_input_contents) == 1
    _keep(heads, content)
    assert heads.read(content) is None


def test_strings_and_typed_contents_are_left_to_the_parser() -> None:
    heads = _heads()
    strings = serialize_request("m", {"x": np.array([b"abc", b"d"], object)})
    typed = ModelInferRequest(model_name="m")
    typed.inputs.add(name="x", datatype="INT64", shape=[1]).contents.int64_contents.append(7)
    for content in (strings, typed.SerializeToString()):
        _keep(heads, content)
        assert heads.read(content) is None


def test_heads_without_number_do_not_fill_memory() -> None:
    heads = _heads()
    for number in range(5000):
        _keep(heads, serialize_request(f"model-{number}", {"x": np.zeros(number % 50 + 1, np.uint8)}))
    assert len(heads._heads) <= 1024
    assert sum(map(len, heads._ends.values())) <= 1024
    _keep(heads, serialize_request("m" * 2000, {"x": np.zeros(3)}))
    assert all(len(head) <= 1024 for head in heads._heads)


@pytest.mark.parametrize("seed", range(20))
def test_changed_messages_are_read_as_the_parser_reads_them_or_not_at_all(seed: int) -> None:
    heads = _heads()
    content = serialize_request("m", _inputs(seed), version="1", outputs=("y",))
    _keep(heads, content)
    generator = np.random.default_rng(seed)
    hits = 0
    for _ in range(400):
        changed = bytearray(content)
        for place in generator.integers(0, len(content), generator.integers(1, 4)):
            changed[place] = generator.integers(0, 256)
        known = heads.read(bytes(changed))
        if known is None:
            continue
        hits += 1
        try:
            parsed = decode_request(ModelInferRequest.FromString(bytes(changed)))
        except DecodeError:
            pytest.fail("read what is no message")
        assert {name: array.tobytes() for name, array in known[1].items()} == {
            name: array.tobytes() for name, array in parsed.items()
        }
    assert hits > 100


@pytest.mark.parametrize("request_id", ["", "a-request"])
def test_a_serialised_response_is_the_encoded_one(request_id: str) -> None:
    outputs = _inputs(3) | {"text": np.array(["süß"])}
    content = serialize_response("m", outputs, version="2", request_id=request_id)
    assert ModelInferResponse.FromString(content) == encode_response(
        "m", outputs, version="2", request_id=request_id
    )
    heads: KnownHeads[str] = KnownHeads(ModelInferResponse, RAW_OUTPUT_TAG)
    plain = serialize_response("m", {"y": np.arange(3)}, version="2")
    heads.keep(plain, {"y": np.arange(3)}, ModelInferResponse.FromString(plain).raw_output_contents, "2")
    known = heads.read(serialize_response("m", {"y": np.arange(3) + 7}, version="2"))
    assert known is not None
    assert known[1]["y"].tolist() == [7, 8, 9]
