"""A trained model that goes into a conversion, whatever made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["Architecture", "Source", "no_architecture"]


@dataclass(frozen=True)
class Architecture:
    """What training needs to build a model again in a process of its own.

    Attributes:
        library: Whose configuration it is: Keras 3, or Keras 2 (`tf_keras`).
        config: The serialised model, JSON-like: of Keras 3 what `keras.saving.serialize_keras_object` gives, of
            `tf_keras` what `to_json` does.
        weights: Values of `model.get_weights()`, in order.
        custom: Modules to import first, which register the classes that the configuration names.
    """

    library: Literal["keras", "tf_keras"]
    config: dict[str, Any]
    weights: tuple[Array, ...]
    custom: tuple[str, ...] = ()


class Source(Protocol):
    """A trained model with named inputs and outputs, which can be run and exported.

    Attributes:
        name: The file's name, or the model's own; never a path.
        digest: SHA-256 of the file, or of architecture and weights; 64 hexadecimal digits.
        inputs: Names, shapes and types, in the model's order; a string names a dimension that may vary.
        outputs: The same of what it returns.
        weight_bytes: Bytes of the weights in memory.
        saved_at: The time that the file itself records, ISO 8601, if it does.
        tools: Distributions that its export depends on.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...  # noqa: D102
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...  # noqa: D102
    @property
    def weight_bytes(self) -> int: ...  # noqa: D102
    @property
    def saved_at(self) -> str | None: ...  # noqa: D102
    @property
    def tools(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def architecture(self) -> Architecture | None:
        """What training needs to build it again; None for a source that is no Keras model."""

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the original model on arrays of shape (samples, ...), as in inference."""

    def export(self, inputs: tuple[TensorSpec, ...]) -> bytes:
        """The model as a float `.tflite` that takes exactly these, every dimension fixed."""

    def with_weights(self, weights: Sequence[Array]) -> Source:
        """The same model with other values in the order of `architecture.weights`; this one stays as it is."""


def no_architecture(name: str) -> HybridgeError:
    """The error for training a model that cannot be built again."""
    return HybridgeError(
        ErrorCode.SOURCE_INVALID,
        f"source model '{name}'",
        received="a model that cannot be built again with other weights",
        expected="a Keras model: training-time recipes need one",
        fix="convert the Keras model that it was made from, or use a recipe that does not train",
    )
