"""Our endpoint and its peers on the trivial model, in turn."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.serving_vs_peers.contenders import MODEL, Contender, Server
from benchmarks.serving_vs_peers.load import Job, LoadGenerator, Outcome
from cloud_fallback.open_inference.tensors import encode_request
from edge_runtime.console import say

__all__ = ["Figures", "SizeReport", "compare", "make_question"]

# A trial only has to tell which configuration is faster.
_TRIAL_ROUNDS = 3
_TRIAL_SHARE = 0.5


@dataclass(frozen=True)
class _Entrant:
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
    ours: Contender,
    peers: Sequence[Contender],
    *,
    folder: Path,
    job: Job,
    sizes: Sequence[int],
    rounds: int,
) -> list[SizeReport]:
    """Tries every peer's configurations, then measures the fastest of each beside ours, round after round.

    No others run meanwhile: servers that wait for work take some of the processors' time, each another share.

    Args:
        generator: What loads them.
        ours: Our endpoint.
        peers: Every configuration of every peer.
        folder: For their files, and the requests.
        job: The load; its server and its request are replaced.
        sizes: Bytes that a request holds.
        rounds: How many.
    """
    jobs = []
    for size in sizes:
        request, expected = make_question(folder, size)
        jobs.append(msgspec.structs.replace(job, request=str(request), expected=str(expected)))
    trials: list[list[Figures]] = [[] for _ in sizes]
    for index, contender in enumerate(peers):
        say(f"trying {contender.server}: {contender.configuration}")
        with contender.start(folder / f"trial-{index}") as server:
            for size, sized, figures in zip(sizes, jobs, trials, strict=True):
                shorter = msgspec.structs.replace(
                    sized, warmup_s=job.warmup_s * _TRIAL_SHARE, seconds=job.seconds * _TRIAL_SHARE
                )
                entrant = _Entrant(contender, server)
                (outcomes,) = _measured(
                    generator, [entrant], job=shorter, rounds=_TRIAL_ROUNDS, what=f"{size:,} bytes"
                )
                figures.append(_figures(entrant, outcomes))
    reports = []
    for size, sized, figures in zip(sizes, jobs, trials, strict=True):
        fastest: dict[str, int] = {}
        for index, each in enumerate(figures):
            best = fastest.setdefault(each.server, index)
            if each.per_second > figures[best].per_second:
                fastest[each.server] = index
        with ExitStack() as stack:
            entrants = [
                _Entrant(contender, stack.enter_context(contender.start(folder / f"{size}-{number}")))
                for number, contender in enumerate((ours, *(peers[index] for index in fastest.values())))
            ]
            measured = _measured(generator, entrants, job=sized, rounds=rounds, what=f"{size:,} bytes")
        reports.append(
            SizeReport(
                size_bytes=size,
                trials=figures,
                rounds=[
                    _figures(entrant, outcomes, ours=measured[0])
                    for entrant, outcomes in zip(entrants, measured, strict=True)
                ],
            )
        )
    return reports


def _measured(
    generator: LoadGenerator, entrants: Sequence[_Entrant], *, job: Job, rounds: int, what: str
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


def _figures(
    entrant: _Entrant, outcomes: Sequence[Outcome], ours: Sequence[Outcome] | None = None
) -> Figures:
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
