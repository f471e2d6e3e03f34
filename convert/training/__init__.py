"""Fine-tuning that makes a model easier to shrink: weights in, weights out, by tfmot in a process of its own."""

from convert.training.fine_tuning import fine_tune
from convert.training.messages import Epoch, FineTuned
from convert.training.own_function import TrainingData

__all__ = ["Epoch", "FineTuned", "TrainingData", "fine_tune"]
