"""What goes into a stream and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_runtime.tensor_spec import Value

if TYPE_CHECKING:
    from edge_runtime.errors import HybridgeError
    from edge_runtime.prediction import Prediction

__all__ = ["Frame", "StreamResult"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One input of a stream.

    A source that cannot make one of its frames, such as a photograph that is cut off, gives the `HybridgeError` in its
    place and goes on with the next; a source that cannot go on raises it.

    Attributes:
        inputs: A value for each input of the chain, by name.
        name: What to call it to a person, such as a file's name.
        time_s: Its place in the source, in seconds from the source's start.
    """

    inputs: Mapping[str, Value]
    name: str = ""
    time_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StreamResult:
    """What became of one frame: a prediction, or the error that stopped it; never both.

    Attributes:
        index: The frame's number in its source; a number that is missing was dropped.
        frame: The frame itself; without inputs, and named by what the error is about, where the source gave an error
            in its place.
        prediction: The chain's answer.
        error: Why there is none.
    """

    index: int
    frame: Frame
    prediction: Prediction | None
    error: HybridgeError | None = None
