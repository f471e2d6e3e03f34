"""A small classifier with its data, and trainings of it that several tests look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from convert.recipes import Clustering, Pruning, Training
from convert.sources.source import Architecture
from convert.training import FineTuned, fine_tune

Array = np.ndarray[Any, Any]
# What suits a thousand small images; trainings differ from it in their parts.
SHORT = Training(epochs=4, batch_size=32, learning_rate=3e-3)


@dataclass(frozen=True)
class Patterns:
    """A network that tells eight noisy patterns apart, and what it says of its data."""

    model: Any
    architecture: Architecture
    images: Array
    labels: Array
    targets: Array

    def tune(self, training: Training, *, labelled: bool = True, **options: Any) -> FineTuned:
        return fine_tune(
            self.architecture,
            training,
            inputs={"image": self.images},
            targets={"scores": self.targets},
            labels=self.labels if labelled else None,
            scores="scores",
            **options,
        )

    def accuracy(self, weights: tuple[Array, ...]) -> float:
        before = self.model.get_weights()
        try:
            self.model.set_weights(list(weights))
            predicted = self.model.predict(self.images, verbose=0).argmax(-1)
        finally:
            self.model.set_weights(before)
        return float((predicted == self.labels).mean())


@pytest.fixture(scope="session")
def patterns(keras: Any) -> Patterns:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 1000)
    images = rng.normal(size=(8, 8, 8, 1))[labels] + rng.normal(scale=0.8, size=(1000, 8, 8, 1))
    images = images.astype(np.float32)
    keras.utils.set_random_seed(1)
    layers = keras.layers
    image = keras.Input((8, 8, 1), name="image")
    hidden = layers.Conv2D(16, 3, padding="same", use_bias=False, name="first")(image)
    hidden = layers.ReLU()(layers.BatchNormalization()(hidden))
    hidden = layers.Conv2D(16, 3, padding="same", name="second")(hidden)
    hidden = layers.Activation("relu")(layers.BatchNormalization()(hidden))
    hidden = layers.Flatten()(layers.MaxPooling2D()(hidden))
    hidden = layers.Dropout(0.2)(layers.Dense(16, activation="relu", name="third")(hidden))
    model = keras.Model(image, layers.Dense(8, name="scores")(hidden), name="patterns")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, jit_compile=False)
    model.fit(images, labels, epochs=6, verbose=0)
    config = keras.saving.serialize_keras_object(model)
    architecture = Architecture("keras", config, tuple(model.get_weights()))
    return Patterns(model, architecture, images, labels, model.predict(images, verbose=0))


@pytest.fixture(scope="session")
def tuned(patterns: Patterns) -> Callable[[str], FineTuned]:
    """The training of that name, run once."""
    trainings = {
        "prune": replace(SHORT, prune=Pruning(sparsity=0.75)),
        "prune-2of4+qat": replace(SHORT, prune=Pruning(pattern="2:4"), qat=True),
        "all": replace(SHORT, prune=Pruning(sparsity=0.7), cluster=Clustering(clusters=8), qat=True),
    }
    done: dict[str, FineTuned] = {}

    def run(name: str) -> FineTuned:
        if name not in done:
            done[name] = patterns.tune(trainings[name])
        return done[name]

    return run
