"""`hybridge run` on a stream: a source, a chain, sinks, and what a person watches meanwhile."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_runtime.bundle_watch import BundleWatch
from edge_runtime.chain import Chain
from edge_runtime.chain.chain_step import ChainStep
from edge_runtime.chain.foreach import Foreach
from edge_runtime.console import emit_line, is_json, say, usage_error
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.fallback import Measured
from edge_runtime.late_answers import deferring, draining, wait_until_empty, write_late
from edge_runtime.live_view import LiveView, metrics_text
from edge_runtime.run_command import answered_by, takes_bytes
from edge_runtime.sinks import Sink, open_sink
from edge_runtime.sources import Source, open_source, settings_of

if TYPE_CHECKING:
    from edge_runtime.chain.stream import Overflow, Stream
    from edge_runtime.frame import StreamResult

__all__ = ["StreamSettings", "run_stream"]

# What the end of a stream waits for answers to what was deferred; they come when it is drained again, too.
_LAST_ANSWERS_S = 2.0
_DRAWN = ("image", "boxes", "quads", "points", "labels")


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """The flags of `hybridge run` that are for streams."""

    out: tuple[str, ...]
    draw: tuple[str, ...]
    overwrite: bool
    watch: bool
    overflow: str | None
    queue_size: int
    workers: int | None
    metrics_port: int | None


def run_stream(chain: Chain, given: str, settings: StreamSettings) -> None:
    """Runs a chain over a source until that ends, or the process is asked to stop.

    A frame that fails is reported and passed over. An interrupt, or SIGTERM as systemd sends it, ends a stream that
    watches without an error: what is under way is answered no more, files are closed whole.

    Questions that wait in an outbox are asked meanwhile, and their answers are lines of their own on standard output.

    Raises:
        HybridgeError: What opening the source or a sink raises, and what ends the source, such as a camera that is
            gone; `operator-failed` at the end when no frame at all could be answered.
    """
    drawn = _drawn(settings.draw)
    # Sinks are opened first: a target that cannot be written is known before a camera is switched on.
    with ExitStack() as stack:
        sinks = [stack.enter_context(_sink(spec, drawn, settings.overwrite)) for spec in settings.out]
        if not sinks and is_json():
            sinks = [stack.enter_context(open_sink("-"))]
        source = stack.enter_context(_source(chain, given, settings.watch))
        if settings.watch:
            stack.enter_context(BundleWatch(chain))
        if settings.metrics_port is not None:
            from edge_runtime.prometheus import serve_metrics

            for stage, fallback in _measured(chain):
                chain.metrics.stage_asks(stage, fallback)
            server = serve_metrics([chain.metrics], port=settings.metrics_port)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
        overflow: Overflow = settings.overflow or ("drop-oldest" if source.live else "block")  # type: ignore[assignment]
        stream = stack.enter_context(
            chain.stream(source, queue_size=settings.queue_size, overflow=overflow, workers=settings.workers)
        )
        is_watched = settings.watch and sys.stderr.isatty()
        if is_watched:
            stack.enter_context(LiveView(chain.metrics))
        as_json = is_json() or "-" in settings.out
        left = stack.enter_context(draining(deferring(chain), lambda late: write_late(late, as_json=as_json)))
        stack.enter_context(_until_stopped(stream, settings.watch))
        answered, failed = _pass_on(stream, sinks, tells=not is_watched)
        if not settings.watch:
            wait_until_empty(left, _LAST_ANSWERS_S)
    if not is_watched:
        say(metrics_text(chain.metrics.figures()))
    if failed and not answered:
        raise HybridgeError(
            ErrorCode.OPERATOR_FAILED,
            f"stream '{given}'",
            received=f"{failed} frames that all failed",
            expected="frames that the chain can answer",
            fix="see the errors above",
        )


def _measured(chain: Chain, within: str = "") -> Iterator[tuple[str, Measured]]:
    """The fallbacks that count what they do, by stage, ``outer/inner`` within a nested chain."""
    for stage in chain.stages:
        step = stage.step.step if isinstance(stage.step, Foreach) else stage.step
        if isinstance(step, ChainStep):
            yield from _measured(step.chain, f"{within}{stage.name}/")
        if isinstance(stage.fallback, Measured):
            yield within + stage.name, stage.fallback


def _pass_on(stream: Stream, sinks: list[Sink], *, tells: bool) -> tuple[int, int]:
    answered = failed = 0
    while (result := stream.next_result()) is not None:
        if result.error is None:
            answered += 1
        else:
            failed += 1
            if tells or not sinks:
                name = result.frame.name or f"frame {result.index}"
                said = result.error.message
                say(f"{said if name in said else f'{name}: {said}'} [{result.error.code}]")
        for sink in sinks:
            sink.write(result)
        if not sinks and result.prediction is not None:
            emit_line(_line(result))
    return answered, failed


def _line(result: StreamResult) -> str:
    """One frame's answer as a person reads it."""
    prediction = result.prediction
    assert prediction is not None  # noqa: S101 - only answers are shown
    facts = [result.frame.name or f"frame {result.index}"]
    if prediction.label is not None:
        facts.append(prediction.label)
    if prediction.confidence is not None:
        facts.append(f"confidence {prediction.confidence:.3f} from the {answered_by(prediction)}")
    if prediction.request_ids:
        facts.append(f"deferred as {', '.join(prediction.request_ids)}")
    for name, value in prediction.outputs.items():
        if isinstance(value, list):
            facts.append(f"{name}: {len(value)} items")
        elif value.dtype.kind in "US" or value.size <= 4:
            facts.append(f"{name}: {value.tolist()}")
        else:
            facts.append(f"{name}: {value.dtype}{value.shape}")
    return f"{', '.join(facts)} ({prediction.elapsed_ms:.1f} ms)"


def _source(chain: Chain, given: str, watch: bool) -> Source:
    name, equals, spec = given.partition("=")
    if not equals or name not in chain.inputs:
        name, spec = chain.inputs[0], given
    known = settings_of(spec, watch=watch)
    wanted = {"watch": watch or None, "decode": False if takes_bytes(chain, name) else None}
    # Not every source can do either; those that cannot have nothing to watch for, and give no bytes of files.
    settings = {key: value for key, value in wanted.items() if key in known}
    return open_source(spec, name=name, specs=tuple(chain.input_specs.values()), **settings)


def _sink(spec: str, drawn: dict[str, str], overwrite: bool) -> Sink:
    is_drawing = not (spec == "-" or spec.endswith((".jsonl", ".ndjson")))
    if spec == "-":
        return open_sink(spec)
    return open_sink(spec, overwrite=overwrite, **(drawn if is_drawing else {}))


def _drawn(given: tuple[str, ...]) -> dict[str, str]:
    drawn = {}
    for entry in given:
        what, equals, tensor = entry.partition("=")
        if not equals or what not in _DRAWN:
            raise usage_error(f"--draw {entry}: expected one of {', '.join(_DRAWN)}, such as boxes=faces")
        drawn[what] = tensor
    return drawn


@contextmanager
def _until_stopped(stream: Stream, watches: bool) -> Iterator[None]:
    """Ends a stream that watches when the process is asked to end."""
    if not watches or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        # From a thread of its own: the handler runs in the middle of whatever holds the stream's lock.
        threading.Thread(target=stream.close, daemon=True).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
