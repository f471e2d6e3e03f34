"""The classes of fonts that signs are read and redrawn in, and the files that stand for each.

All files are those that matplotlib ships; matplotlib itself is not imported, which would cost a device 30 MB.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra

__all__ = ["FONT_CLASSES", "font_of", "source_faces", "source_font"]

# The first file of a class redraws it: it has every Spanish letter. The others have English only, and look alike.
_FACES: dict[str, tuple[str, ...]] = {
    "sans": ("DejaVuSans", "cmss10", ""),
    "sans-bold": ("DejaVuSans-Bold",),
    "sans-italic": ("DejaVuSans-Oblique",),
    "sans-bold-italic": ("DejaVuSans-BoldOblique",),
    "serif": ("STIXGeneral", "cmr10"),
    "serif-bold": ("STIXGeneralBol", "cmb10"),
    "serif-italic": ("STIXGeneralItalic", "cmti10"),
    "serif-bold-italic": ("STIXGeneralBolIta",),
    "slab": ("DejaVuSerif",),
    "slab-bold": ("DejaVuSerif-Bold",),
    "mono": ("DejaVuSansMono", "cmtt10"),
    "mono-bold": ("DejaVuSansMono-Bold",),
}

FONT_CLASSES = tuple(_FACES)
"""What can be told apart on a line of 48 pixels and matters when it is drawn again."""


def source_faces(font_class: str) -> tuple[str, ...]:
    """Names of the faces that an English sign of the class may be drawn in; "" is the one built into Pillow."""
    return _FACES[_known(font_class)]


@lru_cache(maxsize=256)
def source_font(face: str, size: int) -> ImageFont.FreeTypeFont:
    """A face of `source_faces` at a size in pixels per em."""
    if not face:
        built_in = ImageFont.load_default(size)
        assert isinstance(built_in, ImageFont.FreeTypeFont)  # noqa: S101 - it is one wherever FreeType is
        return built_in
    return ImageFont.truetype(str(_folder() / f"{face}.ttf"), size)


def font_of(font_class: str, size: int) -> ImageFont.FreeTypeFont:
    """The font that redraws a class, at a size in pixels per em.

    Raises:
        HybridgeError: `input-invalid` for a class that is none of `FONT_CLASSES`.
    """
    return source_font(_FACES[_known(font_class)][0], size)


def _known(font_class: str) -> str:
    if font_class not in _FACES:
        raise HybridgeError(
            ErrorCode.INPUT_INVALID,
            "font class",
            received=repr(font_class),
            expected=", ".join(FONT_CLASSES),
        )
    return font_class


@lru_cache(maxsize=1)
def _folder() -> Path:
    found = find_spec("matplotlib")
    if found is None or found.origin is None:
        raise missing_extra("bench", "matplotlib")
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
