"""`hybridge fallback drain`: asks what waits in an outbox, without running the chain that put it there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.access_flags import access_flags, access_settings
from edge_runtime.console import format_option, is_json, say, usage_error
from edge_runtime.errors import ErrorCode, HybridgeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloud_fallback.client.client import CloudFallback
    from edge_runtime.fallback import LateAnswer

__all__ = ["drain"]

_POLL_S = 0.05


@click.command()
@click.argument("chain", required=False, type=click.Path(dir_okay=False))
@click.option("--outbox", type=click.Path(dir_okay=False), help="The outbox's file, in place of a chain's.")
@click.option(
    "--fallback", metavar="URL", help="Whom to ask what is in it, such as grpc://host:8001/digits-large."
)
@access_flags
@click.option(
    "--wait-s",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Gives up when no answer came for so many seconds.",
)
@format_option
def drain(chain: str | None, outbox: str | None, fallback: str | None, wait_s: float, **access: Any) -> None:
    """Asks what waits in the outbox of a chain (.toml), and writes each answer as it comes, until it is empty.

    What is left when it gives up, or is stopped, stays in the outbox. An answer that was written is gone from it.
    """
    if (chain is None) == (outbox is None) or (outbox is None) != (fallback is None):
        raise usage_error("give either a chain, or --outbox and --fallback")
    settings = access_settings(**access)
    if settings and fallback is None:
        raise usage_error("--tls-* and --token-* are for --fallback; a chain has keys for them")
    taking = _Taking()
    with _opened(chain, outbox or "", fallback or "", settings) as fallbacks:
        try:
            _drain(fallbacks, taking, wait_s)
        finally:
            say(f"{taking.answers} {'answer' if taking.answers == 1 else 'answers'}")


class _Taking:
    """Writes answers to standard output, and counts them."""

    def __init__(self) -> None:
        self.answers = 0
        self.failure: OSError | None = None
        self._as_json = is_json()

    def take(self, late: LateAnswer) -> None:
        from edge_runtime.late_answers import write_late

        try:
            write_late(late, as_json=self._as_json)
        except OSError as error:
            # Nobody reads any more: what was not written stays in the outbox.
            self.failure = error
            raise
        self.answers += 1


@contextmanager
def _opened(
    chain: str | None, outbox: str, url: str, settings: Mapping[str, Any]
) -> Iterator[Sequence[CloudFallback]]:
    from cloud_fallback.client.client import CloudFallback

    if chain is None:
        # Opening one that is not there would make it.
        if not Path(outbox).is_file():
            raise HybridgeError(
                ErrorCode.FILE_NOT_FOUND,
                f"outbox '{outbox}'",
                received="no such file",
                expected="the outbox of a chain",
            )
        with CloudFallback.from_url(url, settings={**settings, "outbox": outbox}) as single:
            yield [single]
        return
    from edge_runtime.chain import load_chain
    from edge_runtime.late_answers import deferring

    with load_chain(chain) as loaded:
        fallbacks = [each for each in deferring(loaded) if isinstance(each, CloudFallback)]
        if not fallbacks:
            raise HybridgeError(
                ErrorCode.CHAIN_INVALID,
                f"chain '{chain}'",
                received="no fallback with an outbox",
                expected="one that defers",
            )
        yield fallbacks


def _drain(fallbacks: Sequence[CloudFallback], taking: _Taking, wait_s: float) -> None:
    from edge_runtime.late_answers import draining

    asked = {each.destination for each in fallbacks}
    before, since_s = 0, time.monotonic()
    with draining(fallbacks, taking.take) as left:
        while waiting := left():
            if taking.failure is not None:
                raise taking.failure
            if not waiting.keys() & {"", *asked}:
                raise HybridgeError(
                    ErrorCode.FALLBACK_UNKNOWN,
                    f"{waiting.total()} left in the outbox",
                    received=f"questions for {', '.join(sorted(waiting))}",
                    expected=f"questions for {', '.join(sorted(asked))}",
                    fix="drain them with the fallback that put them there",
                )
            if taking.answers != before:
                before, since_s = taking.answers, time.monotonic()
            elif time.monotonic() - since_s > wait_s:
                raise HybridgeError(
                    ErrorCode.CLOUD_UNAVAILABLE,
                    f"{waiting.total()} left in the outbox",
                    received=f"no answer for {wait_s:g} s{_why(fallbacks)}",
                    fix=_advice(fallbacks)
                    or "drain again when the endpoint answers and the budget allows; nothing is lost",
                )
            time.sleep(_POLL_S)


def _advice(fallbacks: Sequence[CloudFallback]) -> str:
    """What to do, where an endpoint does not let in or is not trusted."""
    from cloud_fallback.client.access_advice import access_advice, refusal

    refusals = filter(None, map(refusal, fallbacks))
    return next(filter(None, map(access_advice, refusals)), "")


def _why(fallbacks: Sequence[CloudFallback]) -> str:
    """What asking came to, by endpoint."""
    said = [
        f"{each.target}: {', '.join(f'{count} times {code}' for code, count in each.figures().failures.items())}"
        for each in fallbacks
        if each.figures().failures
    ]
    return f" ({'; '.join(dict.fromkeys(said))})" if said else ""
