"""What an endpoint asks of a model: one of ours, or a program's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from cloud_fallback.endpoint.served.turn import Turn
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["ServedModel", "Then", "TimeLeft", "no_limit", "sooner"]

# Seconds until nobody waits for the answer any more: None is for ever, zero or less is already.
TimeLeft: TypeAlias = Callable[[], float | None]
# Gets what `ServedModel.infer` returns or raises, and how the request waited and ran, if it did.
Then: TypeAlias = Callable[[dict[str, Array] | BaseException, Turn | None], None]


def no_limit() -> None:
    """The `TimeLeft` of a caller who waits as long as it takes."""


def sooner(time_left: TimeLeft, seconds: float) -> Callable[[], float | None]:
    """`time_left`, or what is left of some seconds from now, whichever is less."""
    deadline = time.monotonic() + seconds

    def soonest() -> float | None:
        left, mine = time_left(), deadline - time.monotonic()
        return mine if left is None else min(left, mine)

    return soonest


class ServedModel(Protocol):
    """One model behind an endpoint: one of ours, or a program's own (see `Repository.load`).

    One that has a method `close` is closed when its endpoint stops. One that has a method ``begin(inputs, time_left,
    then)`` takes requests without holding their threads: it raises what it refuses, or returns at once, and calls the
    `Then` once when the request has run or will not.

    Attributes:
        name: What requests call it.
        version: Which of that name it is.
        platform: Framework and format, as the protocol spells them: ``<project>_<format>``.
        inputs: What a request gives; quantised tensors appear as the real values they stand for.
        outputs: What a response holds, likewise.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> str: ...  # noqa: D102
    @property
    def platform(self) -> str: ...  # noqa: D102
    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...  # noqa: D102
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...  # noqa: D102

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:
        """Runs the model once, from any thread.

        Args:
            inputs: An array for each input; strings as object arrays of bytes.
            time_left: Asked while waiting for a turn, and once more when it has come.

        Raises:
            HybridgeError: ``input-*`` for what the model does not take, `cloud-deadline` when no time was left
                before it ran, `invoke-failed` when it failed.
        """
        ...
