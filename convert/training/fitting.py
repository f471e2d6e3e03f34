"""The training loop of one part: epochs of bounded length, the best admissible one kept, an early end within budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from convert.training.learning import Learning
from convert.training.messages import Epoch, Request
from convert.training.messages import Part as PartName
from convert.training.own_function import TrainingData, train_with

__all__ = ["Part", "fit", "steps_per_epoch"]

# An epoch sees at most so many samples: others come with the next, and a report comes at least twice a minute.
_EPOCH_SAMPLES = 20_000
# Of the accuracy that may be lost, so much is left for what conversion adds.
_WELL_WITHIN = 0.5


@dataclass(frozen=True)
class Part:
    """What is trained for, and when a model of it may be kept.

    Attributes:
        name: Of the part.
        sparsity: Share of zeros now.
        admissible_after: Steps after which the model is what the part promises.
        callbacks: What tfmot must be told at every step.
        slower: Factor on the learning rate: later parts only adjust.
    """

    name: PartName
    sparsity: Callable[[], float]
    admissible_after: int = 0
    callbacks: tuple[Any, ...] = ()
    slower: float = 1.0


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Steps of one pass, bounded."""
    return max(1, min(samples, _EPOCH_SAMPLES) // batch_size)


def fit(
    model: Any, part: Part, learning: Learning, request: Request, *, report: Callable[[Epoch], None]
) -> None:
    """Trains a model in place; it ends with the weights of the best epoch that may be kept."""
    import tf_keras

    training = request.training
    steps = steps_per_epoch(len(learning.learned), training.batch_size)
    keeper = _keeper(part, learning, request, steps, report)
    rate = training.learning_rate * part.slower
    if training.function is not None:
        data = TrainingData(
            inputs=dict(
                zip(
                    request.inputs,
                    (np.asarray(each)[learning.learned] for each in learning.inputs),
                    strict=True,
                )
            ),
            targets=dict(
                zip(learning.names, (each[learning.learned] for each in learning.targets), strict=True)
            ),
            labels=None if learning.labels is None else learning.labels[learning.learned],
            epochs=training.epochs,
            batch_size=training.batch_size,
            learning_rate=rate,
            callbacks=(*part.callbacks, keeper),
        )
        train_with(training.function, model, data)
        return
    schedule = tf_keras.optimizers.schedules.CosineDecay(rate, training.epochs * steps)
    losses = learning.losses()
    model.compile(
        tf_keras.optimizers.Adam(schedule),
        losses if len(losses) > 1 else losses[0],
        # XLA makes the steps of small convolutions several times slower on a CPU.
        jit_compile=False,
    )
    model.fit(
        learning.batches(training.batch_size),
        epochs=training.epochs,
        steps_per_epoch=steps,
        callbacks=[*part.callbacks, keeper],
        verbose=0,
    )


def _keeper(
    part: Part, learning: Learning, request: Request, steps: int, report: Callable[[Epoch], None]
) -> Any:
    import tf_keras

    class Keeper(tf_keras.callbacks.Callback):  # type: ignore[misc]
        """Judges each epoch, keeps the best, and stops once what is lost is well within the budget."""

        best: float = -np.inf
        weights: list[Any] | None = None

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            quality = learning.quality(self.model)
            report(
                Epoch(
                    part=part.name,
                    epoch=epoch + 1,
                    epochs=request.training.epochs,
                    loss=float((logs or {}).get("loss", 0.0)),
                    quality=quality,
                    sparsity=part.sparsity(),
                )
            )
            if (epoch + 1) * steps < part.admissible_after and epoch + 1 < request.training.epochs:
                return
            merit = quality if quality is not None else -learning.loss_held_back(self.model)
            # Of equals the later one, which was trained with a smaller step.
            if merit >= self.best:
                self.best, self.weights = merit, self.model.get_weights()
            source = learning.source_quality
            if request.max_drop is not None and quality is not None and source is not None:
                self.model.stop_training = source - quality <= _WELL_WITHIN * request.max_drop

        def on_train_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
            if self.weights is not None:
                self.model.set_weights(self.weights)

    return Keeper()
