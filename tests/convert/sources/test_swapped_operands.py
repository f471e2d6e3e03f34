from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convert.sources.export import export_function
from edge_runtime.model import Model
from edge_runtime.tensor_spec import TensorSpec


@pytest.fixture(scope="module")
def tf() -> Any:
    import tensorflow

    return tensorflow


CASES: dict[str, Callable[[Any, Any], Any]] = {
    "a constant less a transposed tensor": lambda tf, x: 1.0 - tf.transpose(x),
    "the reciprocal of a transposed tensor": lambda tf, x: 1.0 / tf.transpose(x),
    "with an activation between": lambda tf, x: 2.0 - tf.sigmoid(tf.transpose(x)),
    "a sum with a negative": lambda tf, x: 3.0 + tf.negative(tf.transpose(x)),
    "transposed on both sides": lambda tf, x: tf.transpose(1.0 - tf.transpose(x)),
    "nothing to keep": lambda tf, x: tf.transpose(x) - 1.0,
}


@pytest.mark.parametrize("case", CASES)
def test_differences_and_quotients_of_transposed_tensors_keep_their_order(case: str, tf: Any) -> None:
    def call(tensors: Any) -> dict[str, Any]:
        return {"y": CASES[case](tf, tensors["x"])}

    x = np.random.default_rng(0).uniform(0.5, 2.0, (3, 4)).astype(np.float32)
    content = export_function(call, (TensorSpec("x", (3, 4), "float32"),), ("y",), "model")
    np.testing.assert_allclose(Model(content).run({"x": x})["y"], CASES[case](tf, x), rtol=1e-5)


def test_infinite_constants_stay_infinite(tf: Any) -> None:
    def call(tensors: Any) -> dict[str, Any]:
        return {"y": tf.where(tensors["x"] > 0, tensors["x"], tf.constant(-np.inf))}

    content = export_function(call, (TensorSpec("x", (4,), "float32"),), ("y",), "model")
    x = np.array([1, -1, 2, -2], np.float32)
    np.testing.assert_array_equal(Model(content).run({"x": x})["y"], [1, -np.inf, 2, -np.inf])
