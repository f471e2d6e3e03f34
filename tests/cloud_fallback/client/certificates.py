"""Certificates that tests make: an authority, and what it signs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Authority:
    """Signs certificates; files go into `folder`."""

    folder: Path
    name: str
    key: Any
    certificate: Any

    @classmethod
    def create(cls, folder: Path, name: str = "authority") -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(name, key, name, key, [], authority=True)
        authority = cls(folder, name, key, made)
        authority.ca.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return authority

    @property
    def ca(self) -> Path:
        return self.folder / f"{self.name}.pem"

    def sign(self, name: str, hosts: list[str] | None = None, *, expired: bool = False) -> tuple[Path, Path]:
        """Writes a certificate and its key; returns their paths."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(name, key, self.name, self.key, hosts or [], expired=expired)
        cert, private = self.folder / f"{name}.cert.pem", self.folder / f"{name}.key.pem"
        cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert, private

    def server_credentials(self, hosts: list[str], *, expired: bool = False, mutual: bool = False) -> Any:
        cert, key = self.sign("server", hosts, expired=expired)
        return grpc.ssl_server_credentials(
            [(key.read_bytes(), cert.read_bytes())],
            root_certificates=self.ca.read_bytes() if mutual else None,
            require_client_auth=mutual,
        )


def _certificate(
    name: str,
    key: Any,
    issuer: str,
    issuer_key: Any,
    hosts: list[str],
    *,
    authority: bool = False,
    expired: bool = False,
) -> x509.Certificate:
    now = datetime.now(UTC)
    end = now - timedelta(days=1) if expired else now + timedelta(days=1)
    names: list[x509.GeneralName] = [
        x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts
    ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
