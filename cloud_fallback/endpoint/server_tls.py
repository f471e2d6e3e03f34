"""TLS of an endpoint: its certificate, whose certificates it asks clients for, and both renewed while it runs."""

from __future__ import annotations

import logging
import re
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

import grpc

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file

__all__ = ["ServerTls", "certificate_names"]

_log = logging.getLogger(__name__)

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
# How long before a certificate ends its owner is told.
_SOON_S = 14 * 86_400.0
# Messages that two sides of TLS send each other before they have agreed are far fewer.
_MAX_FLIGHTS = 16


@dataclass(frozen=True, slots=True)
class _Identity:
    """Files that were found to be good, and what was made of them.

    Attributes:
        content: Of the certificate, the key, and the authorities.
        context: For servers of Python's.
        expires: When the certificate ends, in seconds since 1970.
    """

    content: tuple[bytes, bytes, bytes | None]
    context: ssl.SSLContext
    expires: float

    def for_grpc(self) -> Any:
        """As gRPC takes it."""
        cert, key, client_ca = self.content
        return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=client_ca)


class ServerTls:
    """Files in PEM form by which a server is known; read again for new connections when they change.

    A renewed certificate is used from the next connection on. What cannot be used, such as a certificate beside
    another's key while the two are being replaced, is logged, and the last good files stay. So does a certificate that
    ends while it is in use: to refuse everybody would help nobody.

    Args:
        cert: The server's certificate, followed by those between it and its authority.
        key: Its private key, without a password.
        client_ca: Certificates of the authorities that vouch for clients; with them a client without a certificate is
            not let in (mutual TLS).

    Raises:
        HybridgeError: `credentials-invalid`, with what is wrong: also for a certificate that has expired, is not valid
            yet, or is not for servers, as no client would accept it.

    Example:
        >>> Endpoint(["digits-large-1.0.edge"], host="0.0.0.0", tls=ServerTls("tls.crt", "tls.key"))
    """

    def __init__(
        self,
        cert: str | PathLike[str],
        key: str | PathLike[str],
        client_ca: str | PathLike[str] | None = None,
    ):
        self._cert, self._key = fspath(cert), fspath(key)
        self._client_ca = None if client_ca is None else fspath(client_ca)
        self._lock = threading.Lock()
        content = self._content()
        self._identity = self._identified(content)
        # What was looked at last, good or bad; None for files that could not be read.
        self._seen: object = content
        self._has_ended = False

    @property
    def asks_clients(self) -> bool:
        """Whether clients must show a certificate."""
        return self._client_ca is not None

    def grpc_credentials(self) -> Any:
        """`grpc.ServerCredentials` that follow the files."""
        in_use = self._latest()

        def renewed() -> Any:
            # gRPC asks for each new connection; None is no change.
            nonlocal in_use
            latest = self._latest()
            if latest is in_use:
                return None
            in_use = latest
            return latest.for_grpc()

        return grpc.dynamic_ssl_server_credentials(
            in_use.for_grpc(), renewed, require_client_authentication=self.asks_clients
        )

    def ssl_context(self) -> ssl.SSLContext:
        """An `ssl.SSLContext` that follows the files."""
        # Not the one of the files, whose callback would call itself.
        context = self._context()

        def renew(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            # OpenSSL asks for each new connection, whether the client names a server or not.
            connection.context = self._latest().context

        context.sni_callback = renew
        return context

    def _latest(self) -> _Identity:
        """What the files hold if that is good, or the last that was."""
        with self._lock:
            try:
                self._renew()
            except HybridgeError as error:
                _log.error("TLS files stay as they were: %s", error)
            if time.time() > self._identity.expires and not self._has_ended:
                self._has_ended = True
                _log.error("TLS certificate '%s' has expired: clients refuse it", self._cert)
            return self._identity

    def _renew(self) -> None:
        content = None
        try:
            content = self._content()
        except HybridgeError:
            if self._seen is not None:
                raise
        finally:
            is_new, self._seen = content != self._seen, content
        if is_new and content is not None:
            self._identity, self._has_ended = self._identified(content), False
            _log.info("TLS certificate '%s' was read anew", self._cert)

    def _content(self) -> tuple[bytes, bytes, bytes | None]:
        client_ca = None if self._client_ca is None else _read(self._client_ca)
        return _read(self._cert), _read(self._key), client_ca

    def _identified(self, content: tuple[bytes, bytes, bytes | None]) -> _Identity:
        """Checks what was read."""
        cert, key, client_ca = content
        # OpenSSL says no more than that something is wrong.
        if not _CERTIFICATE.search(cert):
            raise _invalid(f"certificate '{self._cert}'", "no certificate in PEM form", "one")
        if b"PRIVATE KEY-----" not in key:
            raise _invalid(f"key '{self._key}'", "no private key in PEM form", "one")
        if client_ca is not None:
            _check_authorities(str(self._client_ca), client_ca)
        context = self._context()
        # Python reads keys from files only, which may have changed since.
        if self._content() != content:
            raise _invalid(
                f"certificate '{self._cert}'", "files that change", "files that are replaced at once"
            )
        expires = _check_as_client(self._cert, context, cert)
        if expires - time.time() < _SOON_S:
            _log.warning(
                "TLS certificate '%s' ends in %.1f days", self._cert, (expires - time.time()) / 86_400
            )
        return _Identity(content, context, expires)

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise _invalid(
                f"certificate '{self._cert}' and key '{self._key}'",
                _reason(error),
                "a certificate and its own key in PEM form, without a password",
            ) from error
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
            # A session that is taken up again shows no certificate.
            context.num_tickets = 0
        return context


def certificate_names(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in a client's certificate, as `ssl.SSLSocket.getpeercert` gives it: alternative ones first."""
    alternative = [value for _, value in certificate.get("subjectAltName", ())]
    common = [
        value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"
    ]
    return tuple(dict.fromkeys([*alternative, *common]))


def _read(path: str) -> bytes:
    try:
        return read_file(path)
    except HybridgeError as error:
        raise _invalid(error.what, error.received, error.expected) from error


def _check_authorities(path: str, content: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError, ValueError) as error:
        raise _invalid(
            f"authorities in '{path}'", _reason(error), "certificates of authorities in PEM form"
        ) from error
    ends = [ssl.cert_time_to_seconds(str(each["notAfter"])) for each in context.get_ca_certs()]
    if not ends or max(ends) < time.time():
        received = "only certificates that have expired" if ends else "no certificate of an authority"
        raise _invalid(f"authorities in '{path}'", received, "one that can vouch for clients")


def _check_as_client(path: str, context: ssl.SSLContext, cert: bytes) -> float:
    """Shakes hands, in memory, with a client that trusts this very certificate; gives when the certificate ends."""
    own = _CERTIFICATE.search(cert)
    assert own is not None  # noqa: S101 - OpenSSL has read one
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # It may be reached by any name.
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trusting.load_verify_locations(cadata=own[0].decode("ascii"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(_MAX_FLIGHTS):
            for side in (client, server):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                if side is client:
                    return ssl.cert_time_to_seconds(str((side.getpeercert() or {})["notAfter"]))
    except ssl.SSLCertVerificationError as error:
        raise _invalid(
            f"certificate '{path}'", error.verify_message, "one that a client who trusts it accepts today"
        ) from error
    except ssl.SSLError as error:
        raise _invalid(f"certificate '{path}'", _reason(error), "one that TLS can be spoken with") from error
    raise _invalid(f"certificate '{path}'", "no end to its handshake", "one that TLS can be spoken with")


def _no_password() -> bytes:
    raise ValueError("a key with a password")


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason and isinstance(reason, str) else str(error)


def _invalid(what: str, received: str, expected: str) -> HybridgeError:
    return HybridgeError(ErrorCode.CREDENTIALS_INVALID, what, received=received, expected=expected)
