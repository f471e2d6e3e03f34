from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.operators.image_header import ImageHeader
from edge_runtime.tensor_spec import Array
from tests.edge_runtime.operators.running import run

cv2: Any = pytest.importorskip("cv2", reason="these operators need the 'vision' extra")

_FORMATS = [
    (".jpg", []),
    (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
    (".png", []),
    (".bmp", []),
    (".webp", [cv2.IMWRITE_WEBP_QUALITY, 80]),
    (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
    (".tiff", []),
]


def _photograph() -> Array:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    smooth: Array = cv2.resize(coarse, (80, 60), interpolation=cv2.INTER_CUBIC)
    return smooth


def _file(suffix: str, parameters: list[int], image: Array | None = None) -> bytes:
    rgb = _photograph() if image is None else image
    encoded: bytes = cv2.imencode(suffix, rgb[:, :, ::-1], parameters)[1].tobytes()
    return encoded


def _decode(content: bytes, **params: int) -> Array:
    image: Array = run("decode", np.frombuffer(content, np.uint8), **params)["image"]
    return image


@pytest.mark.parametrize(("suffix", "parameters"), _FORMATS)
def test_every_format_is_decoded_as_rgb_and_as_grey(suffix: str, parameters: list[int]) -> None:
    content = _file(suffix, parameters)
    image = _decode(content)
    assert np.abs(image.astype(int) - _photograph()).mean() < 6
    assert _decode(content, channels=1).shape == (60, 80, 1)


@pytest.mark.parametrize(("suffix", "parameters"), _FORMATS)
def test_a_file_that_was_cut_short_anywhere_is_one_clear_error(suffix: str, parameters: list[int]) -> None:
    content = _file(suffix, parameters)
    for length in [*range(0, len(content), max(1, len(content) // 23)), len(content) - 1]:
        with pytest.raises(HybridgeError) as caught:
            _decode(content[:length])
        assert caught.value.code is ErrorCode.INPUT_INVALID
    assert _decode(content + b"\0" * 50).shape == (60, 80, 3)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8\xff\xe0 not a whole photograph", b"GIF89a" + b"\0" * 50, b"BM"]
)
def test_bytes_that_are_no_image_are_one_clear_error(content: bytes) -> None:
    with pytest.raises(HybridgeError) as caught:
        _decode(content)
    assert caught.value.code is ErrorCode.INPUT_INVALID


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_its_camera_was_held(orientation: int) -> None:
    stored = _photograph()
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }[orientation]
    tag = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + tag + b"\0" * 4
    content = _file(".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95])
    content = content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:]
    for channels in (3, 1):
        image = _decode(content, channels=channels)
        assert image.shape == (*upright.shape[:2], channels)
    assert np.abs(_decode(content).astype(int) - upright).mean() < 6


def _png(width: int, height: int) -> bytes:
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" * 10_000)),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (2**31 - 1, 2**31 - 1), (0, 5)])
def test_a_size_that_no_device_can_hold_is_refused_from_the_header(width: int, height: int) -> None:
    with pytest.raises(HybridgeError) as caught:
        _decode(_png(width, height))
    assert caught.value.code is ErrorCode.INPUT_INVALID
    assert f"{width}x{height}" in caught.value.message


@pytest.mark.parametrize(("suffix", "parameters"), _FORMATS)
def test_the_limit_on_pixels_holds_for_every_format(suffix: str, parameters: list[int]) -> None:
    content = _file(suffix, parameters)
    assert _decode(content, max_pixels=4800).shape == (60, 80, 3)
    with pytest.raises(HybridgeError) as caught:
        _decode(content, max_pixels=4799)
    assert "max_pixels" in caught.value.message


def test_headers_of_rarer_kinds_are_read() -> None:
    translucent = np.dstack([_photograph(), _photograph()[:, :, 0]])
    extended = cv2.imencode(".webp", translucent, [cv2.IMWRITE_WEBP_QUALITY, 80])[1].tobytes()
    assert ImageHeader.read(extended) == ImageHeader("WebP", 80, 60, is_whole=True)
    os2 = b"BM" + struct.pack("<IHHIIHHHH", 26 + 3 * 4, 0, 0, 26, 12, 2, 2, 1, 1) + b"\0" * 8
    assert ImageHeader.read(os2) == ImageHeader("BMP", 2, 2, is_whole=True)
    big_endian = b"MM\0*" + struct.pack(">IHHHIHHHHII", 8, 2, 256, 3, 1, 80, 0, 257, 4, 1, 60)
    assert ImageHeader.read(big_endian) == ImageHeader("TIFF", 80, 60, is_whole=True)


def test_an_image_survives_encoding_and_decoding() -> None:
    image = _photograph()
    lossless = run("encode", image, format="png")["content"]
    np.testing.assert_array_equal(_decode(lossless.tobytes()), image)
    small = run("encode", image, quality=30)["content"]
    assert small.size < run("encode", image, quality=95)["content"].size
    assert np.abs(_decode(small.tobytes()).astype(int) - image).mean() < 12
    pixel = run("encode", image[:1, :1, :1], format="png")["content"]
    assert _decode(pixel.tobytes(), channels=1).tolist() == [[[image[0, 0, 0]]]]
    for wrong, given in (({"format": "gif"}, image), ({}, image[:, :, 0]), ({}, image[:0])):
        with pytest.raises(HybridgeError):
            run("encode", given, **wrong)
