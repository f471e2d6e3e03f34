"""The look of a page: its colours, light and dark, and its style sheet."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["COLORS", "style_sheet"]

COLORS = {
    "ink": "#0f172a",
    "soft": "#475569",
    "line": "#dbe2ea",
    "blue": "#2563eb",
    "orange": "#ea580c",
    "green": "#15803d",
    "red": "#c81e1e",
    "grey": "#94a3b8",
}
"""Names of colours and their values in light; what is drawn in these is shown in those of the reader's scheme."""

_LIGHT = COLORS | {"paper": "#ffffff", "card": "#f3f6fa", "warning": "#fff3d6", "miss": "#fde4e4"}
_DARK = {
    "ink": "#e2e8f0",
    "soft": "#a3b1c4",
    "line": "#2c3a50",
    "blue": "#6ea0ff",
    "orange": "#fb923c",
    "green": "#4ade80",
    "red": "#f87171",
    "grey": "#64748b",
    "paper": "#0f1624",
    "card": "#1a2536",
    "warning": "#3a2d10",
    "miss": "#421d21",
}


def style_sheet() -> str:
    """The style sheet, with the colours of both schemes; paper is light."""
    light, dark = _variables(_LIGHT), _variables(_DARK)
    schemes = (
        f":root{{color-scheme:light dark;{light}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    )
    return f"{schemes}\n{files('convert.report').joinpath('page.css').read_text(encoding='utf-8')}"


def _variables(colors: dict[str, str]) -> str:
    return ";".join(f"--{name}:{value}" for name, value in colors.items())
