"""Our endpoint and its peers on the trivial model, in turn, at one size of message."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.serving_vs_peers.contenders import MODEL, Contender, Server
from benchmarks.serving_vs_peers.load import Job, LoadGenerator, Outcome
from cloud_fallback.open_inference.tensors import encode_request
from edge_runtime.console import say

__all__ = ["Entrant", "Figures", "SizeReport", "compare", "make_question"]

# A trial only has to tell which configuration is faster.
_TRIAL_ROUNDS = 3
_TRIAL_SHARE = 0.5


@dataclass(frozen=True)
class Entrant:
    """A contender that runs."""

    contender: Contender
    server: Server


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over rounds of what an `Outcome` has, and sums of what went wrong.

    Attributes:
        server: Whose.
        configuration: Which of its configurations.
        ratio: Our answers a second over its own: the median of the rounds' ratios.
        least: The smallest of those.
        most: The largest.
    """

    server: str
    configuration: str
    per_second: float
    p50_ms: float
    p99_ms: float
    server_us: float
    generator_us: float
    failed: int
    checked: int
    wrong: int
    ratio: float = 1.0
    least: float = 1.0
    most: float = 1.0


class SizeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one size of message came to: a trial of every configuration, and rounds of the fastest of each server."""

    size_bytes: int
    trials: list[Figures]
    rounds: list[Figures]


def make_question(folder: Path, size_bytes: int) -> tuple[Path, Path]:
    """Writes a request of so many bytes of float32 for `MODEL`, and the raw contents of its answer."""
    x = np.random.default_rng(0).random((1, size_bytes // 4), dtype=np.float32)
    request, expected = folder / f"{size_bytes}.request", folder / f"{size_bytes}.expected"
    request.write_bytes(encode_request(MODEL, {"x": x}).SerializeToString())
    expected.write_bytes((x + np.float32(1)).tobytes())
    return request, expected


def compare(
    generator: LoadGenerator,
    ours: Entrant,
    peers: Sequence[Entrant],
    *,
    job: Job,
    size_bytes: int,
    rounds: int,
) -> SizeReport:
    """Tries every peer's configurations, then measures the fastest of each beside ours, round after round.

    Args:
        generator: What loads them.
        ours: Our endpoint.
        peers: Every configuration of every peer.
        job: The load; the server that it names is each of them in turn.
        size_bytes: What the request holds.
        rounds: How many.
    """
    shorter = msgspec.structs.replace(
        job, warmup_s=job.warmup_s * _TRIAL_SHARE, seconds=job.seconds * _TRIAL_SHARE
    )
    what = f"{size_bytes:,} bytes"
    tried = _measured(generator, peers, job=shorter, rounds=_TRIAL_ROUNDS, what=f"{what}, trial")
    trials = [_figures(*each) for each in zip(peers, tried, strict=True)]
    fastest: dict[str, int] = {}
    for index, figures in enumerate(trials):
        best = fastest.setdefault(figures.server, index)
        if figures.per_second > trials[best].per_second:
            fastest[figures.server] = index
    entrants = [ours, *(peers[index] for index in fastest.values())]
    measured = _measured(generator, entrants, job=job, rounds=rounds, what=what)
    return SizeReport(
        size_bytes=size_bytes,
        trials=trials,
        rounds=[
            _figures(entrant, outcomes, ours=measured[0])
            for entrant, outcomes in zip(entrants, measured, strict=True)
        ],
    )


def _measured(
    generator: LoadGenerator, entrants: Sequence[Entrant], *, job: Job, rounds: int, what: str
) -> list[list[Outcome]]:
    """The outcomes of each, one a round."""
    outcomes: list[list[Outcome]] = [[] for _ in entrants]
    for number in range(rounds):
        say(f"{what}: round {number + 1} of {rounds}")
        for entrant, own in zip(entrants, outcomes, strict=True):
            own.append(
                generator.run(
                    msgspec.structs.replace(
                        job, address=entrant.server.address, session=entrant.server.session
                    )
                )
            )
    return outcomes


def _figures(entrant: Entrant, outcomes: Sequence[Outcome], ours: Sequence[Outcome] | None = None) -> Figures:
    ratios = [
        mine.per_second / theirs.per_second
        for mine, theirs in zip(ours or outcomes, outcomes, strict=True)
        if theirs.per_second
    ] or [float("inf")]

    def median(name: str) -> float:
        return float(statistics.median(getattr(outcome, name) for outcome in outcomes))

    return Figures(
        server=entrant.contender.server,
        configuration=entrant.contender.configuration,
        per_second=median("per_second"),
        p50_ms=median("p50_ms"),
        p99_ms=median("p99_ms"),
        server_us=median("server_us"),
        generator_us=median("generator_us"),
        failed=sum(sum(outcome.failed.values()) + outcome.unanswered for outcome in outcomes),
        checked=sum(outcome.checked for outcome in outcomes),
        wrong=sum(outcome.wrong for outcome in outcomes),
        ratio=statistics.median(ratios),
        least=min(ratios),
        most=max(ratios),
    )
