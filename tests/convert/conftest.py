"""A small trained classifier and its data, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Digits:
    """Handwritten digits, a CNN trained on them, and files of both."""

    folder: Path
    model: Any
    train: Array
    test: Array
    test_labels: Array

    @property
    def file(self) -> Path:
        return self.folder / "digits.keras"

    @property
    def calibration(self) -> Path:
        return self.folder / "calibration.npz"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation.npz"


@pytest.fixture(scope="session")
def keras() -> Any:
    import keras

    return keras


@pytest.fixture(scope="session")
def digits(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Digits:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images / 16).astype(np.float32)[..., np.newaxis]
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1200], order[1200:]
    keras.utils.set_random_seed(1)
    layers = keras.layers
    image = keras.Input((8, 8, 1), name="image")
    hidden = layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    hidden = layers.ReLU()(layers.BatchNormalization()(hidden))
    hidden = layers.Flatten()(layers.MaxPooling2D()(hidden))
    model = keras.Model(
        image, layers.Dense(10, activation="softmax", name="probabilities")(hidden), name="digits"
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(images[train], data.target[train], epochs=6, verbose=0)
    folder = tmp_path_factory.mktemp("digits")
    digits = Digits(folder, model, images[train], images[test], data.target[test])
    model.save(digits.file)
    np.savez(digits.calibration, image=digits.train[:200])
    np.savez(digits.evaluation, image=digits.test, label=digits.test_labels)
    return digits
