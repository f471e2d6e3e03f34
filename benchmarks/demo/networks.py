"""The demo's two networks: one that fits a microcontroller, one that knows better, both trained here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.demo.digits import FULL_SCALE, Samples
from edge_runtime.errors import missing_extra
from edge_runtime.tensor_spec import Array

__all__ = ["train_large", "train_small"]

# Called after each epoch with its number, how many there are, and the accuracy on the validation images.
OnEpoch = Callable[[int, int, float], None]


def train_small(train: Samples, validation: Samples, *, seed: int, on_epoch: OnEpoch) -> Any:
    """A perceptron of 1,210 parameters, image (1, 8, 8, 1) in 0..1 to 10 logits, as a Keras model."""
    keras = _keras(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(10, name="logits"),
        ],
        name="digits_small",
    )
    return _fit(
        keras, model, _scaled(train.images), train.labels, validation, epochs=40, every=8, on_epoch=on_epoch
    )


def train_large(train: Samples, validation: Samples, *, seed: int, on_epoch: OnEpoch) -> Any:
    """A convolutional network of 160,000 parameters with the same input and output, trained on shifted images too."""
    keras = _keras(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(128, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.4),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.4),
            layers.Dense(10, name="logits"),
        ],
        name="digits_large",
    )
    copies = 8
    images = _augmented(_scaled(train.images), copies, np.random.default_rng(seed))
    labels = np.tile(train.labels, copies + 1)
    return _fit(keras, model, images, labels, validation, epochs=7, every=1, on_epoch=on_epoch)


def _keras(seed: int) -> Any:
    try:
        import keras
    except ModuleNotFoundError as error:
        raise missing_extra("convert", "keras") from error
    keras.utils.set_random_seed(seed)
    return keras


def _fit(
    keras: Any,
    model: Any,
    images: Array,
    labels: Array,
    held: Samples,
    *,
    epochs: int,
    every: int,
    on_epoch: OnEpoch,
) -> Any:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])

    def report(epoch: int, _logs: object) -> None:
        if (epoch + 1) % every == 0:
            accuracy = model.evaluate(_scaled(held.images), held.labels, verbose=0)[1]
            on_epoch(epoch + 1, epochs, float(accuracy))

    callback = keras.callbacks.LambdaCallback(on_epoch_end=report)
    model.fit(
        images, labels, epochs=epochs, batch_size=32 if epochs > 10 else 64, verbose=0, callbacks=[callback]
    )
    return model


def _scaled(images: Array) -> Array:
    scaled: Array = images.astype(np.float32) / FULL_SCALE
    return scaled


def _augmented(images: Array, copies: int, rng: np.random.Generator) -> Array:
    """The images and `copies` of them, each shifted by up to a pixel and with some noise."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    made = [images]
    for _ in range(copies):
        top, left = rng.integers(0, 3, 2)
        shifted = padded[:, top : top + 8, left : left + 8]
        made.append(np.clip(shifted + rng.normal(0, 0.05, shifted.shape).astype(np.float32), 0, 1))
    return np.concatenate(made)
