"""Models of Keras 3 and of tf_keras, built again in tf_keras."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from convert.sources.source import Architecture
from convert.training.kernels import find_kernels
from convert.training.rebuilding import rebuild, rewired
from edge_runtime.errors import ErrorCode, HybridgeError

pytestmark = pytest.mark.tensorflow
Array = np.ndarray[Any, Any]


def _architecture(keras: Any, model: Any) -> Architecture:
    rng = np.random.default_rng(0)
    # Fresh weights are alike, and zeros hide a wrong order.
    model.set_weights(
        [
            weight + 0.1 * np.abs(rng.normal(size=weight.shape)).astype(weight.dtype)
            for weight in model.get_weights()
        ]
    )
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    return Architecture("keras", config, tuple(model.get_weights()))


def _assert_same(keras: Any, model: Any, *inputs: Array) -> None:
    architecture = _architecture(keras, model)
    given: Any = list(inputs) if len(inputs) > 1 else inputs[0]
    if isinstance(getattr(model, "_inputs_struct", None), dict):
        given = dict(zip(model._inputs_struct, inputs, strict=True))
    result = model(given, training=False)
    expected = list(result.values()) if isinstance(result, dict) else keras.tree.flatten(result)
    copy = rebuild(architecture, architecture.weights)
    for built in (copy.model, rewired(copy.model, lambda layer: layer)):
        received = built(list(inputs), training=False)
        received = received if isinstance(received, list) else [received]
        for one, other in zip(expected, received, strict=True):
            np.testing.assert_allclose(np.asarray(other), np.asarray(one), rtol=1e-4, atol=1e-5)
    for weight, own in zip(architecture.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(weight, own)


def _random(*shape: int) -> Array:
    return np.random.default_rng(1).random(shape).astype(np.float32)


def test_a_graph_with_operations_and_dictionaries_computes_the_same(keras: Any) -> None:
    layers, ops = keras.layers, keras.ops
    image, other = keras.Input((8, 8, 4), name="b"), keras.Input((6,), name="a")
    hidden = layers.Conv2D(4, 3, padding="same", activation="hard_sigmoid")(image)
    hidden = ops.relu(hidden + image * 2.0 - 0.5)
    hidden = layers.GlobalAveragePooling2D()(hidden)
    second = layers.Dense(4, activation="leaky_relu")(other)
    joined = ops.concatenate([hidden, second], axis=-1)[:, 1:]
    outputs = {"z": layers.Dense(2, activation="softmax")(joined), "y": second}
    _assert_same(keras, keras.Model({"b": image, "a": other}, outputs), _random(3, 8, 8, 4), _random(3, 6))


def test_attention_and_recurrent_layers_compute_the_same(keras: Any) -> None:
    layers = keras.layers
    sequence = keras.Input((5, 8))
    hidden = layers.LayerNormalization()(sequence + layers.MultiHeadAttention(2, 4)(sequence, sequence))
    hidden = layers.Bidirectional(layers.LSTM(3, return_sequences=True, dropout=0.3))(hidden)
    hidden = layers.TimeDistributed(layers.Dense(4))(hidden)
    hidden = layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_sequences=True)(hidden)
    _assert_same(keras, keras.Model(sequence, layers.GRU(5)(hidden)), _random(3, 5, 8))


def test_shared_and_nested_models_compute_the_same(keras: Any) -> None:
    layers = keras.layers
    base = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Rescaling(2.0, offset=-0.5),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.LeakyReLU(negative_slope=0.3),
            layers.SeparableConv2D(6, 3),
            layers.PReLU(shared_axes=[1, 2]),
            layers.Flatten(),
        ],
        name="base",
    )
    base.trainable = False
    start = keras.Input((96,))
    heads = keras.Model(start, [layers.Dense(3)(start), layers.Dense(2)(start)], name="heads")
    left, right = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    first, second = heads(layers.Subtract()([base(left, training=False), base(right)]))
    model = keras.Model([left, right], [layers.Concatenate()([first, second]), second])
    _assert_same(keras, model, _random(3, 8, 8, 3), _random(3, 8, 8, 3))


def test_branches_whose_order_differs_between_the_libraries_keep_their_weights(keras: Any) -> None:
    layers = keras.layers
    image = keras.Input((6, 6, 2))
    one, two = layers.Conv2D(3, 3, name="z")(image), layers.Conv2D(3, 3, name="a")(image)
    joined = layers.Conv2D(3, 3)(layers.Concatenate()([two, one]))
    model = keras.Model(image, [layers.Average()([layers.Conv2D(3, 3)(one), joined]), two])
    _assert_same(keras, model, _random(3, 6, 6, 2))


def test_a_fixed_batch_and_noise_are_left_behind(keras: Any) -> None:
    layers = keras.layers
    image = keras.Input((8, 8, 3), batch_size=1)
    hidden = layers.GaussianNoise(0.5)(layers.RandomFlip()(image))
    model = keras.Model(image, layers.Dropout(0.5)(layers.Conv2D(4, 3)(hidden)))
    architecture = _architecture(keras, model)
    copy = rebuild(architecture, architecture.weights).model
    images = _random(5, 8, 8, 3)
    np.testing.assert_array_equal(copy(images, training=True), copy(images, training=False))


def test_layers_that_cannot_be_carried_are_named_at_once(keras: Any) -> None:
    class Own(keras.layers.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return inputs

    layers = keras.layers
    hidden = start = keras.Input((4,))
    for layer in (Own(name="mine"), layers.RMSNormalization(name="rms"), layers.Dense(3, name="fine")):
        hidden = layer(hidden)
    inner = keras.Sequential(
        [keras.Input((3,)), layers.Lambda(lambda values: values, name="odd")], name="inner"
    )
    model = keras.Model(start, keras.ops.cumsum(inner(hidden), axis=-1))
    architecture = _architecture(keras, model)
    with pytest.raises(HybridgeError) as caught:
        rebuild(architecture, architecture.weights)
    assert caught.value.code is ErrorCode.TRAINING_FAILED
    for named in ("'mine' (Own", "'rms' (RMSNormalization", "'inner/odd' (Lambda", "Cumsum"):
        assert named in caught.value.received
    assert "fine" not in caught.value.received


def test_a_model_of_tf_keras_is_rebuilt_and_trainable(keras: Any) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    layers = tf_keras.layers
    base = tf_keras.Sequential(
        [layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(), layers.Dropout(0.5)]
    )
    base.trainable = False
    image = tf_keras.Input((6, 6, 1), batch_size=1)
    model = tf_keras.Model(image, layers.Flatten()(base(image, training=False)))
    architecture = Architecture("tf_keras", json.loads(model.to_json()), tuple(model.get_weights()))
    copy = rebuild(architecture, architecture.weights)
    assert {each.name for each in copy.model.trainable_variables} >= {"conv/kernel:0", "conv/bias:0"}
    images = _random(1, 6, 6, 1)
    np.testing.assert_allclose(copy.model(images), model(images), rtol=1e-5, atol=1e-6)


def test_kernels_to_treat_are_chosen_with_reasons_for_the_rest(keras: Any) -> None:
    layers = keras.layers
    image = keras.Input((8, 8, 3))
    hidden = layers.Conv2D(64, 3, name="three")(image)
    hidden = layers.DepthwiseConv2D(3, name="depth")(hidden)
    hidden = layers.Conv2D(64, 1, name="point")(hidden)
    hidden = layers.Dense(4, name="small")(layers.Flatten()(layers.GlobalAveragePooling2D()(hidden)))
    architecture = _architecture(keras, keras.Model(image, layers.Dense(300, name="kept")(hidden)))
    copy = rebuild(architecture, architecture.weights)
    plain = find_kernels(copy, "prune", skip=("^kept",))
    assert set(plain.places.values()) == {"three", "point"}
    assert plain.skipped == {
        "depth": "DepthwiseConv2D is not treated by prune",
        "small": "only 256 weights",
        "kept": "named by skip",
    }
    structured = find_kernels(copy, "prune", structured=True)
    assert structured.skipped["three"] == "3 inputs, which are no fours"
    assert set(find_kernels(copy, "qat").places.values()) == {"three", "depth", "point", "small", "kept"}


def test_four_bits_are_for_dense_kernels_as_in_the_conversion() -> None:
    import tensorflow as tf

    from convert.training.rounding_config import rounded

    random = np.random.default_rng(0)
    for shape, bits, most in (((64, 8), 4, 15), ((64, 8), 8, 255), ((3, 3, 8, 8), 4, 255)):
        kernel = random.normal(size=shape).astype(np.float32)
        made = rounded(tf.constant(kernel), "kernel", bits).numpy()
        channel = made.reshape(-1, shape[-1])[:, 0]
        assert (5 if bits == 4 and most == 15 else 15) < len(np.unique(channel)) <= most
        np.testing.assert_allclose(made, kernel, atol=np.abs(kernel).max() / (most // 2))
