"""What became of a request in the queue of a model, told by the queue to who asked."""

from __future__ import annotations

import threading
from dataclasses import dataclass

__all__ = ["Turn", "note_turn", "take_turn"]


@dataclass(slots=True)
class Turn:
    """One request's turn at a model.

    Attributes:
        queued_s: Seconds from its arrival to the beginning of the run that answered it.
        run_s: Seconds of that run.
        rows: Rows that ran in it, its own and those of others; 1 where requests are not batched.
    """

    queued_s: float
    run_s: float
    rows: int = 1


class _Noted(threading.local):
    turn: Turn | None = None


# A model is asked, and answers, on one thread, and its interface has no room for how that went.
_noted = _Noted()


def note_turn(turn: Turn) -> None:
    """Leaves how a request went for the caller of `ServedModel.infer`, which is on this thread."""
    _noted.turn = turn


def take_turn() -> Turn | None:
    """What the model that was asked last on this thread noted, once; None from one that notes nothing."""
    turn = _noted.turn
    _noted.turn = None
    return turn
