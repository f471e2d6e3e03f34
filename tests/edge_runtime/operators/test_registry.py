from __future__ import annotations

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.operators import Operator, find_operator, operator, operator_names
from edge_runtime.tensor_spec import Array
from tests.edge_runtime.operators.running import run


def test_the_operators_that_the_issue_asks_for_exist() -> None:
    assert set(operator_names()) >= {
        "decode", "encode", "resize", "letterbox", "resize-to-stride", "crop", "crop-boxes", "crop-quads", "warp",
        "pad-to-width", "rotate", "rotate-by-class", "convert-color", "draw-boxes", "draw-quads", "draw-points",
        "draw-labels", "decode-anchors", "non-max-suppression", "non-max-suppression-by-class", "weighted-suppression",
        "rotated-regions", "points-from-quads", "transform-points", "transform-boxes", "quads-from-boxes", "text-boxes",
        "ctc-decode", "labels", "phrase-lookup", "join-text", "split-text", "tokenize", "frame", "log-mel", "mfcc",
        "scale", "normalize", "cast", "reshape", "expand-dims", "squeeze", "transpose", "softmax", "argmax", "top-k",
        "concat", "concat-items", "stack", "split", "take", "take-items", "count",
    }  # fmt: skip


def test_whatever_an_operator_raises_is_one_error_that_says_on_what() -> None:
    @operator("test-raises")
    def raises(x: Array) -> Array:
        raise KeyError("surprise")

    with pytest.raises(HybridgeError) as caught:
        run("test-raises", np.zeros((2, 2), np.int16))
    assert caught.value.code is ErrorCode.OPERATOR_FAILED
    assert "surprise" in caught.value.message
    assert "int16(2, 2)" in caught.value.message


def test_an_operator_cannot_take_the_name_of_another() -> None:
    with pytest.raises(HybridgeError) as caught:

        @operator("scale")
        def scale(x: Array) -> Array:
            return x

    assert caught.value.code is ErrorCode.CHAIN_INVALID
    assert isinstance(find_operator("scale"), Operator)
    assert find_operator("scale").function.__module__ == "edge_runtime.operators.tensor"


def test_an_unknown_operator_lists_those_there_are() -> None:
    with pytest.raises(HybridgeError) as caught:
        find_operator("rezise")
    assert caught.value.code is ErrorCode.OPERATOR_UNKNOWN
    assert "resize" in caught.value.message
