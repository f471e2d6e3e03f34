"""Devices improve a model together: they train it where their data is, Flower averages, the result is converted.

What runs on a device (`Trainer`, `create_client_app`) needs the device runtime, and Flower for the latter; what runs
on the server also needs TensorFlow. Each name here is imported when it is first used.

Example:
    >>> from federated import simulate
    >>> result = simulate("digits.keras", "digits.npz", clients=10, rounds=5)
    >>> result.bundle.save("digits.edge")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from federated.client_app import create_client_app
    from federated.partitioning import partition
    from federated.plan import Plan, RoundReport
    from federated.samples import Samples
    from federated.server_app import create_server_app
    from federated.simulation import SimulationResult, simulate
    from federated.trainable import assign_weights, make_trainable
    from federated.trainer import Evaluation, Trainer, Weights
    from federated.verification import TrainingParity, verify_trainable

__all__ = [
    "Evaluation",
    "Plan",
    "RoundReport",
    "Samples",
    "SimulationResult",
    "Trainer",
    "TrainingParity",
    "Weights",
    "assign_weights",
    "create_client_app",
    "create_server_app",
    "make_trainable",
    "partition",
    "simulate",
    "verify_trainable",
]

_HOMES = {
    "Evaluation": "trainer",
    "Plan": "plan",
    "RoundReport": "plan",
    "Samples": "samples",
    "SimulationResult": "simulation",
    "Trainer": "trainer",
    "TrainingParity": "verification",
    "Weights": "trainer",
    "assign_weights": "trainable",
    "create_client_app": "client_app",
    "create_server_app": "server_app",
    "make_trainable": "trainable",
    "partition": "partitioning",
    "simulate": "simulation",
    "verify_trainable": "verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
