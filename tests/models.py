"""The small models that tests run: made by TensorFlow from fixed weights, so that every run has the same bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["make_models"]


def make_models(folder: Path) -> None:
    """Writes the `.tflite` files that the fixture `models` names into `folder`."""
    for name, make in _MODELS.items():
        (folder / f"{name}.tflite").write_bytes(make())


def _classifier_module() -> tuple[Any, Any]:
    import tensorflow as tf

    rng = np.random.default_rng(7)
    kernel = tf.constant(rng.normal(0, 0.5, (3, 3, 1, 4)).astype(np.float32))
    dense = tf.constant(rng.normal(0, 0.5, (36, 10)).astype(np.float32))
    module = tf.Module()

    def classify(image: Any) -> dict[str, Any]:
        hidden = tf.nn.relu(tf.nn.conv2d(image, kernel, strides=2, padding="VALID"))
        return {"logits": tf.matmul(tf.reshape(hidden, [1, 36]), dense[:, :])}

    module.serve = tf.function(
        classify, input_signature=[tf.TensorSpec([1, 8, 8, 1], tf.float32, name="image")]
    )
    return tf, module


def _classifier() -> bytes:
    tf, module = _classifier_module()
    return _converted(tf, module)


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
}
