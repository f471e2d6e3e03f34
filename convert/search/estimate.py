"""How long fine-tuning will take, guessed before any was seen from how fast the source runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from convert.recipes import Training

if TYPE_CHECKING:
    from convert.workbench import Workbench

__all__ = ["TrainingEstimate"]

_TIMED_SAMPLES = 512
# Starting a process, importing TensorFlow and building the model; tracing each part; what an epoch takes beside steps.
_START_SECONDS, _PART_SECONDS, _EPOCH_SECONDS = 15.0, 5.0, 0.3
# Forward and backward, the update, and what wraps each layer, over the time of a forward pass alone.
_STEP_FACTOR = 4.0


class TrainingEstimate:
    """Seconds that a training takes on one workbench; called with the training.

    Args:
        workbench: The source and its data.
    """

    def __init__(self, workbench: Workbench):
        self._workbench = workbench
        self._forward: float | None = None

    def __call__(self, training: Training) -> float:
        """Seconds, within a factor of two or so; a search corrects it by the trainings it sees."""
        data = self._workbench.training or self._workbench.calibration
        samples = 0 if data is None else len(data)
        parts = sum((training.prune is not None, training.cluster is not None, training.qat)) or 1
        epoch = _EPOCH_SECONDS + samples * self._seconds_a_sample() * _STEP_FACTOR
        return _START_SECONDS + parts * (_PART_SECONDS + epoch * training.epochs)

    def _seconds_a_sample(self) -> float:
        if self._forward is None:
            inputs = {name: array[:_TIMED_SAMPLES] for name, array in self._workbench.judged.inputs.items()}
            self._workbench.source.predict(inputs)  # the first run traces
            start = time.perf_counter()
            self._workbench.source.predict(inputs)
            self._forward = (time.perf_counter() - start) / len(next(iter(inputs.values())))
        return self._forward
