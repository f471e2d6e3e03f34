"""Channels of like ranges: the float model stays what it was, and int8 loses less."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convert.quantization import calibrate, equalized, quantize
from convert.recipes import Method, Precision, Quantization, find_recipe
from tests.convert.quantization.conftest import Array, FloatModel, prepared, run, snr_db

pytestmark = pytest.mark.tensorflow

_INT8 = Quantization(precision=Precision.INT8, method=Method.MIN_MAX)


def _uneven(model: Any) -> Any:
    """The model with the outputs of each layer up to thirty times as wide as others, and some of them dead."""
    random = np.random.default_rng(1)
    for layer in model.layers:
        weights = layer.get_weights()
        if len(weights) < 2 or layer.name.startswith("head"):
            continue
        axis = 2 if layer.__class__.__name__ in ("DepthwiseConv2D", "Conv2DTranspose") else -1
        shape = [1] * weights[0].ndim
        shape[axis] = weights[0].shape[axis]
        factors = np.exp(random.uniform(-1.7, 1.7, shape))
        if layer.name == "dead":
            factors.reshape(-1)[:3] = 0.0
        layer.set_weights([weights[0] * factors, weights[1] * factors.reshape(weights[1].shape) + 0.1])
    return model


@pytest.fixture(scope="module")
def uneven(keras: Any) -> FloatModel:
    """Every operator that channels pass through: sums, pools, joins, padding, flattening, a mean, a slope."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    image = keras.Input((12, 12, 3), name="image")
    stem = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(image)
    deep = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=1, name="depthwise")(stem)
    deep = layers.Conv2D(16, 1, name="dead")(deep)
    joined = layers.ReLU()(layers.Add()([stem, deep]))
    pooled = layers.MaxPooling2D()(layers.ZeroPadding2D(2)(joined))
    pooled = layers.PReLU(shared_axes=[1, 2], alpha_initializer=keras.initializers.Constant(0.2))(
        layers.Conv2D(8, 3, name="before-slope")(pooled)
    )
    wide = layers.Concatenate()([pooled, layers.Conv2D(12, 1, activation="relu6", name="capped")(pooled)])
    mean = layers.GlobalAveragePooling2D()(wide)
    flat = layers.Flatten()(layers.Conv2DTranspose(4, 2, strides=2, activation="relu", name="up")(wide))
    hidden = layers.Dense(24, activation="relu", name="hidden")(flat)
    outputs = [layers.Dense(5, name="head-zeta")(hidden), layers.Dense(3, name="head-alpha")(mean)]
    return prepared(_uneven(keras.Model(image, outputs)), ("zeta", "alpha"))


def test_the_float_model_computes_the_same(uneven: FloatModel) -> None:
    changed = equalized(uneven.content, uneven.samples)
    assert changed != uneven.content
    assert snr_db(uneven.outputs(), uneven.outputs(changed)) > 90


def test_int8_loses_less_where_channels_differ_for_no_reason(keras: Any) -> None:
    keras.utils.set_random_seed(0)
    layers, random = keras.layers, np.random.default_rng(2)
    image = keras.Input((8, 8, 3), name="image")
    first = layers.Conv2D(16, 3, activation="relu", name="first")
    second = layers.Conv2D(16, 3, activation="relu", name="second")
    hidden = layers.Flatten()(second(first(image)))
    model = keras.Model(image, layers.Dense(4, name="head")(hidden))
    # What the first layer gives, the second takes back: the model computes what it did.
    factors = np.exp(random.uniform(-2, 2, 16))
    kernel, bias = first.get_weights()
    first.set_weights([kernel * factors, bias * factors])
    kernel, bias = second.get_weights()
    second.set_weights([kernel / factors[:, np.newaxis], bias])
    made = prepared(model, ("scores",))
    changed = equalized(made.content, made.samples)
    plain = quantize(made.content, _INT8, made.ranges)
    better = quantize(changed, _INT8, calibrate(changed, made.samples))
    assert snr_db(made.outputs(), made.outputs(better)) > snr_db(made.outputs(), made.outputs(plain)) + 5


def test_a_channel_that_no_sample_used_keeps_its_room(keras: Any) -> None:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((8, 8, 3), name="image")
    first = layers.Conv2D(8, 3, activation="relu", name="first")
    hidden = layers.Flatten()(layers.Conv2D(4, 3, name="second")(first(image)))
    model = _uneven(keras.Model(image, layers.Dense(4, name="head")(hidden)))
    kernel, bias = first.get_weights()
    bias[2] = -1000.0
    first.set_weights([kernel, bias])
    made = prepared(model, ("scores",))
    before, after = (
        _first_kernel(content) for content in (made.content, equalized(made.content, made.samples))
    )
    changed = [not np.array_equal(one, other) for one, other in zip(before, after, strict=True)]
    assert changed == [channel != 2 for channel in range(8)]


def test_names_order_and_size_stay(uneven: FloatModel) -> None:
    from edge_runtime.model import Model

    before, after = Model(uneven.content), Model(equalized(uneven.content, uneven.samples))
    assert (before.inputs, before.outputs) == (after.inputs, after.outputs)
    assert abs(len(equalized(uneven.content, uneven.samples)) - len(uneven.content)) < 2048


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu6", "gelu", "elu"])
def test_channels_stay_where_an_activation_is_not_a_straight_line(keras: Any, activation: str) -> None:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((8, 8, 3), name="image")
    hidden = layers.Conv2D(8, 3, activation=activation, name="conv")(image)
    hidden = layers.Conv2D(8, 3, activation="relu", name="next")(hidden)
    model = _uneven(keras.Model(image, layers.Dense(4, name="head")(layers.Flatten()(hidden))))
    made = prepared(model, ("scores",))
    changed = equalized(made.content, made.samples)
    assert changed != made.content  # what comes after can still be changed
    assert snr_db(made.outputs(), made.outputs(changed)) > 90


def test_a_layer_used_twice_is_left_alone(keras: Any) -> None:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    vector = keras.Input((16,), name="vector")
    shared = layers.Dense(16, activation="relu", name="shared")
    hidden = layers.Dense(16, activation="relu", name="between")(shared(vector))
    model = _uneven(keras.Model(vector, layers.Dense(4, name="head")(shared(hidden))))
    made = prepared(model, ("scores",))
    assert snr_db(made.outputs(), made.outputs(equalized(made.content, made.samples))) > 90


def test_models_with_loops_and_attention_compute_the_same(
    recurrent: FloatModel, attentive: FloatModel
) -> None:
    for model in (recurrent, attentive):
        assert snr_db(model.outputs(), model.outputs(equalized(model.content, model.samples))) > 90


def test_equalising_twice_gives_the_same_bytes(uneven: FloatModel) -> None:
    assert equalized(uneven.content, uneven.samples) == equalized(uneven.content, uneven.samples)


@pytest.mark.parametrize(
    ("recipe", "equalizes"),
    [
        ("int8", True),
        ("int16x8", True),
        ("prune+int8", True),
        ("dynamic-int8", False),
        ("float32", False),
        # Factors for each channel would make other values of those that were shared, and other steps of those trained.
        ("cluster+int8", False),
        ("qat", False),
        ("prune+cluster+qat", False),
    ],
)
def test_which_recipes_equalise(recipe: str, equalizes: bool) -> None:
    assert find_recipe(recipe).quantization.equalizes is equalizes


def test_gptq_keeps_what_was_pruned(pruned: FloatModel) -> None:
    content = quantize(
        pruned.content, Quantization(precision=Precision.INT8, method=Method.GPTQ), pruned.ranges
    )
    plain = quantize(pruned.content, _INT8, pruned.ranges)
    assert _zeros(content) >= _zeros(plain)
    assert snr_db(pruned.outputs(count=40), run(content, pruned.samples)) > 30


def test_clustered_weights_keep_their_few_values(clustered: FloatModel) -> None:
    for values in _weights(
        quantize(clustered.content, Quantization(precision=Precision.INT8), clustered.ranges)
    ):
        assert np.unique(values).size <= 16


def _first_kernel(content: bytes) -> Array:
    from convert.quantization.packing import unpack

    model = unpack(content)
    graph = model.subgraphs[0]
    weight = graph.tensors[graph.operators[0].inputs[1]]
    return np.frombuffer(bytes(model.buffers[weight.buffer].data), np.float32).reshape(8, 3, 3, 3)


def _weights(content: bytes) -> list[Array]:
    from convert.quantization.packing import unpack

    model = unpack(content)
    return [
        np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int8)
        for tensor in model.subgraphs[0].tensors
        if tensor.type == 9 and model.buffers[tensor.buffer].data is not None and len(tensor.shape) > 1
    ]


def _zeros(content: bytes) -> int:
    return sum(int((values == 0).sum()) for values in _weights(content))
