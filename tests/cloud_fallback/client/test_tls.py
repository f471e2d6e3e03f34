"""TLS over real sockets: whom the device trusts, by what it is known, and what is said of files that are no good."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cloud_fallback import CloudFallback
from cloud_fallback.client.tls import Tls
from edge_runtime import ErrorCode, HybridgeError, Reason, Source
from tests.cloud_fallback.client.certificates import Authority
from tests.cloud_fallback.client.peer import Peer, Serving, question

Serve = Callable[..., Serving]
Ask = Callable[..., CloudFallback]


def test_an_endpoint_of_a_trusted_authority_is_asked(serve: Serve, ask: Ask, authority: Authority) -> None:
    address = serve(Peer(), authority.server_credentials(["127.0.0.1"])).address
    assert ask(address, tls=Tls(ca=str(authority.ca))).resolve(question()).source is Source.CLOUD
    in_clear = ask(address).resolve(question())
    assert (in_clear.source, in_clear.reason) == (Source.DEVICE, Reason.CLOUD_UNAVAILABLE)


def test_a_server_may_have_another_name_than_its_address(
    serve: Serve, ask: Ask, authority: Authority
) -> None:
    address = serve(Peer(), authority.server_credentials(["cloud.example"])).address
    named = Tls(ca=str(authority.ca), server_name="cloud.example")
    assert ask(address, tls=named).resolve(question()).source is Source.CLOUD


@pytest.mark.parametrize("fault", ["expired", "wrong host", "unknown authority", "public authorities"])
def test_an_endpoint_that_cannot_be_trusted_is_not_asked(
    serve: Serve, ask: Ask, authority: Authority, tmp_path: Path, fault: str
) -> None:
    peer = Peer()
    hosts = ["elsewhere.example"] if fault == "wrong host" else ["127.0.0.1"]
    address = serve(peer, authority.server_credentials(hosts, expired=fault == "expired")).address
    trusted = Authority.create(tmp_path, "another").ca if fault == "unknown authority" else authority.ca
    tls = Tls() if fault == "public authorities" else Tls(ca=str(trusted))
    client = ask(address, tls=tls, deadline_s=1.0)
    answer = client.resolve(question())
    assert (answer.source, answer.reason) == (Source.DEVICE, Reason.CLOUD_UNAVAILABLE)
    assert "failed" in answer.detail
    assert peer.seen == []
    # And it is not tried again with each question.
    assert client.resolve(question()).reason in (Reason.CLOUD_UNAVAILABLE, Reason.OFFLINE)


def test_mutual_tls_lets_in_who_has_a_certificate(
    serve: Serve, ask: Ask, authority: Authority, tmp_path: Path
) -> None:
    address = serve(Peer(), authority.server_credentials(["127.0.0.1"], mutual=True)).address
    cert, key = map(str, authority.sign("device"))
    own = Tls(ca=str(authority.ca), cert=cert, key=key)
    assert ask(address, tls=own).resolve(question()).source is Source.CLOUD
    other_cert, other_key = map(str, Authority.create(tmp_path, "another").sign("stranger"))
    for tls in (Tls(ca=str(authority.ca)), Tls(ca=str(authority.ca), cert=other_cert, key=other_key)):
        assert ask(address, tls=tls).resolve(question()).reason is Reason.CLOUD_UNAVAILABLE


def test_files_that_are_no_good_are_refused_with_what_is_wrong(authority: Authority, tmp_path: Path) -> None:
    cert, key = map(str, authority.sign("device"))
    _, other_key = map(str, authority.sign("other"))
    rubbish, encrypted = str(tmp_path / "rubbish.pem"), str(tmp_path / "encrypted.pem")
    Path(rubbish).write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    subprocess.run(
        ["openssl", "ec", "-in", key, "-aes128", "-passout", "pass:word", "-out", encrypted],
        check=True,
        capture_output=True,
    )
    for tls, received in (
        (Tls(ca=str(tmp_path / "missing.pem")), "No such file"),
        (Tls(ca=key), "certificate"),
        (Tls(ca=rubbish), ""),
        (Tls(cert=cert), "beside a cert"),
        (Tls(key=key), "beside a key"),
        (Tls(cert=cert, key=other_key), "key values mismatch"),
        (Tls(cert=rubbish, key=key), ""),
        (Tls(cert=cert, key=encrypted), "password"),
        (Tls(cert=cert, key=str(tmp_path / "missing.pem")), "No such file"),
    ):
        with pytest.raises(HybridgeError) as caught:
            CloudFallback("127.0.0.1:1", model="m", tls=tls)
        assert caught.value.code is ErrorCode.CREDENTIALS_INVALID
        assert caught.value.received
        assert received in caught.value.received, (tls, caught.value.message)
