from __future__ import annotations

import pytest

from convert.sources import freed, parse_input, pinned
from edge_runtime.tensor_spec import TensorSpec
from tests.convert.sources.conftest import refusal

IMAGE = TensorSpec(name="image", shape=("batch", "dim1", "dim2", 3), dtype="float32")
VECTOR = TensorSpec(name="vector", shape=("batch", 4), dtype="float32")
FIXED = TensorSpec(name="fixed", shape=(2, 4), dtype="float32")


def test_a_flag_gives_name_and_shape() -> None:
    assert parse_input("image:1,224,224,3") == ("image", (1, 224, 224, 3))
    assert parse_input("serving:0:1, 4") == ("serving:0", (1, 4))


@pytest.mark.parametrize(
    "text", ["image", "image:", ":1,2", "image:1,x", "image:1,0", "image:1,-1", "image:1,,2", "x:1,w=0", ""]
)
def test_a_flag_that_is_no_shape_is_refused(text: str) -> None:
    code, message = refusal(lambda: parse_input(text))
    assert code == "usage"
    assert f"'{text}'" in message


def test_given_shapes_fix_what_is_free_and_the_batch_of_the_others() -> None:
    shapes = [spec.shape for spec in pinned((IMAGE, VECTOR), 1, "m", {"image": (5, 32, 48, 3)})]
    assert shapes == [(5, 32, 48, 3), (5, 4)]
    assert pinned((VECTOR,), 7, "m")[0].shape == (7, 4)
    assert pinned((FIXED,), 2, "m")[0].shape == (2, 4)


def test_inputs_that_share_no_first_dimension_have_no_batch() -> None:
    wave = TensorSpec("wave", ("batch", "samples"), "float32")
    state = TensorSpec("state", (2, "batch", 128), "float32")
    rate = TensorSpec("rate", (), "int64")
    fixed = pinned((wave, state, rate), 1, "m", {"wave": (1, 512)})
    assert [spec.shape for spec in fixed] == [(1, 512), (2, 1, 128), ()]


def test_a_dimension_of_one_name_has_one_size_in_all_inputs() -> None:
    tokens, mask = (TensorSpec(name, ("batch", "length"), "int64") for name in ("tokens", "mask"))
    assert pinned((tokens, mask), 1, "m", {"tokens": (1, 16)})[1].shape == (1, 16)
    code, message = refusal(lambda: pinned((tokens, mask), 1, "m", {"tokens": (1, 16), "mask": (1, 8)}))
    assert code == "usage"
    assert "8, 16 for its dimension 'length'" in message


def test_a_dimension_can_stay_free_under_a_name() -> None:
    tokens, mask = (TensorSpec(name, ("batch", "length"), "int64") for name in ("tokens", "mask"))
    shapes = dict([parse_input("tokens:1,words=16")])
    fixed = pinned((tokens, mask), 1, "m", shapes)
    assert [spec.shape for spec in fixed] == [(1, 16), (1, 16)]
    assert [spec.shape for spec in freed((tokens, mask), fixed, shapes)] == [(1, "words"), (1, "words")]


@pytest.mark.parametrize(
    ("inputs", "batch_size", "shapes", "code", "words"),
    [
        ((IMAGE,), 1, {"picture": (1, 2, 2, 3)}, "usage", "'picture'"),
        ((IMAGE,), 1, {"image": (1, 2, 2, 4)}, "source-invalid", "expected (batch, dim1, dim2, 3)"),
        ((IMAGE,), 1, {"image": (1, 2, 3)}, "source-invalid", "received the shape (1, 2, 3)"),
        ((IMAGE,), 1, None, "source-invalid", "--input image:1,224,224,3"),
        ((IMAGE,), 4, {"image": (1, 2, 2, 3)}, "usage", "batches of 1, 4"),
        ((IMAGE, VECTOR), 1, {"image": (1, 2, 2, 3), "vector": (2, 4)}, "usage", "batches of 1, 2"),
        ((FIXED,), 1, None, "source-invalid", "--batch-size"),
        ((FIXED,), 1, {"fixed": (1, 4)}, "source-invalid", "expected (2, 4)"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(
    inputs: tuple[TensorSpec, ...],
    batch_size: int,
    shapes: dict[str, tuple[int, ...]] | None,
    code: str,
    words: str,
) -> None:
    received, message = refusal(lambda: pinned(inputs, batch_size, "m", shapes))
    assert received == code
    assert words in message
