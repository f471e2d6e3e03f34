"""A convolutional network on Fashion-MNIST, as an engineer would bring it: trained, with its data in files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import data_file

__all__ = ["Fashion", "make_fashion"]

_EPOCHS = 10
_CALIBRATION = 500
_LABELS = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


@dataclass(frozen=True)
class Fashion:
    """Files of the model and its data, in `folder`."""

    folder: Path

    @property
    def model(self) -> Path:
        """The trained model: `image` (28, 28, 1), float32 in 0..1, to `scores`, ten logits."""
        return self.folder / "fashion.keras"

    @property
    def train(self) -> Path:
        """The 60,000 training images with their labels."""
        return self.folder / "train.npz"

    @property
    def calibration(self) -> Path:
        """500 of the training images, without labels."""
        return self.folder / "calib.npz"

    @property
    def test(self) -> Path:
        """The 10,000 test images with their labels."""
        return self.folder / "test.npz"

    @property
    def labels(self) -> Path:
        """Names of the ten classes."""
        return self.folder / "labels.txt"


def make_fashion(folder: Path) -> Fashion:
    """The files, made on first use; training takes two to four minutes on two cores.

    Raises:
        HybridgeError: `file-not-found` without the data folder.
    """
    fashion = Fashion(folder)
    data_path = data_file("fashion_mnist.npz")
    if fashion.model.exists():
        return fashion
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(data_path) as data:
        train = (data["x_train"][..., np.newaxis] / np.float32(255)).astype(np.float32)
        test = (data["x_test"][..., np.newaxis] / np.float32(255)).astype(np.float32)
        train_labels, test_labels = data["y_train"].astype(np.int64), data["y_test"].astype(np.int64)
    np.savez(fashion.train, image=train, label=train_labels)
    np.savez(fashion.calibration, image=train[:_CALIBRATION])
    np.savez(fashion.test, image=test, label=test_labels)
    fashion.labels.write_text("\n".join(_LABELS) + "\n")
    _trained(train, train_labels).save(fashion.model)
    return fashion


def _trained(images: Any, classes: Any) -> Any:
    import keras

    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            *_block(layers, 16),
            *_block(layers, 32),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(10, name="scores"),
        ],
        name="fashion",
    )
    steps = _EPOCHS * -(-len(images) // 128)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # XLA makes the steps of small convolutions several times slower on a CPU.
        jit_compile=False,
    )
    model.fit(images, classes, batch_size=128, epochs=_EPOCHS, verbose=0)
    return model


def _block(layers: Any, filters: int) -> list[Any]:
    return [
        layers.Conv2D(filters, 3, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
    ]
