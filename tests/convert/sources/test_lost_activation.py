"""The converter's fault that drops an activation without a word: here it is, and here it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.sources import open_source
from convert.sources.lost_activation import has_suspects
from edge_runtime import Model
from tests.convert.sources.conftest import export_refusal, exported, refusal
from tests.convert.sources.test_saved_model_source import saved

pytestmark = pytest.mark.tensorflow

KERNEL = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def bare_conversion(folder: Path) -> bytes:
    import tensorflow as tf

    content: bytes = tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert()
    return content


def product(activation: Any, bias: Any = None) -> Any:
    def call(left: Any, right: Any) -> Any:
        import tensorflow as tf

        made = tf.matmul(left, right)
        return {"y": activation(made if bias is None else made + bias)}

    return call


def test_the_converter_alone_loses_the_activation_of_two_computed_matrices(tmp_path: Path) -> None:
    import tensorflow as tf

    specs = tf.TensorSpec((2, 4), name="left"), tf.TensorSpec((4, 3), name="right")
    content = bare_conversion(saved(tmp_path, product(tf.nn.relu), *specs))
    left = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    received = Model(content).run({"left": left, "right": KERNEL})["y"]
    # Should this fail, the fault is gone, and what guards against it can go too.
    np.testing.assert_allclose(received, left @ KERNEL, atol=1e-6)
    assert received.min() < 0
    assert has_suspects(content)


def test_the_converter_alone_loses_it_with_a_weight_that_the_signature_assigns(tmp_path: Path) -> None:
    import tensorflow as tf

    weight = tf.Variable(KERNEL)

    def call(x: Any) -> Any:
        made = tf.nn.relu(tf.nn.bias_add(x @ weight, tf.zeros(3)))
        weight.assign(weight * 1.0)
        return {"y": made}

    folder = saved(tmp_path, call, tf.TensorSpec((1, 4), name="x"), weight=weight)
    assert has_suspects(bare_conversion(folder))
    code, message = export_refusal(open_source(folder))
    assert code == "source-invalid"
    assert "changes its variables" in message


@pytest.mark.parametrize("kind", ["relu", "relu6", "maximum", "zero bias", "transposed"])
def test_products_of_computed_matrices_keep_their_activation(tmp_path: Path, kind: str) -> None:
    import tensorflow as tf

    call = {
        "relu": product(tf.nn.relu),
        "relu6": product(tf.nn.relu6),
        "maximum": product(lambda x: tf.maximum(x, 0.0)),
        "zero bias": product(tf.nn.relu, np.zeros(4, np.float32)),
        "transposed": lambda left, right: {"y": tf.nn.relu(tf.matmul(left, right, transpose_a=True))},
    }[kind]
    specs = tf.TensorSpec((4, 4), name="left"), tf.TensorSpec((4, 4), name="right")
    source = open_source(saved(tmp_path, call, *specs))
    exported(source, inputs=["left", "right"], outputs=["y"], batch_size=4)


def test_a_keras_model_of_computed_matrices_keeps_its_activation_and_frozen_weights(library: Any) -> None:
    import tensorflow as tf

    class Similarity(library.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return tf.nn.relu(tf.matmul(x, tf.transpose(x) * 2.0 - tf.transpose(x[:, ::-1])))

    x = library.Input(batch_shape=(3, 4), name="x")
    hidden = library.layers.Dense(4, use_bias=False, activation="relu")(x)
    model = exported(
        open_source(library.Model(x, Similarity(name="y")(hidden))), inputs=["x"], outputs=["y"], batch_size=3
    )
    assert model.name == "model"


def test_products_without_an_activation_are_left_as_they_are(tmp_path: Path) -> None:
    import tensorflow as tf

    specs = tf.TensorSpec((4, 4), name="left"), tf.TensorSpec((4, 4), name="right")
    source = open_source(saved(tmp_path, product(tf.tanh), *specs))
    exported(source, inputs=["left", "right"], outputs=["y"], batch_size=4)


def test_a_product_that_cannot_be_written_otherwise_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    def call(left: Any, right: Any) -> Any:
        return {"y": tf.nn.relu(tf.einsum("ij,jk->ik", left, right))}

    specs = tf.TensorSpec((4, 4), name="left"), tf.TensorSpec((4, 4), name="right")
    source = open_source(saved(tmp_path, call, *specs))
    code, message = refusal(lambda: source.export(source.inputs))
    assert code == "conversion-failed"
    assert "whose relu the TFLite converter loses" in message
