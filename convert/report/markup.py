"""HTML elements that the sections are made of; all text is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from math import log2

__all__ = [
    "Raw",
    "bars",
    "bytes_text",
    "card",
    "dumbbells",
    "escaped",
    "folded",
    "histogram",
    "paragraphs",
    "percent",
    "points",
    "section",
    "table",
]


class Raw(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(text: object) -> str:
    """Text as HTML, unless it is HTML already."""
    return text if isinstance(text, Raw) else html.escape(str(text))


def section(title: str, *parts: str, about: str = "") -> Raw:
    """A titled part of the page; empty when it has no content.

    Args:
        title: Its heading.
        parts: HTML.
        about: A sentence on how to read it.
    """
    content = "".join(parts)
    if not content:
        return Raw("")
    lead = f'<p class="about">{escaped(about)}</p>' if about else ""
    return Raw(f"<section><h2>{escaped(title)}</h2>{lead}{content}</section>")


def card(label: str, value: str, detail: str = "", *, tone: str = "") -> Raw:
    """A figure that matters, with what it is and how it compares.

    Args:
        label: What it is.
        value: The figure.
        detail: A line below.
        tone: ``good`` or ``bad``, or neither.
    """
    below = f'<div class="detail">{escaped(detail)}</div>' if detail else ""
    return Raw(
        f'<div class="card {escaped(tone)}"><div class="label">{escaped(label)}</div>'
        f'<div class="value">{escaped(value)}</div>{below}</div>'
    )


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    tones: Sequence[str] = (),
    text_columns: int = 1,
    ends_in_prose: bool = False,
) -> Raw:
    """A table that scrolls by itself where the window is narrow.

    Args:
        header: A title for each column.
        rows: A cell for each column.
        tones: A class for each row, as in the style sheet.
        text_columns: How many columns at the left are text; the others are aligned to the right.
        ends_in_prose: Whether the last column holds sentences.
    """
    lines = list(rows)
    if not lines:
        return Raw("")
    kinds = [
        "prose" if ends_in_prose and column == len(header) - 1 else "text" if column < text_columns else ""
        for column in range(len(header))
    ]

    def cells(tag: str, content: Sequence[object]) -> str:
        return "".join(
            f"<{tag}{_class(kind)}>{escaped(each)}</{tag}>" for kind, each in zip(kinds, content, strict=True)
        )

    body = "".join(
        f"<tr{_class(tone)}>{cells('td', row)}</tr>"
        for row, tone in zip_longest(lines, tones[: len(lines)], fillvalue="")
    )
    return Raw(
        f'<div class="wide"><table><thead><tr>{cells("th", header)}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _class(kind: str) -> str:
    return f' class="{escaped(kind)}"' if kind else ""


def bars(rows: Sequence[tuple[str, float, str, str]]) -> Raw:
    """Horizontal bars from zero.

    Args:
        rows: For each bar its label, its length, the text behind it, and its colour as the style sheet names it.
    """
    longest = max((length for _, length, _, _ in rows), default=0.0) or 1.0
    return Raw(
        '<div class="bars">'
        + "".join(
            f'<div class="name">{escaped(label)}</div><div class="track">'
            f'<i class="{escaped(color)}" style="width:{max(length / longest, 0.002):.2%}"></i></div>'
            f'<div class="figure">{escaped(text)}</div>'
            for label, length, text, color in rows
        )
        + "</div>"
    )


def dumbbells(rows: Sequence[tuple[str, float, float, str]], *, low: float) -> Raw:
    """Two points on a line for each row: before, hollow, and after, filled.

    Args:
        rows: For each its label, both values as shares, and the text behind them.
        low: Where the line begins; it ends at one.
    """
    span = (1.0 - low) or 1.0

    def place(value: float) -> float:
        return (value - low) / span

    lines = "".join(
        f'<div class="name">{escaped(label)}</div><div class="track axis">'
        f'<i class="{"loss" if after < before else "gain"}" '
        f'style="left:{place(min(before, after)):.2%};width:{abs(place(before) - place(after)):.2%}"></i>'
        f'<b class="before" style="left:{place(before):.2%}"></b>'
        f'<b class="after" style="left:{place(after):.2%}"></b></div>'
        f'<div class="figure">{escaped(text)}</div>'
        for label, before, after, text in rows
    )
    scale = (
        f'<div></div><div class="ends"><span>{percent(low, 0)}</span><span>{percent(low + span / 2, 1)}</span>'
        "<span>100 %</span></div><div></div>"
    )
    return Raw(f'<div class="bars">{lines}{scale}</div>')


def histogram(
    title: str, counts: Sequence[int], ends: tuple[float, float], marks: tuple[float, float], text: str
) -> Raw:
    """A small histogram; heights are logarithmic, so that the few values in the tails are seen.

    Args:
        title: What it is of.
        counts: For each bin.
        ends: Of the first and the last bin.
        marks: Two values to mark on the axis.
        text: A line below.
    """
    low, high = ends
    span = (high - low) or 1.0
    # One more than the count, so that a single value is seen.
    tallest = log2(max(counts, default=0) + 1) or 1.0
    width = 100 / max(len(counts), 1)
    columns = "".join(
        f'<rect x="{index * width:.2f}" y="{40 - height:.2f}" width="{width * 0.9:.2f}" height="{height:.2f}"/>'
        for index, count in enumerate(counts)
        if (height := 40 * log2(count + 1) / tallest) > 0
    )
    lines = "".join(
        f'<line x1="{at:.2f}" x2="{at:.2f}" y1="0" y2="40"/>'
        for at in (100 * (mark - low) / span for mark in marks)
    )
    return Raw(
        f'<figure class="histogram"><figcaption>{escaped(title)}</figcaption>'
        f'<svg viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label="{escaped(title)}">'
        f'{columns}<g class="marks">{lines}</g></svg>'
        f'<div class="ends"><span>{low:.3g}</span><span>{high:.3g}</span></div>'
        f'<div class="detail">{escaped(text)}</div></figure>'
    )


def folded(title: str, content: str) -> Raw:
    """Text, or HTML, that is shown when it is asked for."""
    if not content:
        return Raw("")
    shown = content if isinstance(content, Raw) else f"<pre>{escaped(content)}</pre>"
    return Raw(f"<details><summary>{escaped(title)}</summary>{shown}</details>")


def paragraphs(sentences: Iterable[str], kind: str) -> Raw:
    """A box for each sentence, of a kind that the style sheet names."""
    return Raw("".join(f'<p class="{escaped(kind)}">{escaped(sentence)}</p>' for sentence in sentences))


def percent(share: float, digits: int = 2) -> str:
    """A share as a percentage."""
    return f"{share * 100:.{digits}f} %"


def points(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    # No minus in front of what rounds to zero.
    return f"{round(share * 100, 2) + 0.0:+.2f}"


def bytes_text(count: float) -> str:
    """Bytes in the unit that a person would choose, 1,000 to a kilobyte."""
    for unit, size in (("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            scaled = count / size
            return f"{scaled:.0f} {unit}" if scaled >= 100 else f"{scaled:.1f} {unit}"
    return f"{count:.0f} bytes"
