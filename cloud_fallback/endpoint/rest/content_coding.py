"""Bodies that are compressed on their way (RFC 9110, 8.4): gzip and deflate."""

from __future__ import annotations

import zlib

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["CODINGS", "accepted_coding", "compress", "decompress"]

CODINGS = ("gzip", "deflate")
# zlib's own format, which is what deflate means in HTTP, or gzip; and what some senders take deflate for.
_GZIP, _ZLIB_OR_GZIP, _RAW = 16 + zlib.MAX_WBITS, 32 + zlib.MAX_WBITS, -zlib.MAX_WBITS
# The fastest: tensors compress badly whatever is done to them.
_LEVEL = 1


def accepted_coding(header: str) -> str | None:
    """The coding that a response may have, by the header Accept-Encoding; None for none."""
    for offer in header.lower().split(","):
        coding, _, weight = offer.partition(";")
        if coding.strip() in CODINGS and weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            return coding.strip()
    return None


def compress(body: bytes, coding: str) -> bytes:
    """A body in one of `CODINGS`."""
    packer = zlib.compressobj(_LEVEL, wbits=_GZIP if coding == "gzip" else zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


def decompress(body: bytes, *, max_bytes: int) -> bytes:
    """A body that was in one of `CODINGS`.

    Args:
        body: The body as it came.
        max_bytes: Of how many bytes it may be; not many more are ever made of it.

    Raises:
        HybridgeError: `message-too-large` for more; `input-invalid` for what is neither.
    """
    try:
        plain, is_whole = _unpacked(body, _ZLIB_OR_GZIP, max_bytes)
    except zlib.error:
        try:
            plain, is_whole = _unpacked(body, _RAW, max_bytes)
        except zlib.error as error:
            raise _invalid(str(error)) from error
    if len(plain) > max_bytes:
        raise HybridgeError(
            ErrorCode.MESSAGE_TOO_LARGE,
            "body, uncompressed",
            received=f"more than {max_bytes} bytes",
            expected=f"at most {max_bytes}",
            fix="send less at once, or raise the endpoint's --max-message-mb",
        )
    if not is_whole:
        raise _invalid("a part of it, or more than it")
    return plain


def _unpacked(body: bytes, wbits: int, max_bytes: int) -> tuple[bytes, bool]:
    unpacker = zlib.decompressobj(wbits)
    plain = unpacker.decompress(body, max_bytes + 1)
    return plain, unpacker.eof and not unpacker.unused_data


def _invalid(received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.INPUT_INVALID, "compressed body", received=received, expected="gzip or deflate, as a whole"
    )
