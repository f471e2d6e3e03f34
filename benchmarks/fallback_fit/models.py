"""Two device models and a cloud model of Fashion-MNIST, and what each says of images that none was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import data_file
from convert import convert, hide_native_logs
from edge_runtime import Bundle, Model
from edge_runtime.chain.tier import Tier
from edge_runtime.console import say
from edge_runtime.manifest import PreprocessingStep, RawInput
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["DEVICE", "HeldOut", "make_held_out"]

DEVICE = ("tiny", "middle")
"""The device's models, the cheapest first."""

# Of the 60,000 training images; the others are held out together with the 10,000 test images.
_TRAINED = 40_000
_BATCH = 128
_EPOCHS = {"tiny": 12, "middle": 12, "cloud": 16}
_IMAGE = RawInput(
    name="image",
    takes=TensorSpec("image", (28, 28, 1), "uint8"),
    steps=(
        PreprocessingStep("scale", {"factor": 1 / 255}),
        PreprocessingStep("expand-dims", {"axis": 0}),
    ),
)


@dataclass(frozen=True)
class HeldOut:
    """What the models say of the 30,000 images that none was trained on.

    Attributes:
        labels: True classes, int64 of shape (images,).
        scores: Of each device model, as the device runtime ran its int8 bundle: float32 logits of shape (images, 10).
        cloud: Classes that the cloud's model says, int64 of shape (images,).
        bundles: The device's bundles.
    """

    labels: Array
    scores: dict[str, Array]
    cloud: Array
    bundles: dict[str, Path]

    def accuracy(self, name: str) -> float:
        """Share of images that a model gets right alone; ``"cloud"`` is the cloud's."""
        said = self.cloud if name == "cloud" else self.scores[name].argmax(1)
        return float(np.mean(said == self.labels))


def make_held_out(folder: Path) -> HeldOut:
    """The answers, made on first use: training takes about ten minutes on two cores.

    Raises:
        HybridgeError: `file-not-found` without the data folder.
    """
    bundles = {name: folder / f"{name}.edge" for name in DEVICE}
    kept = folder / "held-out.npz"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with np.load(data_file("fashion_mnist.npz")) as data:
            images = np.concatenate([data["x_train"], data["x_test"]])[..., np.newaxis]
            labels = np.concatenate([data["y_train"], data["y_test"]]).astype(np.int64)
        with hide_native_logs():
            answers = _answers(images, labels, bundles)
        arrays: dict[str, Any] = {"labels": labels[_TRAINED:], **answers}
        np.savez(kept, **arrays)
    with np.load(kept) as found:
        return HeldOut(found["labels"], {name: found[name] for name in DEVICE}, found["cloud"], bundles)


def _answers(images: Array, labels: Array, bundles: dict[str, Path]) -> dict[str, Array]:
    train, held_out = images[:_TRAINED], images[_TRAINED:]
    answers: dict[str, Array] = {}
    for name, path in bundles.items():
        say(f"training the device's {name} model and converting it to int8")
        bundle = convert(
            _trained(name, train, labels[:_TRAINED]),
            recipe="int8",
            name=name,
            version="1",
            representative={"image": train[:500]},
            preprocessing=(_IMAGE,),
        ).bundle
        bundle.save(path, overwrite=True)
        answers[name] = _run(bundle, held_out)
    say("training the cloud's model")
    cloud = _trained("cloud", train, labels[:_TRAINED])
    answers["cloud"] = cloud.predict(_scaled(held_out), batch_size=256, verbose=0).argmax(1)
    return answers


def _run(bundle: Bundle, images: Array) -> Array:
    tier = Tier(Model(bundle))
    rows = [tier.run([{"image": image}], batch_size=1)[0].outputs["scores"][0] for image in images]
    return np.stack(rows)


def _trained(name: str, images: Array, labels: Array) -> Any:
    import keras

    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((28, 28, 1), name="image"), *_LAYERS[name](layers), layers.Dense(10, name="scores")],
        name=name,
    )
    epochs = _EPOCHS[name]
    steps = epochs * -(-len(images) // _BATCH)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # XLA makes the steps of small convolutions several times slower on a CPU.
        jit_compile=False,
    )
    scaled = _scaled(images)
    if name != "cloud":
        model.fit(scaled, labels, batch_size=_BATCH, epochs=epochs, verbose=0)
        return model
    rng = np.random.default_rng(1)
    for epoch in range(epochs):
        model.fit(
            _varied(scaled, rng), labels, batch_size=_BATCH, initial_epoch=epoch, epochs=epoch + 1, verbose=0
        )
        say(f"cloud: epoch {epoch + 1} of {epochs}")
    return model


def _tiny(layers: Any) -> list[Any]:
    return [
        layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
    ]


def _middle(layers: Any) -> list[Any]:
    return [*_block(layers, 16), *_block(layers, 32), layers.Flatten(), layers.Dropout(0.3),
            layers.Dense(64, activation="relu"), layers.Dropout(0.2)]  # fmt: skip


def _cloud(layers: Any) -> list[Any]:
    return [*_block(layers, 32, 2), *_block(layers, 64, 2), *_block(layers, 128, 2), layers.Flatten(),
            layers.Dropout(0.4), layers.Dense(128, activation="relu"), layers.Dropout(0.4)]  # fmt: skip


_LAYERS = {"tiny": _tiny, "middle": _middle, "cloud": _cloud}


def _block(layers: Any, filters: int, convolutions: int = 1) -> list[Any]:
    block: list[Any] = []
    for _ in range(convolutions):
        block += [
            layers.Conv2D(filters, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
        ]
    return [*block, layers.MaxPooling2D()]


def _scaled(images: Array) -> Array:
    scaled: Array = images.astype(np.float32) / np.float32(255)
    return scaled


def _varied(images: Array, rng: np.random.Generator) -> Array:
    """The images, half of them mirrored, each shifted by up to two pixels."""
    varied = np.where(rng.random(len(images))[:, None, None, None] < 0.5, images, images[:, :, ::-1])
    padded = np.pad(varied, ((0, 0), (2, 2), (2, 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded[..., 0], (28, 28), axis=(1, 2))
    top, left = rng.integers(0, 5, (2, len(images)))
    shifted: Array = windows[np.arange(len(images)), top, left][..., np.newaxis]
    return shifted
