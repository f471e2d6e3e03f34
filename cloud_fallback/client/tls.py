"""TLS of a connection: whom the device trusts, and by what it is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from msgspec import Struct

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file

if TYPE_CHECKING:
    import ssl

__all__ = ["Tls", "TlsFiles"]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What the files of a `Tls` held; equal ones may share a connection."""

    ca: bytes | None = field(repr=False)
    cert: bytes | None = field(repr=False)
    key: bytes | None = field(repr=False)
    server_name: str

    def credentials(self) -> Any:
        """As gRPC takes them."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)

    def options(self) -> tuple[tuple[str, str], ...]:
        """The channel's options for a server that is known by another name than it is reached by."""
        return (("grpc.ssl_target_name_override", self.server_name),) if self.server_name else ()


class Tls(Struct, frozen=True, forbid_unknown_fields=True):
    """Files in PEM form, read once, when a fallback is made.

    Attributes:
        ca: Certificates of authorities to trust, in place of the public ones that gRPC brings.
        cert: The device's own certificate, and those between it and its authority, for mutual TLS.
        key: The device's private key, without a password.
        server_name: The name that the server's certificate has, where that is not the one it is reached by.

    Example:
        >>> CloudFallback("10.0.0.7:8001", model="digits-large", tls=Tls(ca="ca.pem", server_name="cloud.example"))
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str = ""

    def read(self) -> TlsFiles:
        """Reads and checks the files.

        Raises:
            HybridgeError: `credentials-invalid`, with what is wrong.
        """
        if (self.cert is None) != (self.key is None):
            given, missing = ("cert", "key") if self.key is None else ("key", "cert")
            raise _invalid(
                f"{missing} of TLS", f"none, beside a {given}", f"both cert and key, for {given} is one half"
            )
        ca, cert, key = (None if path is None else _read(path) for path in (self.ca, self.cert, self.key))
        # Most connections do without.
        import ssl

        # OpenSSL says what is wrong with them; gRPC only fails to connect.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if ca is not None:
            _check_authorities(context, str(self.ca), ca)
        if self.cert is not None and self.key is not None:
            _check_pair(context, self.cert, self.key)
        return TlsFiles(ca, cert, key, self.server_name)

    def within(self, folder: Path) -> Tls:
        """The same with paths that are relative to a folder."""
        ca, cert, key = (
            None if path is None else str(folder / path) for path in (self.ca, self.cert, self.key)
        )
        return Tls(ca, cert, key, self.server_name)


def _read(path: str) -> bytes:
    try:
        return read_file(path)
    except HybridgeError as error:
        raise _invalid(error.what, error.received, error.expected) from error


def _check_authorities(context: ssl.SSLContext, path: str, content: bytes) -> None:
    try:
        context.load_verify_locations(cadata=content.decode("ascii"))
    except (OSError, ValueError) as error:
        raise _invalid(f"authorities in '{path}'", _reason(error), "certificates in PEM form") from error


def _check_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    def refuse_password() -> bytes:
        raise ValueError("a key with a password")

    try:
        context.load_cert_chain(cert, key, password=refuse_password)
    except (OSError, ValueError) as error:
        raise _invalid(
            f"certificate '{cert}' and key '{key}'",
            _reason(error),
            "a certificate and its own key in PEM form, without a password",
        ) from error


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason and isinstance(reason, str) else str(error)


def _invalid(what: str, received: str, expected: str) -> HybridgeError:
    return HybridgeError(ErrorCode.CREDENTIALS_INVALID, what, received=received, expected=expected)
