"""One page that holds everything it shows: it needs no network, no script and no other file."""

from __future__ import annotations

from os import PathLike

from convert.report.content import ReportContent
from convert.report.layers import (
    coverage_section,
    ranges_section,
    sensitivity_section,
    sparsity_section,
    training_section,
)
from convert.report.markup import Raw, escaped, folded, paragraphs, section
from convert.report.outcome import (
    accuracy_section,
    cards,
    confusion_section,
    parity_section,
    size_section,
    verdict,
)
from convert.report.style import style_sheet
from convert.report.trials import trials_section
from edge_runtime import __version__
from edge_runtime.files import write_file

__all__ = ["render_report", "write_report"]

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title><style>{style}</style></head><body>
<h1>{name} <small>{version}</small></h1>
<p class="verdict">{verdict}</p>{boxes}{cards}{sections}
<footer>Made by hybridge {release}; all figures were measured.</footer></body></html>
"""


def render_report(content: ReportContent) -> str:
    """The page as HTML; the same content gives the same page.

    Args:
        content: What it shows; parts that are missing are left out.

    Raises:
        HybridgeError: `extra-missing` without matplotlib, for pages with plots.
    """
    sections = (
        size_section(content),
        accuracy_section(content),
        trials_section(content),
        confusion_section(content),
        parity_section(content),
        coverage_section(content),
        sparsity_section(content),
        training_section(content),
        sensitivity_section(content),
        ranges_section(content),
        _origin_section(content),
    )
    return _PAGE.format(
        title=escaped(f"{content.name} {content.version}".strip()),
        style=style_sheet(),
        name=escaped(content.name),
        version=escaped(content.version and f"version {content.version}"),
        verdict=escaped(verdict(content)),
        boxes=paragraphs([f"Out of budget: {miss}." for miss in content.misses], "miss")
        + paragraphs(content.warnings, "warning"),
        cards=cards(content),
        sections="".join(sections),
        release=escaped(__version__),
    )


def write_report(path: str | PathLike[str], content: ReportContent, *, overwrite: bool = False) -> None:
    """Writes the page to one file, whole or not at all.

    Raises:
        HybridgeError: `file-exists` when something is there and `overwrite` is false; `file-unwritable`;
            `extra-missing`.
    """
    write_file(path, render_report(content).encode(), overwrite=overwrite)


def _origin_section(content: ReportContent) -> Raw:
    """Where it came from, and how to make it again."""
    lineage = content.manifest.lineage if content.manifest else None
    facts: list[tuple[str, str | None]] = []
    if lineage is not None:
        facts = [
            ("source", f"{lineage.source}, sha256 {lineage.source_digest}"),
            ("recipe", lineage.recipe),
            ("calibrated on", lineage.calibration_digest and f"data of sha256 {lineage.calibration_digest}"),
            ("trained on", lineage.training_digest and f"data of sha256 {lineage.training_digest}"),
            ("judged on", lineage.evaluation_digest and f"data of sha256 {lineage.evaluation_digest}"),
            ("tools", ", ".join(f"{tool} {version}" for tool, version in sorted(lineage.tools.items()))),
            ("time", lineage.time),
        ]
    if content.manifest is not None:
        signature = content.manifest.signature
        facts += [
            (
                kind,
                "; ".join(f"{spec.name} {spec.dtype} ({', '.join(map(str, spec.shape))})" for spec in specs),
            )
            for kind, specs in (("inputs", signature.inputs), ("outputs", signature.outputs))
        ]
    described = "".join(f"<dt>{escaped(key)}</dt><dd>{escaped(value)}</dd>" for key, value in facts if value)
    return section(
        "Where it comes from",
        f"<pre>{escaped(content.command)}</pre>" if content.command else "",
        paragraphs(content.notes, "note"),
        f"<dl>{described}</dl>" if described else "",
        folded("The recipe", content.recipe),
        about="This command repeats it." if content.command else "",
    )
