"""Elements of tensors as JSON: every type, in its shape and flat, and whatever else a caller may send."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="needs the 'serve' extra")

from cloud_fallback.endpoint.rest.json_data import from_json, to_json
from edge_runtime import ErrorCode, HybridgeError
from tests.cloud_fallback.endpoint.rest_models import DTYPES

Array = np.ndarray[Any, Any]
ROUNDS = 400


def _random_shape(chance: random.Random) -> tuple[int, ...]:
    return tuple(chance.choice((0, 1, 1, 2, 3, 5)) for _ in range(chance.randrange(5)))


def _random_array(chance: random.Random, datatype: str, shape: tuple[int, ...]) -> Array:
    size = int(np.prod(shape))
    if datatype == "BYTES":
        array = np.empty(size, object)
        array[:] = [
            "".join(chance.choices('ab",[]{}\\\n é🜚\x00', k=chance.randrange(6))).encode()
            for _ in range(size)
        ]
        return array.reshape(shape)
    dtype = np.dtype(DTYPES[datatype])
    bits = np.frombuffer(chance.randbytes(size * dtype.itemsize), dtype)
    if dtype.kind == "b":
        bits = np.frombuffer(chance.randbytes(size), np.uint8) % 2 == 1
    return (
        np.where(np.isfinite(bits), bits, 0).astype(dtype).reshape(shape)
        if dtype.kind == "f"
        else bits.reshape(shape)
    )


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_array_comes_back_as_it_was_from_its_shape_and_from_a_flat_list(datatype: str) -> None:
    chance = random.Random(datatype)
    for _ in range(ROUNDS // 4):
        shape = _random_shape(chance)
        array = _random_array(chance, datatype, shape)
        flat = to_json("x", array)
        plain = array.astype(object)
        nested = np.vectorize(bytes.decode, [object])(plain) if datatype == "BYTES" and array.size else plain
        texts = (
            [flat]
            if not shape
            else [flat, json.dumps(nested.tolist(), indent=chance.choice((None, 1))).encode()]
        )
        for text in texts:
            back = from_json("x", datatype, shape, text)
            assert (back.dtype, back.shape) == (array.dtype, array.shape)
            assert back.tolist() == array.tolist()


def test_what_is_sent_is_json_that_others_read() -> None:
    array = np.array([[1.5, np.nan], [np.inf, -0.1]], np.float32)
    assert json.loads(to_json("y", array)) == [1.5, None, None, float(np.float32(-0.1))]
    assert json.loads(to_json("y", np.array(["é", b"b"], object))) == ["é", "b"]


def test_arrays_of_many_pieces_come_back_as_they_were() -> None:
    array = np.random.default_rng(4).normal(size=(3, 9_001)).astype(np.float32)
    for text in (to_json("x", array), json.dumps(array.tolist()).encode()):
        assert np.array_equal(from_json("x", "FP32", array.shape, text), array)


def test_null_is_the_number_that_is_none() -> None:
    assert np.isnan(from_json("x", "FP32", (2,), b"[null, 2]")).tolist() == [True, False]
    with pytest.raises(HybridgeError):
        from_json("x", "INT32", (2,), b"[null, 2]")


@pytest.mark.parametrize(
    ("datatype", "shape", "text"),
    [
        ("FP32", (3,), b"[1, 2]"),
        ("FP32", (3,), b"[1, 2, 3, 4]"),
        ("FP32", (2, 2), b"[[1, 2], [3]]"),
        ("FP32", (2, 2), b"[[1, 2, 3], [4]]"),
        ("FP32", (2, 2), b"[[1, 2, 3, 4]]"),
        ("FP32", (4,), b"[[1, 2], [3, 4]]"),
        ("FP32", (4,), b"[1, [2]]"),
        ("FP32", (2, 1), b"[[], [1]]"),
        ("FP32", (2, 1), b"[[1], []]"),
        ("FP32", (0,), b"[1]"),
        ("FP32", (0, 2**40), b"[[1]]"),
        ("FP32", (2**46, 1), b"[1]"),
        ("FP32", (1,), b"1"),
        ("FP32", (), b"1"),
        ("FP32", (1,), b"null"),
        ("FP32", (1,), b'"[1]"'),
        ("FP32", (1,), b'{"a": [1]}'),
        ("FP32", (1,), b'["1"]'),
        ("FP32", (1,), b"[true]"),
        ("FP32", (1,), b"[1e39]"),
        ("FP64", (1,), b"[1e400]"),
        ("FP16", (1,), b"[65536]"),
        ("UINT8", (1,), b"[256]"),
        ("UINT8", (1,), b"[-1]"),
        ("INT8", (1,), b"[-129]"),
        ("INT64", (1,), b"[9223372036854775808]"),
        ("UINT64", (1,), b"[18446744073709551616]"),
        ("UINT64", (1,), b"[-1]"),
        ("UINT64", (1,), b"[" + b"9" * 100_000 + b"]"),
        ("INT32", (1,), b"[1.5]"),
        ("BOOL", (1,), b"[2]"),
        ("BOOL", (1,), b'["true"]'),
        ("BYTES", (1,), b"[1]"),
        ("BYTES", (1,), b'["\xff"]'),
        ("BYTES", (1,), b'["\\ud800"]'),
        ("BYTES", (1,), b"[null]"),
        ("BYTES", (2,), b'["a"]'),
        ("BYTES", (2, 2), b'[["a"], ["b", "c", "d"]]'),
        ("BYTES", (), b'"a"'),
    ],
)
def test_what_the_type_or_shape_does_not_allow_is_refused(
    datatype: str, shape: tuple[int, ...], text: bytes
) -> None:
    with pytest.raises(HybridgeError) as refusal:
        from_json("input 'x'", datatype, shape, text)
    assert refusal.value.code is ErrorCode.INPUT_INVALID
    assert len(refusal.value.message) < 1000


def test_no_damage_to_a_text_does_more_than_be_refused() -> None:
    chance = random.Random(8)
    texts = (
        b"[[1.5, -2], [3e4, 4]]",
        b"[1, 2, 3, 4]",
        b'[["a", "b"], ["c", "\\u00e9"]]',
        b"[true, false, true, true]",
    )
    for _ in range(ROUNDS * 5):
        text = bytearray(chance.choice(texts))
        for _ in range(chance.randrange(1, 4)):
            text[chance.randrange(len(text))] = chance.choice(b'[],"\\ 0e-.a\xff')
        datatype, shape = chance.choice(list(DTYPES)), chance.choice(((2, 2), (4,), (1, 4), ()))
        try:
            array = from_json("x", datatype, shape, bytes(text))
        except HybridgeError as error:
            assert error.code is ErrorCode.INPUT_INVALID  # noqa: PT017 - most are refused, and some are not
        else:
            assert array.shape == shape


def test_strings_that_are_no_text_are_refused_with_the_way_to_get_them() -> None:
    for array in (np.array([b"\xff"], object), np.array([1], object)):
        with pytest.raises(HybridgeError, match="binary_data"):
            to_json("output 'y'", array)
