"""Float `.tflite` files of small models with random weights, made once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from convert.quantization import Ranges, calibrate
from edge_runtime.model import Model
from edge_runtime.tensor_spec import TensorSpec

Array = np.ndarray[Any, Any]
Outputs = dict[str, Array]


@dataclass(frozen=True)
class FloatModel:
    """A float `.tflite` with samples of its input, and the ranges of its tensors over them."""

    content: bytes
    samples: tuple[dict[str, Array], ...]
    ranges: Ranges

    def outputs(self, content: bytes | None = None, count: int = 20) -> Outputs:
        """What the file, or this one, makes of the first samples."""
        return run(content or self.content, self.samples[:count])


def run(content: bytes, samples: tuple[dict[str, Array], ...]) -> Outputs:
    model = Model(content)
    runs = [model.run(sample) for sample in samples]
    return {name: np.concatenate([each[name] for each in runs]) for name in runs[0]}


def snr_db(expected: Outputs, received: Outputs) -> float:
    """Of the worst output."""
    assert list(expected) == list(received)
    return min(
        float(10 * np.log10(np.square(values).sum() / max(np.square(received[name] - values).sum(), 1e-12)))
        for name, values in expected.items()
    )


def to_tflite(model: Any, outputs: tuple[str, ...]) -> bytes:
    """The model with a signature that names inputs as the model does and outputs as given."""
    import keras
    import tensorflow as tf

    def call(*arrays: Any) -> dict[str, Any]:
        made = model(arrays[0] if len(arrays) == 1 else list(arrays), training=False)
        return dict(zip(outputs, made if isinstance(made, list | tuple) else (made,), strict=True))

    specs = [tf.TensorSpec((1, *each.shape[1:]), each.dtype, name=each.name) for each in model.inputs]
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", call, input_signature=specs)
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        return bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())


def prepared(model: Any, outputs: tuple[str, ...], *, count: int = 40) -> FloatModel:
    content = to_tflite(model, outputs)
    random = np.random.default_rng(0)
    samples = tuple(
        {
            spec.name: random.normal(size=_shape(spec)).astype(np.float32)
            if spec.dtype == "float32"
            else random.integers(0, 20, _shape(spec)).astype(spec.dtype)
            for spec in Model(content).inputs
        }
        for _ in range(count)
    )
    return FloatModel(content, samples, calibrate(content, samples))


def _shape(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(int(each) for each in spec.shape)


@pytest.fixture(scope="session")
def convolutional(keras: Any) -> FloatModel:
    """Every kind of convolution, dense layers of a width that 32 divides, and two outputs out of alphabetical order."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((12, 12, 3), name="image")
    hidden = layers.Conv2D(32, 3, padding="same", activation="relu", name="stem")(image)
    hidden = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(hidden)
    hidden = layers.Conv2D(16, 1, activation="relu", name="pointwise")(hidden)
    hidden = layers.Conv2DTranspose(4, 2, strides=2, name="upsample")(hidden)
    hidden = layers.Flatten()(hidden)
    hidden = layers.Dense(64, activation="relu", name="hidden")(hidden)
    model = keras.Model(image, [layers.Dense(5, name="zeta")(hidden), layers.Dense(3, name="alpha")(hidden)])
    return prepared(model, ("zeta", "alpha"))


@pytest.fixture(scope="session")
def recurrent(keras: Any) -> FloatModel:
    """A loop, and dense layers after it."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    sequence = keras.Input((6, 4), name="sequence")
    hidden = layers.Dense(8, activation="relu", name="middle")(layers.LSTM(8, name="memory")(sequence))
    return prepared(keras.Model(sequence, layers.Dense(3, name="head")(hidden)), ("scores",))


@pytest.fixture(scope="session")
def attentive(keras: Any) -> FloatModel:
    """Embeddings, attention, and operators that have no int8 kernel."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    tokens = keras.Input((10,), name="tokens", dtype="int32")
    hidden = layers.Embedding(20, 16, name="table")(tokens)
    hidden = layers.LayerNormalization()(hidden + layers.MultiHeadAttention(2, 8)(hidden, hidden))
    hidden = layers.GlobalAveragePooling1D()(layers.Dense(32, activation="gelu")(hidden))
    model = keras.Model(tokens, layers.Dense(3, activation="softmax", name="head")(hidden))
    return prepared(model, ("scores",))


@pytest.fixture(scope="session")
def with_weights(keras: Any) -> Callable[[Callable[[Array], Array]], FloatModel]:
    """Makes a model of a convolution and two dense layers whose kernels a function has changed."""

    def make(change: Callable[[Array], Array]) -> FloatModel:
        keras.utils.set_random_seed(0)
        layers = keras.layers
        image = keras.Input((10, 10, 8), name="image")
        hidden = layers.Conv2D(32, 3, activation="relu", name="conv")(image)
        hidden = layers.Dense(64, activation="relu", name="wide")(layers.Flatten()(hidden))
        model = keras.Model(image, layers.Dense(10, name="head")(hidden))
        for layer in model.layers:
            if layer.weights:
                kernel, bias = layer.get_weights()
                layer.set_weights([change(kernel).astype(np.float32), bias])
        return prepared(model, ("scores",))

    return make


@pytest.fixture(scope="session")
def pruned(with_weights: Callable[[Callable[[Array], Array]], FloatModel]) -> FloatModel:
    """Four fifths of all weights are zero."""
    return with_weights(lambda kernel: kernel * (np.abs(kernel) > np.quantile(np.abs(kernel), 0.8)))


@pytest.fixture(scope="session")
def clustered(with_weights: Callable[[Callable[[Array], Array]], FloatModel]) -> FloatModel:
    """Every kernel has at most sixteen distinct weights."""

    def cluster(kernel: Array) -> Array:
        centres = np.quantile(kernel, np.linspace(0, 1, 16))
        nearest: Array = centres[np.abs(kernel[..., np.newaxis] - centres).argmin(-1)]
        return nearest

    return with_weights(cluster)
