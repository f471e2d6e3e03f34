"""Which Keras layers can be trained on a device, and what each computes, in operators whose gradients convert.

The converter has no operator for the gradients of the relu family and of exact gelu, and it drops a relu that
follows a matrix product without bias when the weight is a variable. Both are avoided by writing these activations
as products with a 0/1 mask; the result is the same to the last bit for relu.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from edge_runtime.errors import ErrorCode, HybridgeError

if TYPE_CHECKING:
    import keras

__all__ = ["SUPPORTED", "LayerStack"]

Tensor: TypeAlias = Any
_Activation: TypeAlias = Callable[[Tensor], Tensor]

SUPPORTED = (
    "Dense, Flatten, Reshape, Rescaling, Activation, ReLU and a last Softmax; activations linear, relu, relu6, "
    "leaky_relu, tanh, sigmoid, silu, gelu and a last softmax; no regularizers, constraints, or quantised weights"
)
# What would change training and is not part of the signatures.
_REFUSED_SETTINGS = (
    "kernel_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "bias_constraint",
    "quantization_mode",
    "lora_rank",
)


class LayerStack:
    """A Keras model seen as one layer after another, from one input to class logits.

    A softmax at the end is left out of the logits, so that the loss can be computed stably from them.

    Args:
        model: A built model.

    Raises:
        HybridgeError: `not-trainable`, naming every layer that stands in the way.

    Attributes:
        layers: The layers in order, without input layers.
        weights: The variables that training changes, by a name that does not depend on how often Keras made such
            a layer before: ``layer0_kernel``, counting layers from the input.
        ends_in_softmax: Whether the model's own output is the softmax of the logits.
    """

    def __init__(self, model: keras.Model):
        import keras

        self.layers = _in_sequence(model)
        problems = [
            f"'{layer.name}' ({problem})"
            for place, layer in enumerate(self.layers)
            if (problem := _problem(layer, last=place == len(self.layers) - 1))
        ]
        if problems:
            raise _refusal(model, f"layers {', '.join(problems)}", f"layers among {SUPPORTED}")
        last = self.layers[-1]
        if len(last.output.shape) != 2:
            raise _refusal(
                model, f"an output of shape {last.output.shape}", "one row of class scores a sample"
            )
        self.ends_in_softmax = _activation_of(last) is keras.activations.softmax
        if not self.ends_in_softmax and _activation_of(last) not in (None, keras.activations.linear):
            name = _activation_of(last).__name__
            raise _refusal(model, f"a last activation '{name}'", "softmax, or none (logits)")
        self.weights: dict[str, keras.Variable] = {
            f"layer{place}_{variable.name}": variable
            for place, layer in enumerate(self.layers)
            for variable in layer.trainable_variables
        }
        # Read now: while a function is traced, values are out of reach.
        self._frozen = {
            f"layer{place}_{variable.name}": variable.numpy()
            for place, layer in enumerate(self.layers)
            for variable in layer.non_trainable_variables
        }
        if not self.weights:
            raise _refusal(model, "no trainable weights", "at least one Dense layer with trainable=True")
        self.input_shape: tuple[int, ...] = tuple(model.inputs[0].shape[1:])
        self.classes = int(last.output.shape[-1])

    def logits(self, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """The model's logits for a batch, computed from `weights` in place of the model's own.

        Args:
            x: Inputs of shape (batch, ...).
            weights: A tensor for each name in `weights`.

        Returns:
            A tensor of shape (batch, classes).
        """
        activations = _activations()
        values = {**self._frozen, **weights}
        for place, layer in enumerate(self.layers):
            x = _forward(layer, x, values, f"layer{place}")
            if (activation := _activation_of(layer)) in activations:
                x = activations[activation](x)
        return x


def _in_sequence(model: keras.Model) -> list[keras.Layer]:
    if not getattr(model, "inputs", None):
        raise _refusal(model, "a model without a known input shape", "a built Sequential or functional model")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        received = f"{len(model.inputs)} inputs and {len(model.outputs)} outputs"
        raise _refusal(model, received, "one of each")
    inputs = model.inputs[0]
    if inputs.dtype != "float32" or any(size is None for size in inputs.shape[1:]):
        raise _refusal(
            model,
            f"input of {inputs.dtype} and shape {inputs.shape}",
            "float32 with fixed sizes but the batch",
        )
    # From the output back: a layer may also have been called elsewhere, as Keras does when it loads a model.
    layers: list[keras.Layer] = []
    tensor = model.outputs[0]
    while tensor is not inputs:
        layer, node, _ = tensor._keras_history
        before = layer._inbound_nodes[node].input_tensors
        if len(before) != 1 or layer in layers:
            raise _refusal(model, "layers that branch, join or are shared", "one layer after another")
        layers.insert(0, layer)
        tensor = before[0]
    if not layers:
        raise _refusal(model, "no layers", "one layer after another")
    return layers


def _problem(layer: keras.Layer, *, last: bool) -> str:
    """What about a layer cannot be trained on a device, or nothing."""
    import keras

    kinds = keras.layers
    name = type(layer).__name__
    # Subclasses may compute anything.
    supported = (kinds.Dense, kinds.Flatten, kinds.Reshape, kinds.Rescaling, kinds.Activation, kinds.ReLU)
    if type(layer) not in (*supported, kinds.Softmax):
        return name
    if layer.dtype_policy.name != "float32":
        return f"{name} of {layer.dtype_policy.name}"
    for setting in _REFUSED_SETTINGS:
        if getattr(layer, setting, None) is not None:
            return f"{name} with {setting}"
    if type(layer) is kinds.Flatten and layer.data_format != "channels_last":
        return f"{name} of {layer.data_format}"
    if type(layer) is kinds.ReLU and (layer.max_value is not None or layer.negative_slope or layer.threshold):
        return f"{name} with a limit, slope or threshold"
    if type(layer) is kinds.Softmax and layer.axis not in (-1, len(layer.output.shape) - 1):
        return f"{name} over axis {layer.axis}"
    activation = _activation_of(layer)
    if activation is keras.activations.softmax:
        return "" if last else f"{name} with softmax before the end"
    if activation is not None and activation not in _activations():
        return f"{name} with activation {getattr(activation, '__name__', activation)}"
    return ""


def _activation_of(layer: keras.Layer) -> Any:
    """The Keras function that a layer applies to its result."""
    import keras

    if type(layer) is keras.layers.ReLU:
        return keras.activations.relu
    if type(layer) is keras.layers.Softmax:
        return keras.activations.softmax
    return getattr(layer, "activation", None)


def _forward(layer: keras.Layer, x: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    """What the layer called `name` in `weights` computes before its activation."""
    import keras
    import tensorflow as tf

    if type(layer) is keras.layers.Dense:
        # The matrix product of rows; sizes are fixed, so a reshape costs nothing.
        rows = tf.reshape(x, [-1, x.shape[-1]]) if len(x.shape) > 2 else x
        rows = tf.matmul(rows, weights[f"{name}_kernel"])
        if layer.use_bias:
            rows = rows + weights[f"{name}_bias"]
        return tf.reshape(rows, [*x.shape[:-1], layer.units]) if len(x.shape) > 2 else rows
    if type(layer) in (keras.layers.Flatten, keras.layers.Reshape):
        return tf.reshape(x, [x.shape[0], *layer.output.shape[1:]])
    if type(layer) is keras.layers.Rescaling:
        return x * tf.constant(layer.scale, tf.float32) + tf.constant(layer.offset, tf.float32)
    return x


def _activations() -> dict[Any, _Activation]:
    """For each Keras activation, the same function in operators whose gradients convert."""
    import keras
    import tensorflow as tf

    known = keras.activations
    return {
        known.linear: lambda x: x,
        known.relu: _relu,
        known.relu6: lambda x: x * _mask(x > 0) * _mask(x < 6) + 6.0 * _mask(x >= 6),
        # Keras' slope of 0.2, applied at 0 as in TensorFlow.
        known.leaky_relu: lambda x: x * (_mask(x > 0) + 0.2 * _mask(x <= 0)),
        known.tanh: tf.tanh,
        known.sigmoid: tf.sigmoid,
        known.silu: tf.nn.silu,
        known.gelu: _gelu(),
    }


def _mask(condition: Tensor) -> Tensor:
    import tensorflow as tf

    return tf.cast(condition, tf.float32)


def _relu(x: Tensor) -> Tensor:
    return x * _mask(x > 0)


def _gelu() -> _Activation:
    """Exact gelu; its gradient takes the normal distribution function from gelu itself, for want of erf."""
    import tensorflow as tf

    def gelu(x: Tensor) -> tuple[Tensor, _Activation]:
        value = tf.nn.gelu(x, approximate=False)

        def gradient(upstream: Tensor) -> Tensor:
            at_zero = _mask(tf.abs(x) < 1e-12)
            distribution = value / (x + at_zero) + 0.5 * at_zero
            density = tf.exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))
            return upstream * (distribution + x * density)

        return value, gradient

    activation: _Activation = tf.custom_gradient(gelu)
    return activation


def _refusal(model: keras.Model, received: str, expected: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.NOT_TRAINABLE,
        f"model '{model.name}' for training on devices",
        received=received,
        expected=expected,
        fix="train it in the cloud, or change the model",
    )
