"""Kinds of signs: their shapes, colours and lettering."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["STYLES", "Colour", "SignStyle"]

Colour = tuple[int, int, int]

_SANS = ("sans", "sans-bold")
_UPRIGHT = ("sans", "sans-bold", "serif", "serif-bold", "slab", "slab-bold")
_ITALIC = ("sans-italic", "sans-bold-italic", "serif-italic", "serif-bold-italic")


@dataclass(frozen=True, slots=True)
class SignStyle:
    """One kind of sign.

    Attributes:
        name: What it is.
        colours: Pairs of paper and ink.
        font_classes: What its text is set in, each as likely as the other.
        shape: `plate` (square corners), `rounded`, `pill` or `octagon`.
        border: Share of the shorter side that a border takes; 0 for none.
        inset: How far the border is from the edge, in widths of the border.
        surface: `enamel`, `paper`, `wood`, `metal` or `slate`.
        capitals: How often its text is in capitals.
        band: Colours of a band across the top that holds the first line, if it has one.
    """

    name: str
    colours: tuple[tuple[Colour, Colour], ...]
    font_classes: tuple[str, ...]
    shape: str = "plate"
    border: float = 0.0
    inset: float = 0.6
    surface: str = "enamel"
    capitals: float = 0.4
    band: tuple[Colour, Colour] | None = None


_WHITE, _BLACK = (244, 244, 240), (22, 22, 24)

STYLES = (
    SignStyle(
        "traffic",
        (((176, 24, 32), _WHITE), ((16, 82, 160), _WHITE), ((0, 104, 62), _WHITE), ((248, 200, 20), _BLACK)),
        _SANS,
        shape="rounded",
        border=0.022,
        capitals=0.6,
    ),
    SignStyle("stop", (((178, 20, 30), _WHITE),), ("sans-bold",), shape="octagon", border=0.03, capitals=1.0),
    SignStyle(
        "warning",
        (((250, 206, 24), _BLACK), ((240, 130, 20), _BLACK), (_WHITE, (170, 20, 28))),
        ("sans-bold", "sans", "slab-bold", "mono-bold", "sans-bold-italic"),
        border=0.03,
        capitals=0.6,
    ),
    SignStyle(
        "notice",
        ((_WHITE, _BLACK), (_WHITE, (20, 50, 130)), ((250, 246, 228), (70, 30, 20))),
        (*_UPRIGHT, "mono", "mono-bold", *_ITALIC),
        surface="paper",
        capitals=0.3,
    ),
    SignStyle(
        "banded notice",
        ((_WHITE, _BLACK), (_WHITE, (30, 30, 90))),
        ("sans", "sans-bold", "serif-bold", "slab", "mono"),
        shape="rounded",
        border=0.012,
        inset=0.0,
        capitals=0.4,
        band=((190, 24, 30), _WHITE),
    ),
    SignStyle(
        "station",
        (((18, 44, 108), _WHITE), (_WHITE, (18, 44, 108)), ((30, 32, 36), (250, 204, 40))),
        ("sans", "sans-bold", "sans-italic", "mono-bold"),
        capitals=0.2,
    ),
    SignStyle(
        "street name",
        (((20, 60, 130), _WHITE), ((10, 92, 60), _WHITE), (_WHITE, _BLACK)),
        ("sans-bold", "serif", "serif-bold", "sans", "slab-bold"),
        shape="rounded",
        border=0.03,
        inset=1.0,
        capitals=0.5,
    ),
    SignStyle(
        "shop",
        (
            ((26, 54, 44), (226, 196, 120)),
            ((110, 22, 34), (246, 228, 196)),
            ((238, 228, 206), (92, 34, 26)),
            ((36, 36, 40), (240, 240, 236)),
        ),
        ("serif", "serif-bold", "serif-italic", "serif-bold-italic", "slab", "slab-bold", "sans-bold"),
        capitals=0.4,
        border=0.015,
        inset=1.6,
    ),
    SignStyle(
        "wooden",
        (((150, 104, 62), (46, 26, 14)), ((92, 58, 34), (240, 226, 192))),
        ("slab", "slab-bold", "serif-bold", "serif-bold-italic", "sans-bold"),
        shape="rounded",
        surface="wood",
        capitals=0.5,
    ),
    SignStyle(
        "door plate",
        (((176, 178, 180), (24, 26, 30)), ((196, 164, 96), (50, 32, 12)), ((60, 62, 66), (232, 232, 230))),
        ("sans", "sans-bold", "serif", "serif-bold", "mono", "sans-italic"),
        surface="metal",
        capitals=0.4,
    ),
    SignStyle(
        "hanging",
        ((_WHITE, (190, 20, 30)), ((190, 20, 30), _WHITE), ((12, 110, 60), _WHITE), ((20, 90, 170), _WHITE)),
        ("sans-bold", "serif-bold", "sans-bold-italic", "slab-bold"),
        shape="pill",
        border=0.03,
        capitals=0.7,
    ),
    SignStyle(
        "slate",
        (((44, 48, 48), (232, 232, 224)), ((38, 52, 46), (236, 224, 150))),
        ("serif-italic", "sans-italic", "mono", "sans", "serif", "serif-bold-italic"),
        border=0.02,
        inset=0.0,
        surface="slate",
        capitals=0.2,
    ),
)
