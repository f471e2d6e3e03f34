"""The font model: which class of font a line of text is set in.

    python -m benchmarks.sign.font_model --out sign-font-1.edge

A convolutional network of 53,000 parameters, trained on lines drawn in the fonts that matplotlib ships, and judged on
texts that training did not see and on lines cut out of drawn scenes. Needs the extra `convert`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from benchmarks.sign.drawing import sign_scenes
from benchmarks.sign.font_samples import FontSamples, font_samples
from benchmarks.sign.fonts import FONT_CLASSES
from benchmarks.sign.ink import STRIP_SIZE, sign_ink
from benchmarks.sign.quads import grown, side_lengths
from benchmarks.sign.texts import sign_texts
from edge_runtime import Bundle, Confidence, Model
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, say, table
from edge_runtime.errors import missing_extra
from edge_runtime.files import check_writable
from edge_runtime.manifest import PreprocessingStep, RawInput
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["Judgement", "font_model", "judge", "scene_samples", "train_font_model"]

NAME, VERSION = "sign-font", "1"
_TRAIN, _HELD_OUT, _EPOCHS, _SEED = 8400, 1200, 16, 0
_REPORT_EVERY = 4

_RAW_STRIP = RawInput(
    name="strip",
    takes=TensorSpec("strip", (*STRIP_SIZE, 1), "uint8"),
    steps=(
        PreprocessingStep("scale", {"factor": 1 / 255}),
        PreprocessingStep("expand-dims", {"axis": 0}),
    ),
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """How often a model is right.

    Attributes:
        accuracy: Share of samples with the right class.
        confusion: Samples of each class (row) that were taken for each (column).
    """

    accuracy: float
    confusion: Array


def train_font_model(
    texts: Sequence[str],
    *,
    count: int = _TRAIN,
    epochs: int = _EPOCHS,
    seed: int = _SEED,
    report: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Trains the model and converts it to int8.

    Args:
        texts: What signs say; one in ten is kept for judging.
        count: Samples to train on.
        epochs: Passes over them.
        seed: Of samples and weights.
        report: Takes a line of progress.

    Returns:
        The bundle `sign-font-1`: `strip`, as `sign-ink` gives it, to `logits` of `FONT_CLASSES`, its labels.

    Raises:
        HybridgeError: `extra-missing` without Keras; what converting raises.
    """
    try:
        import keras
    except ModuleNotFoundError as error:
        raise missing_extra("convert", "keras") from error
    from convert import convert

    report(f"drawing {count} lines")
    train = font_samples(count, _split(texts)[0], seed=seed)
    held = font_samples(max(len(FONT_CLASSES), count // 8), _split(texts)[1], seed=seed + 1)
    keras.utils.set_random_seed(seed)
    model = _network(keras)
    steps = epochs * -(-count // 64)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(4e-3, steps)),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.05),
        metrics=["accuracy"],
    )
    targets = np.eye(len(FONT_CLASSES), dtype=np.float32)

    def tell(epoch: int, logs: dict[str, float]) -> None:
        if (epoch + 1) % _REPORT_EVERY == 0:
            report(f"epoch {epoch + 1} of {epochs}: {logs['val_accuracy']:.1%} right on other texts")

    model.fit(
        train.strips / np.float32(255),
        targets[train.labels],
        validation_data=(held.strips / np.float32(255), targets[held.labels]),
        validation_freq=_REPORT_EVERY,
        epochs=epochs,
        batch_size=64,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=tell)],
    )
    report("converting to int8")
    conversion = convert(
        model,
        recipe="int8",
        name=NAME,
        version=VERSION,
        representative={"strip": train.strips[:300]},
        evaluation={"strip": held.strips, "label": held.labels},
        labels=FONT_CLASSES,
        preprocessing=(_RAW_STRIP,),
        confidence=Confidence("logits"),
    )
    return conversion.bundle


def judge(bundle: Bundle, samples: FontSamples) -> Judgement:
    """The bundle's classes for samples beside the true ones."""
    model = Model(bundle)
    confusion = np.zeros((len(FONT_CLASSES), len(FONT_CLASSES)), np.int64)
    for strip, label in zip(samples.strips, samples.labels, strict=True):
        scores = model.run({"strip": strip[np.newaxis] / np.float32(255)})["logits"]
        confusion[label, int(np.argmax(scores))] += 1
    return Judgement(float(np.trace(confusion) / max(1, confusion.sum())), confusion)


def scene_samples(count: int, texts: Sequence[str], *, seed: int) -> FontSamples:
    """Lines cut out of drawn scenes, with the paper around them that a detector leaves."""
    strips, labels = [], []
    random = np.random.default_rng(seed)
    for scene in sign_scenes(count, seed=seed, phrases=texts):
        for line in scene.lines:
            quad = grown(line.quad, random.uniform(0.05, 0.22))
            height, width = side_lengths(quad)
            size = (max(8, round(width / height * STRIP_SIZE[0])), STRIP_SIZE[0])
            upright = np.array([(0, 0), (size[0], 0), size, (0, size[1])], np.float32)
            turn = cv2.getPerspectiveTransform(quad, upright)
            strips.append(sign_ink(cv2.warpPerspective(scene.image, turn, size))["strip"])
            labels.append(FONT_CLASSES.index(line.font_class))
    return FontSamples(np.stack(strips), np.array(labels, np.int64))


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The bundle to write.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
@format_option
def font_model(out: Path, overwrite: bool) -> None:
    """Trains the font model, judges it, and writes its bundle."""
    check_writable(out, overwrite=overwrite)
    start = time.perf_counter()
    texts = sign_texts()
    bundle = train_font_model(texts, report=say)
    seconds = time.perf_counter() - start
    bundle.save(out, overwrite=overwrite)
    held = _split(texts)[1]
    judged = {
        "other texts": judge(bundle, font_samples(_HELD_OUT, held, seed=_SEED + 2)),
        "lines of scenes": judge(bundle, scene_samples(150, held, seed=_SEED + 3)),
    }
    emit(
        {
            "bundle": str(out),
            "bytes": out.stat().st_size,
            "seconds": round(seconds, 1),
            "accuracy": {name: each.accuracy for name, each in judged.items()},
            "classes": FONT_CLASSES,
            "confusion": {name: each.confusion.tolist() for name, each in judged.items()},
        },
        lambda: "\n\n".join(_confusion(name, each) for name, each in judged.items()),
    )


def _split(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts to train on and to judge by; all of them for both when there are too few."""
    held = list(texts[::10])
    return (
        ([text for index, text in enumerate(texts) if index % 10], held) if len(texts) > 10 else (held, held)
    )


def _network(keras: Any) -> Any:
    layers = keras.layers
    strip = keras.Input((*STRIP_SIZE, 1), name="strip")
    x = strip
    for filters, kernel, stride in ((12, 5, 2), (24, 3, 2), (32, 3, 2), (48, 3, 1), (64, 3, 1)):
        x = layers.Conv2D(filters, kernel, strides=stride, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    return keras.Model(strip, layers.Dense(len(FONT_CLASSES), name="logits")(x), name="sign_font")


def _confusion(name: str, judgement: Judgement) -> str:
    rows = [
        (font_class, *(f"{count or ''}" for count in row))
        for font_class, row in zip(FONT_CLASSES, judgement.confusion.tolist(), strict=True)
    ]
    short = tuple("".join(part[0] for part in each.split("-")) + each[1] for each in FONT_CLASSES)
    return f"{name}: {judgement.accuracy:.1%}\n{table(rows, header=(name, *short))}"


if __name__ == "__main__":
    run_verb(font_model)
