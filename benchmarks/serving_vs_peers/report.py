"""What the comparison found: bars, tables for a terminal, and the page in the documentation."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import msgspec

from benchmarks.serving_vs_peers.comparison import Figures, SizeReport
from benchmarks.serving_vs_peers.images import ImageReport
from edge_runtime.console import table

__all__ = ["Bar", "Report"]

# Our answers a second over theirs, by size of message.
_OVER_PEERS = {("MLServer", 4096): 4.0, ("MLServer", 602_112): 4.0, ("Triton", 4096): 1.0}
_OVER_ALONE = 0.9
# Shedding is to keep the rest in time; a server that refuses or is late for nearly all keeps none.
_GOOD_SHARE = 0.8

_HEADER = ("server", "answers/s", "p50 ms", "p99 ms", "server us", "load us", "failed", "ours is")


class Bar(msgspec.Struct, frozen=True):
    """What is to be reached: `value` at least `limit`, or at most when `is_ceiling`."""

    name: str
    value: float
    limit: float
    is_ceiling: bool = False

    @property
    def is_reached(self) -> bool:
        """Whether it is."""
        return self.value <= self.limit if self.is_ceiling else self.value >= self.limit


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the whole comparison.

    Attributes:
        machine: What it ran on.
        in_flight: Requests at once.
        connections: What they were spread over.
        num_rounds: Rounds of each measurement.
        seconds: Seconds of each.
        sizes: The trivial model.
        images: The real one.
    """

    machine: str
    in_flight: int
    connections: int
    num_rounds: int
    seconds: float
    sizes: list[SizeReport]
    images: ImageReport | None

    @property
    def bars(self) -> list[Bar]:
        """Everything that is to be reached."""
        bars = [bar for size in self.sizes for bar in _size_bars(size)]
        return bars if self.images is None else bars + _image_bars(self.images)

    def text(self) -> str:
        """For a terminal."""
        parts = []
        for size in self.sizes:
            parts.append(f"{size.size_bytes:,} bytes of float32")
            parts.append(table([_row(figures) for figures in size.rounds], header=_HEADER))
            parts.append("tried")
            parts.append(table([_row(figures)[:-1] for figures in size.trials], header=_HEADER[:-1]))
        if self.images is not None:
            parts.append("MobileNet v2")
            parts.append("\n".join(_image_lines(self.images)))
        parts.append(
            "\n".join(f"{'reached' if bar.is_reached else 'MISSED '}  {_bar(bar)}" for bar in self.bars)
        )
        return "\n\n".join(parts)

    def page(self) -> str:
        """For the documentation, in Markdown."""
        about = (
            f"{self.in_flight} requests in flight over {self.connections} connections, Open Inference Protocol over "
            f"gRPC with raw contents, everything on the same cores of {self.machine}. The load comes from a process of "
            "its own and is the same for all. The servers of a table are measured in turn, "
            f"{self.num_rounds} rounds of {self.seconds:g} s after a warm-up. `ours is` is the median of the rounds' "
            "ratios of answers a second, with the smallest and the largest. `server us` is the processor time "
            "of all of a server's processes for an answer, `load us` that of the load's. One answer in 64 is "
            "compared with what it must be."
        )
        lines = [
            "# Beside MLServer and Triton",
            "",
            textwrap.fill(about, 118),
            "",
            "Written by `python -m benchmarks.serving_vs_peers --docs docs/serving-vs-peers.md`.",
        ]
        for size in self.sizes:
            lines += ["", f"## y = x + 1, {size.size_bytes:,} bytes of float32", ""]
            lines += _markdown([_row(figures) for figures in size.rounds], _HEADER)
            lines += ["", "The peers' rows are the fastest of what was tried, shortly:", ""]
            lines += _markdown([_row(figures)[:-1] for figures in size.trials], _HEADER[:-1])
        if self.images is not None:
            lines += ["", "## MobileNet v2, uint8 images of 224 x 224", ""]
            lines += [f"- {line}" for line in _image_lines(self.images)]
        lines += ["", "## What it must reach", "", "| | must be | measured | |", "|---|---|---|---|"]
        lines += [
            f"| {bar.name} | {'at most' if bar.is_ceiling else 'at least'} {bar.limit:g} | {bar.value:.2f} "
            f"| {'reached' if bar.is_reached else 'missed'} |"
            for bar in self.bars
        ]
        return "\n".join(lines) + "\n"


def _size_bars(size: SizeReport) -> list[Bar]:
    what = f"{size.size_bytes:,} bytes"
    ours, *theirs = size.rounds
    bars = [Bar(f"{what}, our failed or wrong answers", ours.failed + ours.wrong, 0, is_ceiling=True)]
    for figures in theirs:
        limit = _OVER_PEERS.get((figures.server, size.size_bytes))
        if limit is not None:
            bars.append(Bar(f"{what}, over {figures.server}", figures.ratio, limit))
    return bars


def _image_bars(images: ImageReport) -> list[Bar]:
    over, outcome = images.overload, images.overload.outcome
    wrong = outcome.wrong + sum(sum(each.failed.values()) + each.wrong for each in images.outcomes)
    return [
        Bar("images, failed or wrong answers", wrong, 0, is_ceiling=True),
        Bar("images, over the interpreter alone", images.ratio, _OVER_ALONE),
        Bar("overload, p99 of answers in ms", outcome.p99_ms, over.deadline_ms, is_ceiling=True),
        Bar("overload, answers in time over those without overload", over.good_share, _GOOD_SHARE),
        Bar("overload, requests refused", outcome.failed.get("RESOURCE_EXHAUSTED", 0), 1),
        Bar("overload, requests without an end", outcome.unanswered, 0, is_ceiling=True),
    ]


def _row(figures: Figures) -> tuple[str, ...]:
    ratio = f"{figures.ratio:.2f} ({figures.least:.2f} to {figures.most:.2f}) times"
    return (
        f"{figures.server}: {figures.configuration}",
        f"{figures.per_second:,.0f}",
        f"{figures.p50_ms:.2f}",
        f"{figures.p99_ms:.2f}",
        f"{figures.server_us:,.0f}",
        f"{figures.generator_us:,.0f}",
        f"{figures.failed + figures.wrong}",
        ratio if figures.server != "hybridge" else "",
    )


def _image_lines(images: ImageReport) -> list[str]:
    alone = ", ".join(f"{rate:.1f} on {name}" for name, rate in images.alone.items())
    over, outcome = images.overload, images.overload.outcome
    ended = ", ".join(f"{count:,} {status}" for status, count in outcome.failed.items()) or "none"
    return [
        f"the endpoint ({images.arguments or 'as it comes'}) answers {images.endpoint:.1f} images a second, "
        f"the interpreter alone {alone}: "
        f"{images.ratio:.2f} ({images.least:.2f} to {images.most:.2f}) of the faster",
        f"overload, {over.rate:.0f} requests a second with a deadline of {over.deadline_ms:g} ms: "
        f"{outcome.answered:,} answered in {outcome.seconds:.0f} s, {outcome.in_time:,} of them in time "
        f"({over.good_share:.0%} of what it answers without overload), p50 {outcome.p50_ms:.0f} ms, "
        f"p99 {outcome.p99_ms:.0f} ms",
        f"refused or failed: {ended}; without an end: {outcome.unanswered}",
    ]


def _bar(bar: Bar) -> str:
    return f"{bar.name} = {bar.value:.2f}, {'at most' if bar.is_ceiling else 'at least'} {bar.limit:g}"


def _markdown(rows: Sequence[tuple[str, ...]], header: tuple[str, ...]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *rows)]
