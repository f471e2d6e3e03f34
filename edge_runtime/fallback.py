"""The protocol through which a chain asks elsewhere; `cloud_fallback` implements it.

Implementations are found by URL scheme among the entry points of the group ``hybridge.fallbacks``, each a callable
that takes the URL and keyword options and returns a `Fallback`. For a fallback in a chain's file whose table has keys
that the runtime does not know, two of the options are ``settings``, these keys, and ``folder``, what paths in them are
relative to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.prediction import Reason, Source
from edge_runtime.tensor_spec import Array

if TYPE_CHECKING:
    from edge_runtime.metrics import Measure

__all__ = [
    "Answer",
    "Deferring",
    "Fallback",
    "Figures",
    "LateAnswer",
    "Measured",
    "Outbox",
    "OutboxFigures",
    "Query",
    "open_fallback",
]

_GROUP = "hybridge.fallbacks"


# These two are made for each prediction; frozen ones would take three times as long to make.
@dataclass(slots=True)
class Query:
    """What a stage knows when it may ask elsewhere.

    Attributes:
        stage: The stage's name.
        inputs: The stage's inputs as the caller gave them, before any preprocessing of the device's model.
        outputs: What the device's model answered.
        confidence: How sure that answer is, in 0..1.
        threshold: The confidence below which the bundle or chain says to ask, if it says.
        deadline: The moment by which the answer must be there, on the clock of `time.monotonic`, or None.
        private: Whether the stage's data must not leave the device; `inputs` is then empty.
        agrees: Whether outputs from elsewhere say the same as the device's, where the stage can tell: the same class.
    """

    stage: str
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    confidence: float | None = None
    threshold: float | None = None
    deadline: float | None = None
    private: bool = False
    agrees: Callable[[Mapping[str, Array]], bool] | None = None


@dataclass(slots=True)
class Answer:
    """What came of a query: `outputs` from elsewhere, or None to keep the device's own.

    Attributes:
        outputs: The stage's outputs from elsewhere, or None.
        source: Where the answer that stands came from.
        reason: Why from there.
        detail: The reason in a sentence, where there is more to say.
        refused: Whether the policy refuses to stand for the device's answer, which is all there is.
        request_id: Of a question that was deferred; its answer comes later under the same.
    """

    outputs: Mapping[str, Array] | None
    source: Source
    reason: Reason
    detail: str = ""
    refused: bool = False
    request_id: str = ""

    @classmethod
    def keep(cls, reason: Reason, detail: str = "", *, refused: bool = False) -> Answer:
        """The device's own answer stands, or is refused."""
        return cls(None, Source.DEVICE, reason, detail, refused)

    @classmethod
    def defer(cls, reason: Reason, request_id: str, *, refused: bool = False) -> Answer:
        """The device's own answer stands until one comes from the outbox."""
        return cls(None, Source.DEFERRED, reason, refused=refused, request_id=request_id)


@dataclass(frozen=True, slots=True)
class LateAnswer:
    """What became of a question that was deferred.

    Attributes:
        request_id: That of the prediction whose question it was.
        stage: The stage that asked.
        outputs: The stage's outputs, in the endpoint's types; None when there will be none.
        error: Why there will be none.
        number: 1 when this surely is the first time that it comes.
    """

    request_id: str
    stage: str
    outputs: Mapping[str, Array] | None
    error: HybridgeError | None
    number: int


@runtime_checkable
class Fallback(Protocol):
    """Decides whether to ask elsewhere, and asks.

    `resolve` is called for every prediction of a stage that has a fallback, from any thread. It returns within the
    query's deadline and does not raise for a cloud that fails: the device's answer is then kept, with the reason.
    """

    def resolve(self, query: Query) -> Answer:
        """Keeps the device's answer or fetches another."""
        ...

    def close(self) -> None:
        """Releases connections; the fallback is not used again."""
        ...


class Figures(Protocol):
    """What a fallback did, at one moment."""

    def measures(self) -> Iterable[Measure]:
        """The same for who shows it."""
        ...


@runtime_checkable
class Measured(Fallback, Protocol):
    """A fallback that counts what it does."""

    def figures(self) -> Figures:
        """What it did so far; called at any time, from any thread, also when it was closed."""
        ...


class OutboxFigures(Protocol):
    """What an outbox holds, at one moment."""

    @property
    def left(self) -> int:
        """Questions that are not done with: they wait, or nobody took what became of them."""
        ...


class Outbox(Protocol):
    """Where questions wait."""

    def figures(self) -> OutboxFigures:
        """What it holds; called at any time, from any thread."""
        ...


@runtime_checkable
class Deferring(Fallback, Protocol):
    """A fallback that may defer questions, to an outbox that others may share.

    Attributes:
        outbox: Where they wait, or None where it defers none.
    """

    @property
    def outbox(self) -> Outbox | None:
        """What several fallbacks may have the same of."""
        ...

    def drain(
        self, on_answer: Callable[[LateAnswer], object], *, sharing: Sequence[Fallback] = ()
    ) -> AbstractContextManager[Callable[[], Mapping[str, int]]]:
        """Asks what waits in its outbox, from entering to leaving, in threads of its own; leaving does not wait long.

        Args:
            on_answer: Takes what became of each question, from one thread; what it does not return from comes again.
            sharing: Other fallbacks with the same outbox, whose questions are asked too.

        Returns:
            What is entered; it gives a function that says how many questions are not done with, by where they go.
        """
        ...


def open_fallback(url: str, **options: Any) -> Fallback:
    """The fallback for a URL, such as ``grpc://cloud.example:8001/digits-large``.

    Args:
        url: Its scheme chooses the implementation.
        **options: Passed on to it.

    Raises:
        HybridgeError: `fallback-unknown` when nothing installed handles the scheme.
    """
    # Costs more to import than the rest of this package together, and only URLs need it.
    from importlib.metadata import entry_points

    scheme = url.partition("://")[0]
    known = {point.name: point for point in entry_points(group=_GROUP)}
    if scheme not in known or "://" not in url:
        raise HybridgeError(
            ErrorCode.FALLBACK_UNKNOWN,
            f"fallback '{url}'",
            received=f"scheme '{scheme}'" if "://" in url else "no scheme",
            expected=f"a URL that starts with one of {', '.join(f'{name}://' for name in sorted(known))}",
        )
    fallback: Fallback = known[scheme].load()(url, **options)
    return fallback
