"""TLS of an endpoint over real sockets: whom it shows itself to, whom it lets in, and files that change under it."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from cloud_fallback import Endpoint, Repository
from cloud_fallback.endpoint.access import Access
from cloud_fallback.endpoint.server_tls import ServerTls, certificate_names
from cloud_fallback.endpoint.token_file import TokenFile, token_digest
from cloud_fallback.open_inference.open_inference_pb2 import (
    RepositoryIndexRequest,
    ServerLiveRequest,
    ServerMetadataRequest,
)
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from edge_runtime import ErrorCode, HybridgeError
from tests.cloud_fallback.client.certificates import Authority
from tests.cloud_fallback.faults.fault_table import FaultTable


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path)


@pytest.fixture
def server_files(authority: Authority) -> tuple[Path, Path]:
    return authority.sign("server", ["127.0.0.1"])


@pytest.fixture(scope="module")
def repository(onnx_models: Path) -> Repository:
    return Repository.load([onnx_models / "linear.onnx"])


@contextmanager
def _stub(
    endpoint: Endpoint, trusted: Path, own: tuple[Path, Path] | None = None
) -> Iterator[GRPCInferenceServiceStub]:
    cert, key = (None, None) if own is None else (each.read_bytes() for each in own)
    credentials = grpc.ssl_channel_credentials(trusted.read_bytes(), key, cert)
    # gRPC shares a connection among channels that are alike.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(endpoint.address, credentials, options) as channel:
        yield GRPCInferenceServiceStub(channel)


def _is_reached(endpoint: Endpoint, trusted: Path, own: tuple[Path, Path] | None = None) -> bool:
    with _stub(endpoint, trusted, own) as stub:
        call = stub.ServerLive.future(ServerLiveRequest(), timeout=10)
        assert call.code() in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE), call.details()
        return call.code() is grpc.StatusCode.OK


def _status(call: Callable[[], Any]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    status: grpc.StatusCode = caught.value.code()
    return status


def _errors(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.levelno >= logging.ERROR for record in caplog.records)


def _replace(files: tuple[Path, Path], by: tuple[Path, Path]) -> None:
    for old, new in zip(files, by, strict=True):
        os.replace(new, old)


def test_a_client_that_trusts_the_authority_is_answered_and_one_in_clear_is_not(
    repository: Repository, authority: Authority, server_files: tuple[Path, Path], tmp_path: Path
) -> None:
    stranger = Authority.create(tmp_path, "stranger")
    with Endpoint(repository, tls=ServerTls(*server_files)) as endpoint:
        assert _is_reached(endpoint, authority.ca)
        assert not _is_reached(endpoint, stranger.ca)
        with grpc.insecure_channel(endpoint.address) as channel:
            stub = GRPCInferenceServiceStub(channel)
            live = _status(lambda: stub.ServerLive(ServerLiveRequest(), timeout=10))
            assert live is grpc.StatusCode.UNAVAILABLE


def test_a_renewed_certificate_is_shown_to_new_connections_without_a_restart(
    repository: Repository, authority: Authority, server_files: tuple[Path, Path], tmp_path: Path
) -> None:
    renewed = Authority.create(tmp_path, "renewed")
    with (
        Endpoint(repository, tls=ServerTls(*server_files)) as endpoint,
        _stub(endpoint, authority.ca) as earlier,
    ):
        assert earlier.ServerLive(ServerLiveRequest()).live
        _replace(server_files, renewed.sign("next", ["127.0.0.1"]))
        assert _is_reached(endpoint, renewed.ca)
        assert not _is_reached(endpoint, authority.ca)
        # Who is connected stays so.
        assert earlier.ServerLive(ServerLiveRequest()).live


def test_files_that_are_no_good_while_they_are_replaced_leave_the_old_ones_in_use(
    repository: Repository,
    authority: Authority,
    server_files: tuple[Path, Path],
    caplog: pytest.LogCaptureFixture,
    fault_table: FaultTable,
) -> None:
    cert, key = server_files
    other_cert, other_key = authority.sign("other", ["127.0.0.1"])
    old = cert.read_bytes()
    with Endpoint(repository, tls=ServerTls(cert, key)) as endpoint, caplog.at_level(logging.ERROR):
        for rubbish in (b"rubbish", b"", old[: len(old) // 2], other_cert.read_bytes()):
            cert.write_bytes(rubbish)
            for _ in range(2):
                assert _is_reached(endpoint, authority.ca)
        cert.unlink()
        for _ in range(2):
            assert _is_reached(endpoint, authority.ca)
        # Each state of the files is told of once, however many connect.
        assert _errors(caplog) == 5
        caplog.clear()
        shutil.copy(other_cert, cert)
        shutil.copy(other_key, key)
        assert _is_reached(endpoint, authority.ca)
        assert _errors(caplog) == 0
    fault_table(
        "the server's certificate replaced by rubbish, by half of it, by one of another key",
        "logged; new connections saw the old one until the files were good again",
    )


@pytest.mark.parametrize("fault", ["none", "unknown authority", "expired"])
def test_mutual_tls_lets_in_nobody_without_a_good_certificate(
    repository: Repository,
    authority: Authority,
    server_files: tuple[Path, Path],
    tmp_path: Path,
    fault: str,
    fault_table: FaultTable,
) -> None:
    signer = Authority.create(tmp_path, "stranger") if fault == "unknown authority" else authority
    own = None if fault == "none" else signer.sign("device", expired=fault == "expired")
    with Endpoint(repository, tls=ServerTls(*server_files, authority.ca)) as endpoint:
        assert not _is_reached(endpoint, authority.ca, own)
        assert _is_reached(endpoint, authority.ca, authority.sign("good"))
    what = {
        "none": "a client without a certificate",
        "unknown authority": "a client certificate of an unknown authority",
        "expired": "a client certificate that has expired",
    }
    fault_table(f"mutual TLS: {what[fault]}", "no connection; others let in")


def test_authorities_of_clients_are_renewed_too(
    repository: Repository, authority: Authority, server_files: tuple[Path, Path], tmp_path: Path
) -> None:
    clients = Authority.create(tmp_path, "clients")
    trusted = tmp_path / "trusted.pem"
    shutil.copy(authority.ca, trusted)
    device, newer = authority.sign("device"), clients.sign("newer")
    with Endpoint(repository, tls=ServerTls(*server_files, trusted)) as endpoint:
        assert _is_reached(endpoint, authority.ca, device)
        assert not _is_reached(endpoint, authority.ca, newer)
        shutil.copy(clients.ca, trusted)
        assert _is_reached(endpoint, authority.ca, newer)
        assert not _is_reached(endpoint, authority.ca, device)


def test_with_mutual_tls_the_certificates_name_is_the_client(
    repository: Repository, authority: Authority, server_files: tuple[Path, Path], tmp_path: Path
) -> None:
    token = "t" * 43
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        '[clients.device]\n[clients."named.example"]\nscopes = ["admin"]\n'
        f'[clients.carrier]\nscopes = ["infer", "admin"]\ntoken_sha256 = ["{token_digest(token)}"]\n'
    )
    access = Access(TokenFile(tokens))
    device, stranger = authority.sign("device"), authority.sign("stranger")
    named = authority.sign("anything", ["named.example"])
    infer, admin = ServerMetadataRequest(), RepositoryIndexRequest()
    with Endpoint(repository, tls=ServerTls(*server_files, authority.ca), access=access) as endpoint:
        with _stub(endpoint, authority.ca, device) as stub:
            assert stub.ServerMetadata(infer).name == "hybridge"
            assert _status(lambda: stub.RepositoryIndex(admin)) is grpc.StatusCode.PERMISSION_DENIED
            # A token takes the place of the name.
            metadata = (("authorization", f"Bearer {token}"),)
            assert stub.RepositoryIndex(admin, metadata=metadata).models
        with _stub(endpoint, authority.ca, named) as stub:
            assert stub.RepositoryIndex(admin).models
            assert _status(lambda: stub.ServerMetadata(infer)) is grpc.StatusCode.PERMISSION_DENIED
        with _stub(endpoint, authority.ca, stranger) as stub:
            assert _status(lambda: stub.ServerMetadata(infer)) is grpc.StatusCode.PERMISSION_DENIED
            assert stub.ServerLive(ServerLiveRequest()).live


def test_files_that_are_no_good_at_the_start_are_refused_with_what_is_wrong(
    authority: Authority, server_files: tuple[Path, Path], tmp_path: Path
) -> None:
    cert, key = server_files
    other_cert, other_key = authority.sign("other")
    expired = authority.sign("expired", expired=True)
    rubbish, encrypted, for_clients = (
        tmp_path / f"{name}.pem" for name in ("rubbish", "encrypted", "clients")
    )
    rubbish.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    _openssl("ec", "-in", str(key), "-aes128", "-passout", "pass:word", "-out", str(encrypted))
    _openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x"),
        *("-addext", "extendedKeyUsage=clientAuth", "-days", "2"),
        *("-keyout", str(tmp_path / "clients.key"), "-out", str(for_clients)),
    )
    none = tmp_path / "none.pem"
    for files, received in (
        ((none, key), "No such file"),
        ((cert, none), "No such file"),
        ((rubbish, key), "received"),
        ((key, key), "no certificate in PEM form"),
        ((cert, cert), "no private key in PEM form"),
        ((cert, other_key), "key values mismatch"),
        ((cert, encrypted), "a key with a password"),
        (expired, "certificate has expired"),
        (
            (for_clients, tmp_path / "clients.key"),
            "unsuitable certificate purpose|unsupported certificate purpose",
        ),
        ((cert, key, none), "No such file"),
        ((cert, key, rubbish), "authorities in"),
        ((cert, key, key), "authorities in"),
        ((cert, key, other_cert), "no certificate of an authority"),
    ):
        with pytest.raises(HybridgeError, match=received) as caught:
            ServerTls(*files)
        assert caught.value.code is ErrorCode.CREDENTIALS_INVALID


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def test_a_certificate_that_ends_soon_is_told_of_and_one_that_ended_in_use_stays(
    repository: Repository,
    authority: Authority,
    server_files: tuple[Path, Path],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tls = ServerTls(*server_files)
    assert "ends in 1.0 days" in caplog.text
    caplog.clear()
    with Endpoint(repository, tls=tls) as endpoint:
        later = time.time() + 2 * 86_400
        monkeypatch.setattr(time, "time", lambda: later)
        for _ in range(3):
            assert tls.grpc_credentials() is not None
        monkeypatch.undo()
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
            f"TLS certificate '{server_files[0]}' has expired: clients refuse it"
        ]
        assert _is_reached(endpoint, authority.ca)


class _Echo:
    """A server of Python's `ssl` that tells each client the names in its certificate."""

    def __init__(self, tls: ServerTls):
        self._context = tls.ssl_context()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(connection, server_side=True) as secure:
                    secure.sendall(repr(certificate_names(secure.getpeercert() or {})).encode())
            except OSError:
                connection.close()

    def close(self) -> None:
        # Closing alone does not wake who waits in it.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def test_the_context_for_other_servers_follows_the_files_too(
    authority: Authority, server_files: tuple[Path, Path], tmp_path: Path
) -> None:
    renewed = Authority.create(tmp_path, "renewed")
    trusted = tmp_path / "trusted.pem"
    shutil.copy(authority.ca, trusted)
    echo = _Echo(ServerTls(*server_files, trusted))

    def names(ca: Path, own: tuple[Path, Path] | None) -> str:
        context = ssl.create_default_context(cafile=str(ca))
        if own is not None:
            context.load_cert_chain(*own)
        try:
            with (
                socket.create_connection(("127.0.0.1", echo.port), timeout=10) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
            ):
                return secure.recv(1000).decode()
        except OSError as error:
            return type(error).__name__

    try:
        device, newer = authority.sign("device", ["device.example"]), renewed.sign("newer")
        assert names(authority.ca, device) == "('device.example', 'device')"
        assert names(authority.ca, None) != "()"
        _replace(server_files, renewed.sign("next", ["127.0.0.1"]))
        shutil.copy(renewed.ca, trusted)
        assert names(renewed.ca, newer) == "('newer',)"
        assert names(renewed.ca, device) in ("SSLError", "ConnectionResetError", "")
        assert names(authority.ca, newer) == "SSLCertVerificationError"
    finally:
        echo.close()
