"""The training loop of one part: epochs of bounded length, the best admissible one kept, an early end within budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from convert.recipes import Training
from convert.training.messages import Epoch, Part
from convert.training.objective import Objective
from convert.training.own_function import TrainingData, train_with
from convert.training.samples import Samples
from edge_runtime.tensor_spec import Array

__all__ = ["Fitting", "steps_per_epoch"]

# An epoch sees at most so many samples: others come with the next.
_EPOCH_SAMPLES = 30_000
# Of what may be lost so much is left to the conversion.
_WELL_WITHIN = 0.5
# Epochs without a better one, after which none is expected.
_PATIENCE = 3


def steps_per_epoch(samples: Samples, training: Training) -> int:
    """Steps of one pass, bounded."""
    return max(1, min(len(samples.learned), _EPOCH_SAMPLES) // _batch_size(samples, training))


@dataclass(frozen=True)
class Fitting:
    """How models of all parts are trained.

    Attributes:
        training: The recipe's.
        samples: To learn from and to judge by.
        objective: What to learn.
        max_drop: Quality that may be lost, if limited.
        report: Told each epoch.
    """

    training: Training
    samples: Samples
    objective: Objective
    max_drop: float | None
    report: Callable[[Epoch], None]

    def fit(
        self,
        model: Any,
        part: Part,
        *,
        sparsity: Callable[[], float],
        admissible: Callable[[], bool] = lambda: True,
        callbacks: tuple[Any, ...] = (),
        slower: float = 1.0,
        later: bool = False,
    ) -> None:
        """Trains a model in place; it ends as it was after the best epoch that may be kept.

        Args:
            model: Of `tf_keras`, wrapped for the part.
            part: What for.
            sparsity: Share of zeros now.
            admissible: Whether the model is now what the part promises.
            callbacks: What tfmot must be told at every step.
            slower: Factor on the learning rate.
            later: Whether another part went before; this one only adjusts then, in half the epochs.

        Raises:
            HybridgeError: `training-failed` from a function of the user's own.
        """
        import tf_keras

        steps = steps_per_epoch(self.samples, self.training)
        epochs = -(-self.training.epochs // 2) if later else self.training.epochs
        rate = self.training.learning_rate * slower
        callbacks = (*callbacks, self._keeper(part, epochs, sparsity, admissible))
        if self.training.function is not None:
            train_with(self.training.function, model, self._data(part, epochs, steps, rate, callbacks))
            return
        model.compile(
            tf_keras.optimizers.Adam(tf_keras.optimizers.schedules.CosineDecay(rate, epochs * steps)),
            self.objective.losses,
            # XLA makes the steps of small convolutions several times slower on a CPU.
            jit_compile=False,
        )
        model.fit(
            self._batches(model, steps * epochs),
            epochs=epochs,
            steps_per_epoch=steps,
            callbacks=list(callbacks),
            verbose=0,
        )

    def _batches(self, model: Any, steps: int) -> Any:
        """A `tf.data` stream of (inputs, aims); passes over all samples follow one another across epochs."""
        import tensorflow as tf

        # Samples are gathered by index: one operation a batch instead of one a sample.
        inputs = [
            tf.constant(np.asarray(each, tensor.dtype.as_numpy_dtype))
            for each, tensor in zip(self.samples.inputs.values(), model.inputs, strict=True)
        ]
        aims = [tf.constant(each) for each in self.objective.aims]

        def gather(index: Any) -> Any:
            return tuple(tf.gather(each, index) for each in inputs), tuple(
                tf.gather(each, index) for each in aims
            )

        order = _order(
            self.samples.learned, steps, _batch_size(self.samples, self.training), self.training.seed
        )
        return tf.data.Dataset.from_tensor_slices(order).map(gather).prefetch(2)

    def _data(
        self, part: Part, epochs: int, steps: int, rate: float, callbacks: tuple[Any, ...]
    ) -> TrainingData:
        learned = np.sort(self.samples.learned)
        labels = self.samples.labels
        return TrainingData(
            part=part,
            inputs={name: np.asarray(each[learned]) for name, each in self.samples.inputs.items()},
            targets={name: np.asarray(each[learned]) for name, each in self.samples.targets.items()},
            labels=None if labels is None else labels[learned],
            epochs=epochs,
            steps_per_epoch=steps,
            batch_size=_batch_size(self.samples, self.training),
            learning_rate=rate,
            callbacks=callbacks,
        )

    def _keeper(
        self, part: Part, epochs: int, sparsity: Callable[[], float], admissible: Callable[[], bool]
    ) -> Any:
        import tf_keras

        fitting = self

        class Keeper(tf_keras.callbacks.Callback):  # type: ignore[misc]
            """Judges each epoch, keeps the best, and stops once what is lost is well within the budget."""

            def __init__(self) -> None:
                super().__init__()
                self._best = np.inf
                self._waited = 0
                self._kept: list[Array] | None = None

            def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
                samples = fitting.samples
                outputs = samples.predict(self.model, samples.held_back)
                quality = samples.quality(outputs)
                loss = fitting.objective.of(samples.held_back, outputs)
                fitting.report(
                    Epoch(
                        part=part,
                        epoch=epoch + 1,
                        epochs=epochs,
                        loss=float((logs or {}).get("loss", 0.0)),
                        validation_loss=loss,
                        quality=quality,
                        sparsity=sparsity(),
                    )
                )
                if not admissible():
                    return
                self._waited += 1
                # Nothing kept yet: whatever it is, a loss that is no number included.
                if self._kept is None or loss < self._best:
                    self._best, self._waited = loss, 0
                    self._kept = [variable.numpy() for variable in self.model.variables]
                if self._waited >= _PATIENCE or fitting.is_enough(quality):
                    self.model.stop_training = True

            def on_train_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
                for variable, value in zip(self.model.variables, self._kept or (), strict=False):
                    variable.assign(value)

        return Keeper()

    def is_enough(self, quality: float | None) -> bool:
        """Whether what is lost is well within what may be."""
        source = self.samples.source_quality
        if self.max_drop is None or quality is None or source is None:
            return False
        return source - quality <= _WELL_WITHIN * self.max_drop


def _batch_size(samples: Samples, training: Training) -> int:
    return min(training.batch_size, len(samples.learned))


def _order(learned: Array, steps: int, batch_size: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    passes = -(-steps * batch_size // len(learned))
    order = np.concatenate([rng.permutation(learned) for _ in range(passes)])
    return order[: steps * batch_size].reshape(steps, batch_size)
