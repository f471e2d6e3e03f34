from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from convert.budget import Budget
from convert.quantization import LayerSensitivity, ValueRange
from convert.report import EpochRow, ReportContent, TrialRow, render_report, write_report
from convert.report.style import COLORS
from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.manifest import Metrics, Parity, Size
from tests.convert.report.content import HOSTILE, full_content, manifest, trials

_VOID = {"meta", "br", "img", "link", "hr", "input"}


class _Page(HTMLParser):
    """The page's text, headings and attributes; fails on elements that do not close."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.headings: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tags: set[str] = set()
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def test_every_part_has_its_section_in_one_well_formed_page() -> None:
    page = _Page(render_report(full_content()))
    assert page.headings == [
        "Size",
        "Accuracy",
        "Recipes that were tried",
        "Confusion that got worse",
        "Parity with the source",
        "Operators",
        "Sparse weights",
        "Fine-tuning",
        "Sensitivity",
        "Ranges of the most sensitive layers",
        "Where it comes from",
    ]


def test_whatever_text_is_given_stays_text() -> None:
    page = _Page(render_report(full_content()))
    assert "script" not in page.tags
    assert sum(HOSTILE in text for text in page.text) > 12


def test_a_page_needs_nothing_but_itself() -> None:
    rendered = render_report(full_content())
    page = _Page(rendered)
    links = [
        value for name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset", "action")
    ]
    assert all(link.startswith("#") for link in links)
    outside = re.findall(r"https?://[^\"'\s<]*", rendered)
    assert set(outside) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in rendered
    assert not re.search(r"url\((?!#)", rendered)


def test_the_same_content_gives_the_same_page_in_every_process() -> None:
    script = (
        "import sys; from convert.report import render_report; "
        "from tests.convert.report.content import full_content; "
        "sys.stdout.buffer.write(render_report(full_content()).encode())"
    )
    pages = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    }
    assert pages == {render_report(full_content()).encode()}


def test_plots_take_the_readers_colours() -> None:
    drawn = re.findall(r"<svg.*?</svg>", render_report(full_content()), flags=re.DOTALL)
    assert len(drawn) == 4
    for svg in drawn[:2]:
        assert "var(--blue)" in svg
        assert not any(color in svg for color in COLORS.values())
        assert set(re.findall(r"#[0-9a-f]{6}", svg)) == set()


def test_the_verdict_says_what_was_kept_and_saved() -> None:
    page = render_report(ReportContent(name="digits", manifest=manifest()))
    assert (
        "int8 keeps 91.0 % accuracy of 91.2 %, 98.0 KB instead of 884 KB (9.0x smaller; 74.0 KB over the air)."
        in page
    )


@pytest.mark.parametrize(
    ("parity", "said"),
    [
        (Parity(0.1, 0.1, 9, "user", 30.0, 0.9, 0.98), "gives the same class on 98.0 % of the samples"),
        (Parity(0.1, 0.1, 9, "user", 30.0, 0.9), "keeps 30.0 dB of signal to noise"),
        (Parity(0.0, 0.0, 9, "user"), "gives the same outputs"),
    ],
)
def test_without_labels_the_verdict_says_how_alike_the_models_are(parity: Parity, said: str) -> None:
    metrics = Metrics(parity=parity, size=Size(100, 200, 90))
    page = render_report(
        ReportContent(name="m", manifest=msgspec.structs.replace(manifest(), metrics=metrics))
    )
    assert f"int8 {said}, 200 bytes instead of 100 bytes (2.00x larger; 90 bytes over the air)." in page


def test_limits_colour_the_figures_and_misses_are_said_first() -> None:
    content = full_content()
    page = render_report(content)
    assert "Out of budget: size 98,000 bytes (at most 90,000)." in page
    assert '<div class="card good"><div class="label">accuracy' in page
    assert '<div class="card bad"><div class="label">on disk' in page
    assert '<div class="card "><div class="label">same class' in page


def test_slices_that_lose_most_come_first() -> None:
    page = render_report(ReportContent(name="m", manifest=manifest()))
    assert page.index("(-3.00) of 600") < page.index("(+2.00) of 400")


def test_a_search_without_a_choice_says_so_and_has_its_plot() -> None:
    rows = tuple(replace(each, chosen=False) for each in trials())
    page = render_report(ReportContent(name="m", trials=rows, budget=Budget(max_drop=0.01, max_size=90_000)))
    assert "None of 5 recipes (4 made a model) is within the budget." in page
    nearest = render_report(ReportContent(name="m", trials=rows, manifest=manifest()))
    assert "The nearest, int8, keeps 91.0 % accuracy" in nearest
    assert page.count("<svg") == 1
    assert ">float32</text>" in page


def test_the_chosen_recipe_is_always_named_in_the_plot() -> None:
    crowd = tuple(
        TrialRow(name=f"a rather long name {index}", size=1000 + index, drop=index / 1e5)
        for index in range(30)
    )
    page = render_report(
        ReportContent(name="m", trials=(*crowd, replace(crowd[3], name="this one", chosen=True)))
    )
    assert ">this one</text>" in page


@pytest.mark.parametrize(
    ("trial", "title"),
    [
        (TrialRow(name="one", size=1, drop=0.01, agreement=0.9), "accuracy lost, points"),
        (TrialRow(name="one", size=1, agreement=0.99, snr_db=20.0), "class changed, %"),
        (TrialRow(name="one", size=1, snr_db=30.0), "noise to signal, dB"),
    ],
)
def test_the_plot_shows_the_most_telling_loss(trial: TrialRow, title: str) -> None:
    rows = (trial, replace(trial, name="other", size=1000))
    assert f">{title}</text>" in render_report(ReportContent(name="m", trials=rows))


@pytest.mark.parametrize(
    "content",
    [
        ReportContent(name="m"),
        ReportContent(name="m", trials=(TrialRow(name="int8", note="failed"),)),
        ReportContent(name="m", trials=(TrialRow(name="float32", size=10),)),
        ReportContent(name="m", trials=(TrialRow(name="float32", size=0, drop=0.0, latency_ms=0.0),)),
        ReportContent(name="m", training=(EpochRow(part="qat", epoch=1, loss=0.5),)),
        ReportContent(
            name="m", manifest=msgspec.structs.replace(manifest(), metrics=Metrics(), lineage=None)
        ),
        ReportContent(
            name="m",
            manifest=msgspec.structs.replace(manifest(), metrics=Metrics(size=Size(0, 0, 0))),
        ),
        ReportContent(name="m", weights=(ValueRange("l", "ADD", 0.0, 0.0, 0.0, 0.0, 1.0, (0,) * 40),)),
        ReportContent(name="m", weights=(ValueRange("l", "ADD", 0.0, 0.0, 0.0, 0.0, 1.0, ()),)),
        ReportContent(name="m", sensitivity=(LayerSensitivity("l", "ADD", None, 0.0, None, 0, 0),)),
    ],
    ids=[
        "nothing",
        "failed",
        "no loss",
        "zeros",
        "one epoch",
        "no metrics",
        "no weights",
        "constant",
        "no bins",
        "unchanged",
    ],
)
def test_a_page_of_little_is_a_page(content: ReportContent) -> None:
    _Page(render_report(content))


def test_a_page_is_written_whole_and_replaces_nothing_unasked(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    write_report(target, ReportContent(name="first"))
    with pytest.raises(HybridgeError) as caught:
        write_report(target, ReportContent(name="second"))
    assert caught.value.code is ErrorCode.FILE_EXISTS
    assert "first" in target.read_text()
    write_report(target, ReportContent(name="second"), overwrite=True)
    assert "second" in target.read_text()
    assert list(tmp_path.iterdir()) == [target]
