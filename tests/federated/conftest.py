"""A small model, made trainable once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from federated.samples import Samples


@pytest.fixture(scope="session")
def keras() -> Any:
    import keras

    return keras


@pytest.fixture(scope="session")
def model(keras: Any) -> Any:
    """6 inputs, 3 classes, a relu in between."""
    layers = keras.layers
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6,), name="x"),
            layers.Dense(8, activation="relu"),
            layers.Dense(3, activation="softmax"),
        ],
        name="small",
    )


@pytest.fixture(scope="session")
def trainable(model: Any) -> bytes:
    from federated import make_trainable

    return make_trainable(model, batch_size=8)


@pytest.fixture
def samples() -> Samples:
    """21 samples of three classes that a model can tell apart: two full batches of eight, and one of five."""
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 21).astype(np.int32)
    x = rng.normal(size=(21, 6)).astype(np.float32)
    x[np.arange(21), y] += 2
    return Samples(x, y)
