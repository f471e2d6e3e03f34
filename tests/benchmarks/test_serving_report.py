"""The report of the comparison with other servers: bars, and tables whose rows are as wide as their headers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from benchmarks.serving_vs_peers.comparison import Figures, SizeReport
from benchmarks.serving_vs_peers.images import ImageReport, Overload
from benchmarks.serving_vs_peers.load import Outcome
from benchmarks.serving_vs_peers.report import Report


def _figures(server: str, ratio: float = 1.0, **given: Any) -> Figures:
    figures = Figures(
        server=server,
        configuration="as it comes",
        per_second=1000.0,
        p50_ms=1.0,
        p99_ms=2.0,
        server_us=100.0,
        generator_us=10.0,
        failed=0,
        checked=9,
        wrong=0,
        ratio=ratio,
    )
    return msgspec.structs.replace(figures, **given)


def _size(size_bytes: int, over_mlserver: float, over_triton: float, **ours: Any) -> SizeReport:
    peers = [_figures("MLServer", over_mlserver), _figures("Triton", over_triton)]
    return SizeReport(size_bytes=size_bytes, trials=peers, rounds=[_figures("hybridge", **ours), *peers])


def _outcome(**given: Any) -> Outcome:
    outcome = Outcome(
        seconds=10.0,
        answered=900,
        failed={},
        unanswered=0,
        checked=14,
        wrong=0,
        in_time=900,
        per_second=90.0,
        p50_ms=100.0,
        p99_ms=240.0,
        server_us=8000.0,
        generator_us=200.0,
    )
    return msgspec.structs.replace(outcome, **given)


def _images(*, ratio: float = 0.95, good_share: float = 0.9, **over: Any) -> ImageReport:
    return ImageReport(
        arguments="--max-batch-size 4",
        endpoint=100.0,
        alone={"1 x 2 threads": 100.0, "2 x 1 threads": 105.0},
        ratio=ratio,
        least=0.9,
        most=1.0,
        outcomes=[_outcome()],
        overload=Overload(
            rate=200.0,
            deadline_ms=250.0,
            outcome=_outcome(**({"failed": {"RESOURCE_EXHAUSTED": 1100}} | over)),
            good_share=good_share,
        ),
    )


def _report(sizes: list[SizeReport], images: ImageReport | None) -> Report:
    return Report(
        machine="a machine",
        in_flight=32,
        connections=32,
        num_rounds=7,
        seconds=3.0,
        sizes=sizes,
        images=images,
    )


GOOD = _report([_size(4096, 4.5, 1.1), _size(602_112, 8.0, 0.7)], _images())


def test_bars_that_are_reached() -> None:
    assert all(bar.is_reached for bar in GOOD.bars)
    # Triton is to be matched with small messages only.
    assert [bar.name for bar in GOOD.bars if "over Triton" in bar.name] == ["4,096 bytes, over Triton"]


@pytest.mark.parametrize(
    ("sizes", "images", "missed"),
    [
        ([_size(4096, 3.9, 1.1)], None, "4,096 bytes, over MLServer"),
        ([_size(4096, 4.1, 0.9)], None, "4,096 bytes, over Triton"),
        ([_size(602_112, 3.9, 2.0)], None, "602,112 bytes, over MLServer"),
        ([_size(4096, 9.0, 9.0, wrong=1)], None, "4,096 bytes, our failed or wrong answers"),
        ([], _images(ratio=0.89), "images, over the interpreter alone"),
        ([], _images(p99_ms=251.0), "overload, p99 of answers in ms"),
        ([], _images(good_share=0.5), "overload, answers in time over those without overload"),
        ([], _images(failed={"DEADLINE_EXCEEDED": 9}), "overload, requests refused"),
        ([], _images(unanswered=1), "overload, requests without an end"),
    ],
)
def test_each_bar_can_be_missed(sizes: list[SizeReport], images: ImageReport | None, missed: str) -> None:
    report = _report(sizes, images)
    assert [bar.name for bar in report.bars if not bar.is_reached] == [missed]
    assert f"MISSED   {missed}" in report.text()


def test_the_page_has_every_row_as_wide_as_its_header() -> None:
    tables: list[list[str]] = [[]]
    for line in GOOD.page().splitlines():
        if line.startswith("|"):
            tables[-1].append(line)
        elif tables[-1]:
            tables.append([])
    found = [table for table in tables if table]
    assert len(found) == 5
    for table in found:
        assert len({line.count("|") for line in table}) == 1
