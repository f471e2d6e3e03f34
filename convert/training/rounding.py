"""Quantisation-aware training: a model whose layers round as the converted one will."""

from __future__ import annotations

import re
from typing import Any

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["with_rounding"]

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D")


def with_rounding(
    model: Any, *, bits: int, skip: tuple[str, ...], sparse: bool, clustered: set[str]
) -> tuple[Any, dict[str, str]]:
    """The model with rounding of weights and activations in place.

    Args:
        model: A functional `tf_keras` model of single layers.
        bits: Of the weights: 8, with activations as tfmot's default scheme has them, or 4 with float activations, as
            the device computes them.
        skip: Patterns of layers to leave as they are.
        sparse: Whether zeros must stay zero.
        clustered: Layers whose weights must go on to share values.

    Returns:
        The model, and layers that are not rounded, with the reason.

    Raises:
        HybridgeError: `training-failed` for a model of which tfmot can round nothing.
    """
    import tf_keras
    from tensorflow_model_optimization.python.core.quantization.keras import quantize, quantize_annotate

    supported = _registry()
    skipped: dict[str, str] = {}

    def annotated(layer: Any) -> Any:
        reason = _reason(layer, supported, skip, bits)
        if reason is None:
            config = _FourBits.make(layer) if bits == 4 else None
            return quantize_annotate.QuantizeAnnotate(layer, quantize_config=config)
        if layer.weights and reason:
            skipped[layer.name] = reason
        return layer

    marked = tf_keras.models.clone_model(model, clone_function=annotated)
    # Cloning makes new variables.
    marked.set_weights(model.get_weights())
    try:
        with quantize.quantize_scope(_FourBits.scope() if bits == 4 else {}):
            rounded = quantize.quantize_apply(marked, _scheme(sparse, clustered))
    except Exception as error:
        # tfmot raises ValueErrors, RuntimeErrors and AttributeErrors for layers beyond it.
        raise HybridgeError(
            ErrorCode.TRAINING_FAILED,
            "qat",
            received=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
            expected="layers that tfmot can round",
            fix="leave layers out with the recipe's training.skip, or use a recipe without qat",
        ) from error
    return rounded, skipped


def _reason(layer: Any, supported: Any, skip: tuple[str, ...], bits: int) -> str | None:
    kind = type(layer).__name__
    if kind == "InputLayer":
        return ""
    if any(re.search(pattern, layer.name) for pattern in skip):
        return "named by skip"
    if bits == 4:
        return None if kind in ("Dense", "Conv2D") else f"{kind} is not rounded to 4 bits in training"
    if kind == "BatchNormalization":
        # Rounded as one with the convolution before it, into which the converter folds it; not known on its own.
        return None if _follows_convolution(layer) else "a batch normalisation that follows no convolution"
    return None if supported.supports(layer) else f"tfmot does not round {kind}"


def _follows_convolution(layer: Any) -> bool:
    nodes = layer.inbound_nodes
    before = nodes[0].inbound_layers if nodes else []
    return type(before).__name__ in _CONVOLUTIONS


def _registry() -> Any:
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry,
    )

    return default_8bit_quantize_registry.Default8BitQuantizeRegistry()


def _scheme(sparse: bool, clustered: set[str]) -> Any:
    from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.cluster_preserve import (
        default_8bit_cluster_preserve_quantize_scheme as cluster_scheme,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.prune_preserve import (
        default_8bit_prune_preserve_quantize_scheme as prune_scheme,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_scheme,
    )

    if clustered:
        return cluster_scheme.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=sparse)
    if sparse:
        return prune_scheme.Default8BitPrunePreserveQuantizeScheme()
    return default_8bit_quantize_scheme.Default8BitQuantizeScheme()


class _FourBits:
    """Makes the configuration that rounds a kernel to 4 bits a channel, symmetric, and nothing else."""

    @staticmethod
    def make(layer: Any) -> Any:  # noqa: ARG004 - one configuration for each layer
        return _FourBits.scope()["FourBitWeights"]()

    @staticmethod
    def scope() -> dict[str, Any]:
        import tensorflow_model_optimization as tfmot

        quantizers = tfmot.quantization.keras.quantizers

        class PerChannel(quantizers.LastValueQuantizer):  # type: ignore[misc, name-defined]
            """A range for each channel, which both Dense and Conv2D have last."""

            def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
                return {
                    f"{end}_var": layer.add_weight(
                        f"{name}_{end}",
                        shape=(tensor_shape[-1],),
                        initializer=_constant(value),
                        trainable=False,
                    )
                    for end, value in (("min", -6.0), ("max", 6.0))
                }

        class FourBitWeights(tfmot.quantization.keras.QuantizeConfig):  # type: ignore[misc]
            """Rounds the kernel alone."""

            def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
                quantizer = PerChannel(num_bits=4, per_axis=True, symmetric=True, narrow_range=True)
                return [(layer.kernel, quantizer)]

            def get_activations_and_quantizers(self, layer: Any) -> list[Any]:  # noqa: ARG002
                return []

            def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
                layer.kernel = quantize_weights[0]

            def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
                """Nothing to set."""

            def get_output_quantizers(self, layer: Any) -> list[Any]:  # noqa: ARG002
                return []

            def get_config(self) -> dict[str, Any]:
                return {}

        return {"FourBitWeights": FourBitWeights, "PerChannel": PerChannel}


def _constant(value: float) -> Any:
    import tf_keras

    return tf_keras.initializers.Constant(value)
