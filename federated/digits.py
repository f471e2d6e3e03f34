"""The example that a simulation runs when it is given nothing: handwritten digits, and a small model for them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.errors import missing_extra

if TYPE_CHECKING:
    import keras

__all__ = ["DIGIT_LABELS", "digits_data", "digits_model"]

DIGIT_LABELS = tuple("0123456789")


def digits_data() -> dict[str, np.ndarray[Any, Any]]:
    """1,797 images of handwritten digits and their classes.

    Returns:
        ``image``, float32 of shape (1797, 8, 8, 1) in 0..1, and ``label``, int32 of shape (1797,).

    Raises:
        HybridgeError: `extra-missing` without scikit-learn, which ships them.

    Source:
        https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits, its test part.
    """
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ModuleNotFoundError as error:
        raise missing_extra("federated", error.name or "sklearn") from error
    digits = datasets.load_digits()
    return {
        "image": (digits.images / 16).astype(np.float32)[..., np.newaxis],
        "label": digits.target.astype(np.int32),
    }


def digits_model(*, seed: int = 0) -> keras.Model:
    """An untrained model of 2,410 weights; the same seed gives the same weights.

    Raises:
        HybridgeError: `extra-missing` without Keras.
    """
    try:
        import keras
    except ModuleNotFoundError as error:
        raise missing_extra("federated", "keras") from error

    def dense(units: int, activation: str, name: str, offset: int) -> keras.layers.Layer:
        kernel = keras.initializers.GlorotUniform(seed=2 * seed + offset)
        return keras.layers.Dense(units, activation=activation, kernel_initializer=kernel, name=name)

    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Flatten(),
            dense(32, "relu", "hidden", 0),
            dense(10, "softmax", "probabilities", 1),
        ],
        name="digits",
    )
