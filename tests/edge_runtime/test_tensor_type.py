from __future__ import annotations

import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Quantization, TensorSpec
from edge_runtime.tensor_type import ANYTHING, Bindings, TensorType


@pytest.mark.parametrize(
    ("text", "dtype", "shape", "items"),
    [
        ("uint8[height, width, 3]", "uint8", ("height", "width", 3), False),
        ("T[...]", "T", ("...",), False),
        ("T[n, ..., 4]*", "T", ("n", "...", 4), True),
        ("uint8|float32[n]", "uint8|float32", ("n",), False),
        ("text[]", "text", (), False),
        ("text[ ]*", "text", (), True),
        ("bool[1]", "bool", (1,), False),
        ("bytes[n]", "bytes", ("n",), False),
        ("int64[_a1,b_2]", "int64", ("_a1", "b_2"), False),
    ],
)
def test_types_are_read_as_they_are_written(
    text: str, dtype: str, shape: tuple[int | str, ...], items: bool
) -> None:
    parsed = TensorType.parse(text)
    assert parsed == TensorType(dtype, shape, items)
    assert TensorType.parse(str(parsed)) == parsed


def test_an_empty_type_is_anything() -> None:
    assert TensorType.parse("") is ANYTHING
    assert str(ANYTHING) == "anything"


@pytest.mark.parametrize(
    "text",
    [
        "uint8", "uint8[", "uint8]", "[3]", "uint8[3]]", "uint8[3] ", "uint8[3]**", "uint8[-1]", "uint8[1.5]",
        "uint8[Height]", "uint8[3 3]", "uint8[3,]", "uint8[,]", "uint8[a,,b]", "uint8[..., ...]", "uint8[....]",
        "unit8[3]", "float[3]", "f4[3]", "f[3]", "uint8|[3]", "|[3]", "uint8||int8[3]", "T|uint8[3]", "TT[3]",
        "uint8[3]\n", "string[1]", " ", "a b[3]", "uint8[3];", "U5[3]",
    ],
)  # fmt: skip
def test_what_is_no_type_is_refused(text: str) -> None:
    with pytest.raises(HybridgeError, match="tensor type") as caught:
        TensorType.parse(text)
    assert caught.value.code is ErrorCode.CHAIN_INVALID
    assert repr(text)[1:-1] in caught.value.message or text in caught.value.message


@pytest.mark.parametrize(
    ("declared", "given", "meets"),
    [
        ("uint8[h, w, 3]", "uint8[4, 5, 3]", True),
        ("uint8[h, w, 3]", "uint8[4, 5, 1]", False),
        ("uint8[h, w, 3]", "uint8[4, 5]", False),
        ("uint8[h, w, 3]", "float32[4, 5, 3]", False),
        ("uint8|float32[n]", "float32[3]", True),
        ("uint8|float32[n]", "int8|float32[3]", True),
        ("uint8|float32[n]", "int8[3]", False),
        ("T[n]", "text[3]", True),
        ("text[n]", "uint8[3]", False),
        ("T[...]", "uint8[]", True),
        ("T[..., 4]", "uint8[4]", True),
        ("T[..., 4]", "uint8[2, 3, 4]", True),
        ("T[..., 4]", "uint8[2, 3]", False),
        ("T[n, ..., 4]", "uint8[4]", False),
        ("T[n, ..., 4]", "uint8[9, 4]", True),
        ("float32[n, n]", "float32[3, 3]", True),
        ("float32[n, n]", "float32[3, 4]", False),
        # What is not known yet may be right.
        ("float32[n, 4]", "float32[batch, dim1]", True),
        ("float32[n, 4]", "float32[...]", True),
        ("float32[n, 4]", "T[n, 4]", True),
        ("float32[3]", "float32[n]", True),
        # Items.
        ("T[h, w]*", "uint8[3, 4]*", True),
        ("T[h, w]*", "uint8[3, 4]", False),
        ("T[h, w]", "uint8[3, 4]*", False),
        ("T[h, h]*", "uint8[3, 4]*", True),
        ("T[h, 3]*", "uint8[3, 4]*", False),
    ],
)
def test_a_tensor_is_held_against_what_is_declared(declared: str, given: str, meets: bool) -> None:
    why = Bindings().mismatch(TensorType.parse(declared), TensorType.parse(given))
    assert (why is None) == meets, why
    if why is not None:
        assert given in why


def test_anything_meets_everything() -> None:
    for text in ("uint8[3]", "T[...]*", "text[]"):
        assert Bindings().mismatch(ANYTHING, TensorType.parse(text)) is None
        assert Bindings().mismatch(TensorType.parse(text), ANYTHING) is None


def test_letters_and_names_stand_for_the_same_wherever_they_occur() -> None:
    bindings = Bindings()
    assert bindings.mismatch(TensorType.parse("T[n, 4]"), TensorType.parse("uint8[7, 4]")) is None
    assert bindings.mismatch(TensorType.parse("T[n]"), TensorType.parse("uint8[7]")) is None
    for other, expected in (("uint8[8]", "uint8[7]"), ("int8[7]", "uint8[7]")):
        why = bindings.mismatch(TensorType.parse("T[n]"), TensorType.parse(other))
        assert why is not None
        assert f"{other}, expected {expected}" in why
    assert str(bindings.resolve(TensorType.parse("T[n, m, 2]"))) == "uint8[7, m, 2]"
    assert str(bindings.resolve(TensorType.parse("S[m]*"))) == "any[m]*"


def test_names_of_items_say_nothing_of_each_other() -> None:
    bindings = Bindings()
    assert bindings.mismatch(TensorType.parse("T[h, w]*"), TensorType.parse("uint8[3, 4]*")) is None
    assert bindings.mismatch(TensorType.parse("T[h]"), TensorType.parse("uint8[9]")) is None


def test_a_setting_s_name_is_its_value() -> None:
    bindings = Bindings({"height": 5, "k": -1, "name": "x", "flag": True})
    assert str(bindings.resolve(TensorType.parse("T[height, k, name, flag]"))) == "any[5, k, name, flag]"
    assert bindings.mismatch(TensorType.parse("T[height]"), TensorType.parse("uint8[6]")) is not None
    assert bindings.mismatch(TensorType.parse("T[k]"), TensorType.parse("uint8[6]")) is None


def test_the_rest_is_what_the_dots_stood_for() -> None:
    bindings = Bindings()
    assert bindings.mismatch(TensorType.parse("T[..., c]"), TensorType.parse("uint8[2, 3, 4]")) is None
    assert str(bindings.resolve(TensorType.parse("float32[..., k]"))) == "float32[2, 3, k]"


def test_an_item_of_a_type() -> None:
    assert str(TensorType.parse("uint8[n, 4]").item()) == "uint8[4]"
    assert str(TensorType.parse("uint8[h, w]*").item()) == "uint8[h, w]"
    assert TensorType.parse("uint8[..., 4]").item().shape is None
    assert ANYTHING.item() == TensorType(items=False)


def test_a_quantised_tensor_takes_real_values_too() -> None:
    spec = TensorSpec("x", (1, "dim1"), "int8", Quantization((0.5,), (3,)))
    assert str(TensorType.from_spec(spec)) == "int8|float32[1, dim1]"
    assert str(TensorType.from_spec(TensorSpec("x", (2,), "string"))) == "bytes[2]"
