"""What an image file says of itself before it is decoded: its format, its size, and whether all of it is there.

A device decodes what strangers send it. The header tells a few bytes that would unpack to gigabytes from a photograph,
and a file that was cut short from a whole one, which some decoders fill up with grey.

Sources: ITU-T T.81 (JPEG), PNG third edition, the BITMAPINFOHEADER family (BMP), RFC 9649 (WebP), TIFF 6.0.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["FORMATS", "ImageHeader"]

FORMATS = ("JPEG", "PNG", "BMP", "WebP", "TIFF")

_JPEG_END = b"\xff\xd9"
_JPEG_SCAN = 0xDA
# Start-of-frame markers, without the tables (C4, CC) and the extension (C8) that lie among them.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset((0x01, *range(0xD0, 0xD9)))
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_SHORT = 256, 257, 3
_BMP_RAW = (0, 3, 6)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The facts at the start of an image file.

    Attributes:
        format: One of `FORMATS`.
        width: In pixels, as stored: before it is turned as EXIF data says.
        height: In pixels, likewise.
        is_whole: Whether the file goes on to its own end. What lies between is the decoder's to check.
    """

    format: str
    width: int
    height: int
    is_whole: bool

    @classmethod
    def read(cls, content: bytes) -> ImageHeader | None:
        """The header of a file; None when it is none of `FORMATS`, or too damaged to have a size."""
        try:
            if content[:3] == b"\xff\xd8\xff":
                return _jpeg(content)
            if content[:8] == _PNG_SIGNATURE:
                return _png(content)
            if content[:2] == b"BM":
                return _bmp(content)
            if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
                return _webp(content)
            if content[:4] in (b"II*\0", b"MM\0*"):
                return _tiff(content)
        except (struct.error, IndexError):
            # The file ends inside its header.
            return None
        return None


def _jpeg(content: bytes) -> ImageHeader | None:
    width = height = 0
    at = 2
    while True:
        if content[at] != 0xFF:
            return None
        while content[at] == 0xFF:
            at += 1
        marker = content[at]
        at += 1
        if marker in _JPEG_BARE:
            continue
        if marker == _JPEG_SCAN:
            # A byte FF inside a scan is followed by 00 or a restart marker: this pair is the end of the image.
            return ImageHeader("JPEG", width, height, content.find(_JPEG_END, at) >= 0) if width else None
        (length,) = struct.unpack_from(">H", content, at)
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", content, at + 3)
        at += length


def _png(content: bytes) -> ImageHeader:
    width, height = struct.unpack_from(">II", content, 16)
    at = 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        if content[at + 4 : at + 8] == b"IEND":
            return ImageHeader("PNG", width, height, is_whole=True)
        at += 12 + length
    return ImageHeader("PNG", width, height, is_whole=False)


def _bmp(content: bytes) -> ImageHeader:
    offset, header = struct.unpack_from("<II", content, 10)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", content, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", content, 18)
    width, height = abs(width), abs(height)
    size = offset + (width * bits + 31) // 32 * 4 * height if compression in _BMP_RAW else 0
    return ImageHeader("BMP", width, height, is_whole=len(content) >= size)


def _webp(content: bytes) -> ImageHeader | None:
    is_whole = len(content) >= 8 + struct.unpack_from("<I", content, 4)[0]
    kind = content[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
    else:
        return None
    return ImageHeader("WebP", width, height, is_whole)


def _tiff(content: bytes) -> ImageHeader | None:
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, start)
    sizes = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", content, entry)
        (sizes[tag],) = struct.unpack_from(
            f"{order}{'H' if kind == _TIFF_SHORT else 'I'}", content, entry + 8
        )
    if not sizes.get(_TIFF_WIDTH) or not sizes.get(_TIFF_HEIGHT):
        return None
    return ImageHeader("TIFF", sizes[_TIFF_WIDTH], sizes[_TIFF_HEIGHT], is_whole=True)
