"""A Keras model made trainable for the device runtime: a `.tflite` with four signatures, builtin operators only.

    train        x, y, sample_weight, learning_rate -> loss, accuracy     one step of gradient descent
    infer        x -> logits, probabilities
    get_weights  -> layer0_kernel, layer0_bias, ...
    set_weights  layer0_kernel, layer0_bias, ... -> count

`x` is a batch of fixed size. A batch that is not full is padded, and `sample_weight` is 0 for its padding: loss,
accuracy and gradients are means over the rows, weighted by it. Weights live in the interpreter's variables and
start as the model's own.

The signatures follow https://ai.google.dev/edge/litert/conversion/tensorflow/build/ondevice_training, without its
`save` and `restore`, which need TensorFlow operators that the device runtime does not have.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.interpreter import load_interpreter
from federated.layers import LayerStack

if TYPE_CHECKING:
    import keras

__all__ = ["assign_weights", "make_trainable"]

_LOSSES = ("sparse-categorical-crossentropy",)
_OPTIMIZERS = ("sgd",)


def make_trainable(
    model: keras.Model,
    *,
    batch_size: int = 16,
    loss: str = "sparse-categorical-crossentropy",
    optimizer: str = "sgd",
) -> bytes:
    """Converts a Keras classifier into a `.tflite` that a device can train.

    The model itself stays as it is. Check the result with `verify_trainable` before sending it anywhere.

    Args:
        model: A built Keras 3 model of dense layers, one after another; see `federated.layers` for what it may hold.
        batch_size: Rows of every batch.
        loss: ``"sparse-categorical-crossentropy"``, over integer labels.
        optimizer: ``"sgd"``, whose learning rate is an input of `train`.

    Raises:
        HybridgeError: `not-trainable`, naming the layers that stand in the way; `conversion-failed`.

    Example:
        >>> content = make_trainable(keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)]))
        >>> Trainer(content).classes
        10
    """
    for what, given, known in (("loss", loss, _LOSSES), ("optimizer", optimizer, _OPTIMIZERS)):
        if given not in known:
            raise HybridgeError(
                ErrorCode.NOT_TRAINABLE, what, received=f"'{given}'", expected=", ".join(known)
            )
    if batch_size < 1:
        raise HybridgeError(
            ErrorCode.NOT_TRAINABLE, "batch size", received=str(batch_size), expected="1 or more"
        )
    content = _convert(_signatures(LayerStack(model), batch_size))
    # An operator that the device runtime lacks shows when it is loaded, here and not on the device.
    load_interpreter(content, name=f"{model.name} (trainable)")
    return content


def assign_weights(model: keras.Model, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Puts weights that a device or an aggregation gave back into the Keras model they came from.

    Args:
        model: The model that was made trainable; it is changed.
        weights: An array for each name that `get_weights` gives.

    Raises:
        HybridgeError: `data-invalid` when names or shapes are not this model's; the model is then unchanged.
    """
    variables = LayerStack(model).weights
    received = {name: array.shape for name, array in weights.items()}
    expected = {name: tuple(variable.shape) for name, variable in variables.items()}
    if received != expected:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            f"weights for model '{model.name}'",
            received=str(received),
            expected=str(expected),
        )
    for name, variable in variables.items():
        variable.assign(weights[name])


def _signatures(stack: LayerStack, batch_size: int) -> tuple[Any, dict[str, Any]]:
    """A module that owns the variables, and a concrete function for each signature."""
    import tensorflow as tf

    module = tf.Module()
    variables = {name: tf.Variable(source.numpy(), name=name) for name, source in stack.weights.items()}
    module.variables_by_name = variables
    x_spec = tf.TensorSpec((batch_size, *stack.input_shape), tf.float32, name="x")
    row_spec = tf.TensorSpec((batch_size,), tf.float32, name="sample_weight")

    def train(x: Any, y: Any, sample_weight: Any, learning_rate: Any) -> dict[str, Any]:
        share = sample_weight / tf.reduce_sum(sample_weight)
        with tf.GradientTape() as tape:
            # Read once, so that every gradient is taken at the same weights.
            values = {name: variable.read_value() for name, variable in variables.items()}
            tape.watch(values)
            logits = stack.logits(x, values)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
            loss = tf.reduce_sum(losses * share)
        gradients = tape.gradient(loss, values)
        hits = tf.cast(tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), y), tf.float32)
        for name, variable in variables.items():
            variable.assign_sub(learning_rate * gradients[name])
        return {"loss": loss, "accuracy": tf.reduce_sum(hits * share)}

    def infer(x: Any) -> dict[str, Any]:
        logits = stack.logits(x, variables)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    def get_weights() -> dict[str, Any]:
        return {name: variable.read_value() for name, variable in variables.items()}

    def set_weights(**weights: Any) -> dict[str, Any]:
        for name, variable in variables.items():
            variable.assign(weights[name])
        return {"count": tf.constant(len(variables), tf.int32)}

    def traced(function: Any, *specs: Any, **named: Any) -> Any:
        return tf.function(function, autograph=False).get_concrete_function(*specs, **named)

    weight_specs = {
        name: tf.TensorSpec(value.shape, tf.float32, name=name) for name, value in variables.items()
    }
    y_spec = tf.TensorSpec((batch_size,), tf.int32, name="y")
    rate_spec = tf.TensorSpec((), tf.float32, name="learning_rate")
    return module, {
        "train": traced(train, x_spec, y_spec, row_spec, rate_spec),
        "infer": traced(infer, x_spec),
        "get_weights": traced(get_weights),
        "set_weights": traced(set_weights, **weight_specs),
    }


def _convert(exported: tuple[Any, dict[str, Any]]) -> bytes:
    import tensorflow as tf

    module, signatures = exported
    with tempfile.TemporaryDirectory(prefix="hybridge-") as folder:
        # By way of a saved model: from_concrete_functions loses the names of the signatures.
        tf.saved_model.save(module, folder, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.experimental_enable_resource_variables = True
        try:
            content: bytes = converter.convert()
        # The converter raises a private class of its own, and ValueError for some models.
        except Exception as error:
            raise HybridgeError(
                ErrorCode.CONVERSION_FAILED,
                "trainable model",
                received=str(error).splitlines()[0][:300],
                expected="operators that the device runtime has",
            ) from error
    return content
