"""The network that finds a text's phrase: characters in, how likely each phrase of the book is out.

Convolutions over characters find pieces of words, of which the strongest anywhere in the text count (Kim,
"Convolutional Neural Networks for Sentence Classification", EMNLP 2014; Zhang, Zhao and LeCun, "Character-level
Convolutional Networks for Text Classification", NIPS 2015): what a reader got wrong leaves the other pieces as they
are. One more class stands for texts that are in no phrase; its likelihood is taken from the phrases' and not given
out, so that the largest of theirs says how sure it is that the text is in the book at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.sign.translation.encoding import LENGTH, VOCABULARY
from edge_runtime.errors import missing_extra
from edge_runtime.tensor_spec import Array

__all__ = ["fitted_temperature", "phrase_network", "train_network"]

_EMBEDDING, _NARROW, _WIDE = 32, 128, 160
_EPOCHS, _BATCH, _LEARNING_RATE = 3, 128, 3e-3

Say = Callable[[str], None]


def train_network(characters: Array, classes: Array, phrases: int, *, seed: int, say: Say) -> Any:
    """A Keras model from `characters` to `logits`, one for each phrase and the last for none of them.

    Args:
        characters: Encoded texts, int32 of shape (n, 48).
        classes: The phrase of each, or `phrases` for none; int of shape (n,).
        phrases: How many phrases there are.
        seed: Of the weights and of the order of texts.
        say: Takes a line of progress.

    Raises:
        HybridgeError: `extra-missing` without Keras.
    """
    keras = _keras()
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    given = keras.Input((LENGTH,), dtype="int32", name="characters")
    embedded = layers.Embedding(len(VOCABULARY), _EMBEDDING)(given)
    letters = layers.Conv1D(_NARROW, 3, padding="same", activation="relu")(embedded)
    pieces = layers.Conv1D(_WIDE, 3, padding="same", activation="relu")(layers.MaxPooling1D(2)(letters))
    words = layers.Conv1D(_WIDE, 3, padding="same", activation="relu")(layers.MaxPooling1D(2)(pieces))
    strongest = layers.Concatenate()(
        [layers.GlobalMaxPooling1D()(pieces), layers.GlobalMaxPooling1D()(words)]
    )
    logits = layers.Dense(phrases + 1, name="logits")(layers.Dropout(0.2)(strongest))
    model = keras.Model(given, logits, name="sign_translation")
    steps = _EPOCHS * -(-len(classes) // _BATCH)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    report = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: say(f"epoch {epoch + 1} of {_EPOCHS}, loss {logs['loss']:.3f}")
    )
    model.fit(characters, classes, epochs=_EPOCHS, batch_size=_BATCH, verbose=0, callbacks=[report])
    return model


def phrase_network(trained: Any, temperature: float) -> Any:
    """The trained network with likelihoods of phrases for logits, as a Keras model from `characters` to `phrases`.

    The temperature is divided into the last layer. A runtime cannot apply it afterwards: the likelihoods lack the one
    of no phrase, and no longer add up to one.
    """
    keras = _keras()
    kernel, bias = trained.get_layer("logits").get_weights()
    cooled = keras.layers.Dense(bias.size, activation="softmax", name="likelihoods")
    likelihoods = cooled(trained.get_layer("logits").input)
    phrases = keras.layers.Identity(name="phrases")(likelihoods[:, :-1])
    model = keras.Model(trained.input, phrases, name=trained.name)
    cooled.set_weights([kernel / np.float32(temperature), bias / np.float32(temperature)])
    return model


def fitted_temperature(logits: Array, classes: Array) -> float:
    """The temperature at which logits have the least cross-entropy (Guo et al., ICML 2017).

    Args:
        logits: Of texts that training has not seen, float32 of shape (n, classes).
        classes: The right ones, int of shape (n,).
    """
    # Coarse steps are enough: the loss is flat around its least.
    tried = np.geomspace(0.5, 4.0, 43)
    losses = []
    for temperature in tried:
        scaled = logits.astype(np.float64) / temperature
        scaled -= scaled.max(-1, keepdims=True)
        right = scaled[np.arange(len(classes)), classes]
        losses.append(float(np.mean(np.log(np.exp(scaled).sum(-1)) - right)))
    return float(tried[int(np.argmin(losses))])


def _keras() -> Any:
    try:
        import keras
    except ModuleNotFoundError as error:
        raise missing_extra("convert", "keras") from error
    return keras
