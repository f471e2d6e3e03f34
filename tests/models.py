"""The small models that tests run: made by TensorFlow from fixed weights, so that every run has the same bytes."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["make_models"]


def make_models(folder: Path) -> None:
    """Writes the `.tflite` files that the fixture `models` names into `folder`."""
    for name, make in _MODELS.items():
        (folder / f"{name}.tflite").write_bytes(make())


def _classifier_weights() -> tuple[Any, Any]:
    rng = np.random.default_rng(7)
    kernel = rng.normal(0, 0.5, (3, 3, 1, 4)).astype(np.float32)
    return kernel, rng.normal(0, 0.5, (36, 10)).astype(np.float32)


def _classifier_module(*, batch: int | None = 1, fragile: bool = False) -> tuple[Any, Any]:
    import tensorflow as tf

    kernel, dense = map(tf.constant, _classifier_weights())
    module = tf.Module()

    def classify(image: Any) -> dict[str, Any]:
        hidden = tf.nn.relu(tf.nn.conv2d(image, kernel, strides=2, padding="VALID"))
        logits = tf.matmul(tf.reshape(hidden, [batch or -1, 36]), dense[:, :])
        if fragile:
            logits += 1e-30 * tf.sqrt(2.0 - tf.reduce_max(image))
        return {"logits": logits}

    module.serve = tf.function(
        classify, input_signature=[tf.TensorSpec([batch, 8, 8, 1], tf.float32, name="image")]
    )
    return tf, module


@cache
def _classifier() -> bytes:
    return _converted(*_classifier_module())


def _classifier_any_batch() -> bytes:
    return _converted(*_classifier_module(batch=None))


def _classifier_fragile() -> bytes:
    """A version whose outputs are not numbers for an image that is brighter than two anywhere."""
    return _converted(*_classifier_module(fragile=True))


def _classifier_with(gain: float) -> Callable[[], bytes]:
    """A version whose logits are so many times as large: 1.1 has the same classes, -1 the opposite ones, NaN none."""

    def make() -> bytes:
        dense = _classifier_weights()[1].T
        return _with_weights(_classifier(), dense, np.float32(gain) * dense)

    return make


def _classifier_int8() -> bytes:
    tf, module = _classifier_module()
    rng = np.random.default_rng(1)

    def full_integer(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            {"image": rng.random((1, 8, 8, 1), dtype=np.float32)} for _ in range(64)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8

    return _converted(tf, module, full_integer)


def _arithmetic() -> bytes:
    import tensorflow as tf

    module = tf.Module()
    module.serve = tf.function(
        lambda right, left: {"total": left + right, "difference": left - right},
        input_signature=[
            tf.TensorSpec([2, 3], tf.float32, name="right"),
            tf.TensorSpec([2, 3], tf.float32, name="left"),
        ],
    )
    return _converted(tf, module)


def _any_batch() -> bytes:
    import tensorflow as tf

    weights = tf.constant(np.arange(6, dtype=np.float32).reshape(3, 2))
    module = tf.Module()
    module.serve = tf.function(
        lambda x: {"y": tf.matmul(x, weights)},
        input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")],
    )
    return _converted(tf, module)


def _any_size() -> bytes:
    import tensorflow as tf

    kernel = tf.constant(np.random.default_rng(5).normal(0, 0.5, (5, 5, 3, 2)).astype(np.float32))
    module = tf.Module()
    module.serve = tf.function(
        lambda photo: {"map": tf.nn.conv2d(photo, kernel, strides=1, padding="VALID")},
        input_signature=[tf.TensorSpec([1, None, None, 3], tf.float32, name="photo")],
    )
    return _converted(tf, module)


def _any_pair() -> bytes:
    """Two inputs of free size, and an output with a row for each row of one and a column for each of the other."""
    import tensorflow as tf

    module = tf.Module()
    module.serve = tf.function(
        lambda left, right: {"products": tf.matmul(left, right, transpose_b=True)},
        input_signature=[
            tf.TensorSpec([None, 3], tf.float32, name="left"),
            tf.TensorSpec([None, 3], tf.float32, name="right"),
        ],
    )
    return _converted(tf, module)


def _running_sum() -> bytes:
    """A model that streams: `next` is what it wants as `state` the next time."""
    import tensorflow as tf

    module = tf.Module()
    module.serve = tf.function(
        lambda x, state: {"y": 2.0 * x + state, "next": x + state},
        input_signature=[
            tf.TensorSpec([1, 2], tf.float32, name="x"),
            tf.TensorSpec([1, 2], tf.float32, name="state"),
        ],
    )
    return _converted(tf, module)


def _counter() -> bytes:
    """A model that keeps its sum in a variable, which begins at ten."""
    import tensorflow as tf

    module = tf.Module()
    module.total = tf.Variable(np.full((1, 2), 10, np.float32))

    def add(x: Any) -> dict[str, Any]:
        module.total.assign_add(x)
        return {"total": module.total.read_value() * 1.0}

    def with_variables(converter: Any) -> None:
        converter.experimental_enable_resource_variables = True

    module.serve = tf.function(add, input_signature=[tf.TensorSpec([1, 2], tf.float32, name="x")])
    return _converted(tf, module, with_variables)


def _cumulative() -> bytes:
    """A model with an operator in its middle that XNNPACK lacks."""
    import tensorflow as tf

    module = tf.Module()
    module.serve = tf.function(
        lambda x: {"y": tf.cumsum(x * 2.0, axis=1) + 1.0},
        input_signature=[tf.TensorSpec([1, 4], tf.float32, name="x")],
    )
    return _converted(tf, module)


def _slow() -> bytes:
    """About ten milliseconds on one core of a desktop, most of it in matrix products; 0.3 MB of weights."""
    import tensorflow as tf

    weights = tf.constant(np.random.default_rng(1).normal(0, 1 / 16, (256, 256)).astype(np.float32))
    module = tf.Module()

    def multiply(x: Any) -> dict[str, Any]:
        for _ in range(32):
            x = tf.tanh(tf.matmul(x, weights))
        return {"y": x}

    module.serve = tf.function(multiply, input_signature=[tf.TensorSpec([256, 256], tf.float32, name="x")])
    return _converted(tf, module)


@cache
def _heavy() -> bytes:
    """Four megabytes of weights."""
    import tensorflow as tf

    weights = tf.constant(_heavy_weights(1))
    module = tf.Module()
    module.serve = tf.function(
        lambda x: {"y": tf.matmul(x, weights)},
        input_signature=[tf.TensorSpec([1, 1024], tf.float32, name="x")],
    )
    return _converted(tf, module)


def _heavy_with(seed: int) -> Callable[[], bytes]:
    return lambda: _with_weights(_heavy(), _heavy_weights(1).T, _heavy_weights(seed).T)


def _heavy_weights(seed: int) -> Any:
    return np.random.default_rng(seed).normal(0, 1 / 32, (1024, 1024)).astype(np.float32)


def _with_weights(content: bytes, before: Any, after: Any) -> bytes:
    """The same model with other weights: far quicker than to convert it once more."""
    assert content.count(before.tobytes()) == 1
    return content.replace(before.tobytes(), after.tobytes())


def _converted(tf: Any, module: Any, configure: Callable[[Any], None] | None = None) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serving_default": module.serve})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if configure is not None:
            configure(converter)
        content: bytes = converter.convert()
    return content


_MODELS: dict[str, Callable[[], bytes]] = {
    "classifier": _classifier,
    "classifier-int8": _classifier_int8,
    "arithmetic": _arithmetic,
    "any-batch": _any_batch,
    "any-size": _any_size,
    "any-pair": _any_pair,
    "classifier-any-batch": _classifier_any_batch,
    "classifier-fragile": _classifier_fragile,
    "classifier-newer": _classifier_with(1.1),
    "classifier-contrary": _classifier_with(-1.0),
    "classifier-nan": _classifier_with(float("nan")),
    "running-sum": _running_sum,
    "counter": _counter,
    "cumulative": _cumulative,
    "slow": _slow,
    "heavy-1": _heavy,
    "heavy-2": _heavy_with(2),
    "heavy-3": _heavy_with(3),
}

if __name__ == "__main__":  # `python -m tests.models FOLDER`: for a machine without TensorFlow
    make_models(Path(sys.argv[1]))
