"""The check that a trainable model trains as TensorFlow would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ErrorCode, HybridgeError
from federated.layers import LayerStack
from federated.samples import Samples
from federated.trainer import Trainer

if TYPE_CHECKING:
    import keras

__all__ = ["TrainingParity", "verify_trainable"]


@dataclass(frozen=True, slots=True)
class TrainingParity:
    """The largest difference to TensorFlow in losses, weights and probabilities over `steps` steps.

    Each is relative to the largest magnitude of the quantity where that is above 1, absolute otherwise.
    """

    steps: int
    loss_error: float
    weight_error: float
    output_error: float


def verify_trainable(
    model: keras.Model,
    content: bytes,
    *,
    samples: Samples | None = None,
    steps: int = 5,
    learning_rate: float = 0.05,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> TrainingParity:
    """Trains the model in TensorFlow and in the device runtime from the same start, and compares.

    TensorFlow trains a copy of the Keras model itself, with its own layers, activations and gradients, so nothing
    that `make_trainable` rewrote is on both sides. The last batch is not full.

    Args:
        model: The model that `content` was made from; it stays as it is.
        content: The bytes that `make_trainable` gave.
        samples: What to train on; standard normal inputs and random labels where it is None.
        steps: Batches to train on.
        learning_rate: Step size.
        tolerance: The largest difference to let pass.
        seed: Chooses the samples.

    Raises:
        HybridgeError: `parity-failed` when any difference is above `tolerance` or is no number.
    """
    trainer = Trainer(content)
    rng = np.random.default_rng(seed)
    batches = [_batch(trainer, samples, rng) for _ in range(steps)]
    if len(batches[-1]) > 1:
        batches[-1] = batches[-1][: (len(batches[-1]) + 1) // 2]
    stack, reference_losses, reference_outputs = _train_reference(model, batches, learning_rate)
    losses = [
        trainer.train_epoch(batch.x, batch.y, learning_rate=learning_rate, rng=rng).loss for batch in batches
    ]
    weights = trainer.get_weights()
    parity = TrainingParity(
        steps=steps,
        loss_error=_error(np.array(losses), np.array(reference_losses)),
        weight_error=max(_error(weights[name], variable.numpy()) for name, variable in stack.weights.items()),
        output_error=_error(trainer.infer(batches[0].x), reference_outputs),
    )
    # Written so that a NaN fails.
    if not max(parity.loss_error, parity.weight_error, parity.output_error) <= tolerance:
        raise HybridgeError(
            ErrorCode.PARITY_FAILED,
            f"training of model '{model.name}' in the device runtime, after {steps} steps",
            received=(
                f"differences to TensorFlow of {parity.loss_error:.2g} in loss, {parity.weight_error:.2g} in "
                f"weights, {parity.output_error:.2g} in outputs"
            ),
            expected=f"at most {tolerance:g}",
            fix="scale the inputs to about -1..1, for example with a Rescaling layer",
        )
    return parity


def _batch(trainer: Trainer, samples: Samples | None, rng: np.random.Generator) -> Samples:
    size = trainer.batch_size
    if samples is not None:
        return samples[rng.permutation(len(samples))[:size]]
    return Samples(
        rng.normal(size=(size, *trainer.input_shape)).astype(np.float32),
        rng.integers(0, trainer.classes, size).astype(np.int32),
    )


def _train_reference(
    model: keras.Model, batches: list[Samples], learning_rate: float
) -> tuple[LayerStack, list[float], npt.NDArray[np.float32]]:
    """Trains a copy of the model in TensorFlow; gives the copy, its losses, and probabilities for the first batch."""
    import keras
    import tensorflow as tf

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    stack = LayerStack(copy)
    layers = stack.layers
    if isinstance(layers[-1], keras.layers.Softmax):
        layers = layers[:-1]
    elif stack.ends_in_softmax:
        layers[-1].activation = keras.activations.linear

    def logits(x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    losses = []
    for batch in batches:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=batch.y, logits=logits(batch.x))
            )
        gradients = tape.gradient(loss, [variable.value for variable in copy.trainable_variables])
        for variable, gradient in zip(copy.trainable_variables, gradients, strict=True):
            variable.assign_sub(learning_rate * gradient)
        losses.append(float(loss))
    return stack, losses, tf.nn.softmax(logits(batches[0].x)).numpy()


def _error(received: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    return float(np.abs(received - expected).max() / max(1.0, np.abs(expected).max()))
