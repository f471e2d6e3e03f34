"""How one layer rounds in training, in the terms of tfmot's quantisation wrapper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_runtime.tensor_spec import Array

__all__ = ["Kept", "make_config", "rounded"]


@dataclass(frozen=True)
class Kept:
    """What of a kernel must outlast its training.

    Attributes:
        variable: The kernel.
        values: The distinct values it has, if they are to stay shared.
        indices: Which of them each weight has.
        mask: 0 where a weight, or a shared value, is zero and stays so; else 1.
    """

    variable: Any
    values: Array | None
    indices: Array | None
    mask: Array

    @classmethod
    def of(cls, variable: Any, *, shared: bool) -> Kept:
        """What a kernel has now."""
        kernel = variable.numpy()
        if not shared:
            return cls(variable, None, None, (kernel != 0).astype(kernel.dtype))
        values, indices = np.unique(kernel, return_inverse=True)
        return cls(variable, values, indices.reshape(kernel.shape), (values != 0).astype(kernel.dtype))


def make_config(attributes: Sequence[str], *, bits: int, stored: bool, kept: Mapping[str, Kept]) -> Any:
    """A `QuantizeConfig` that rounds kernels symmetrically by channel, and the output by the range seen.

    Its `settle`, called after the training, gives the kernels themselves what was kept.

    Args:
        attributes: Of the layer's kernels.
        bits: Of kernels; see `rounded`.
        stored: Whether the output is rounded to 8 bits.
        kept: Zeros and shared values to keep, by attribute.
    """
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot

    keras = tfmot.quantization.keras

    class KernelQuantizer(keras.quantizers.Quantizer):  # type: ignore[misc, name-defined]
        """Rounds one kernel as the conversion does: a scale a channel, from its largest weight."""

        def __init__(self, attribute: str):
            self._attribute = attribute
            self._kept = kept.get(attribute)
            self._values: Any = None

        def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:  # noqa: ARG002
            if self._kept is not None and self._kept.values is not None:
                self._values = layer.add_weight(
                    f"{name}_values",
                    shape=self._kept.values.shape,
                    initializer=tf.constant_initializer(self._kept.values),
                    trainable=True,
                )
            return {}

        def __call__(self, inputs: Any, training: Any, weights: Any, **_: Any) -> Any:  # noqa: ARG002
            return rounded(self.kernel(inputs), self._attribute, bits)

        def kernel(self, variable: Any) -> Any:
            """The kernel before it is rounded."""
            if self._kept is None:
                return variable
            if self._values is None:
                return variable * self._kept.mask
            return tf.gather(self._values * self._kept.mask, self._kept.indices)

        def get_config(self) -> dict[str, Any]:
            return {}

    class LayerConfig(keras.QuantizeConfig):  # type: ignore[misc, name-defined]
        """What of a layer is rounded."""

        def __init__(self) -> None:
            self._quantizers = {attribute: KernelQuantizer(attribute) for attribute in attributes}
            # The conversion calibrates ranges the same way, over all samples.
            self._output = keras.quantizers.AllValuesQuantizer(
                num_bits=8, per_axis=False, symmetric=False, narrow_range=False
            )

        def settle(self) -> None:
            for attribute, quantizer in self._quantizers.items():
                if attribute in kept:
                    variable = kept[attribute].variable
                    variable.assign(quantizer.kernel(variable))

        def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
            return [(getattr(layer, name), quantizer) for name, quantizer in self._quantizers.items()]

        def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
            for name, value in zip(self._quantizers, quantize_weights, strict=True):
                setattr(layer, name, value)

        def get_activations_and_quantizers(self, layer: Any) -> list[Any]:  # noqa: ARG002
            return []

        def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
            pass

        def get_output_quantizers(self, layer: Any) -> list[Any]:  # noqa: ARG002
            return [self._output] if stored else []

        def get_config(self) -> dict[str, Any]:
            return {}

    return LayerConfig()


def rounded(kernel: Any, attribute: str, bits: int) -> Any:
    """A kernel on the grid of the conversion, symmetric, with a scale a channel.

    Args:
        kernel: The kernel.
        attribute: What its layer calls it.
        bits: Of dense kernels and tables of embeddings; others have 8, as recipes of 4 bits leave convolutions.
    """
    import tensorflow as tf

    bits = bits if len(kernel.shape) == 2 else 8
    order = _channels_last(attribute, len(kernel.shape), kernel)
    turned = tf.transpose(kernel, order)
    # A depthwise kernel has a channel for each input and multiplier.
    channels = turned.shape[-1] * (turned.shape[-2] if attribute == "depthwise_kernel" else 1)
    flat = tf.reshape(turned, (-1, channels))
    limits = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(flat), axis=0), 1e-9))
    rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        flat, -limits, limits, num_bits=bits, narrow_range=True
    )
    back = np.argsort(order)
    return tf.transpose(tf.reshape(rounded, tf.shape(turned)), back)


def _channels_last(attribute: str, rank: int, kernel: Any) -> list[int]:  # noqa: ARG001
    order = list(range(rank))
    if attribute == "embeddings":
        return order[::-1]
    return order
