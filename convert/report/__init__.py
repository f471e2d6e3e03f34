"""One self-contained HTML page for a conversion, a search or an explanation."""

from convert.report.content import EpochRow, ReportContent, TrialRow
from convert.report.page import render_report, write_report

__all__ = ["EpochRow", "ReportContent", "TrialRow", "render_report", "write_report"]
