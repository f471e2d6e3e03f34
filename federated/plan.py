"""What a federated run is to do, and what it reports while it does it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.manifest import Positive

__all__ = ["Plan", "RoundReport"]

_Count = Annotated[int, Meta(ge=1)]


class Plan(Struct, frozen=True, kw_only=True, rename="kebab"):
    """Settings of a federated run.

    Attributes:
        clients: How many clients take part; all of them train in every round.
        rounds: How often they train and are averaged.
        local_epochs: How often a client goes through its samples in a round.
        learning_rate: Step size of the clients' gradient descent.
        seed: Chooses the order of samples within each client and round.
    """

    clients: _Count = 10
    rounds: _Count = 5
    local_epochs: _Count = 1
    learning_rate: Positive = 0.1
    seed: Annotated[int, Meta(ge=0)] = 0

    def checked(self) -> Plan:
        """The same plan, when its numbers are in their ranges.

        Raises:
            HybridgeError: `usage`, naming the setting.
        """
        try:
            return msgspec.convert(msgspec.to_builtins(self), Plan)
        except msgspec.ValidationError as error:
            raise HybridgeError(ErrorCode.USAGE, "federated run", received=str(error)) from error


class RoundReport(Struct, frozen=True, kw_only=True):
    """The global model after a round; round 0 is the model before any training.

    Attributes:
        round: Number of the round.
        loss: Mean loss on the server's held-back samples.
        accuracy: Top-1 accuracy on the server's held-back samples.
        train_loss: Mean loss of the clients while they trained, weighted by their samples; None in round 0.
        client_accuracy: Accuracy on the clients' own samples, weighted alike; None in round 0.
    """

    round: int
    loss: float
    accuracy: float
    train_loss: float | None = None
    client_accuracy: float | None = None
