"""A token in a file that is renewed while it is in use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cloud_fallback import CloudFallback
from cloud_fallback.client.bearer_token import BearerToken
from cloud_fallback.client.connection import is_loopback
from edge_runtime import ErrorCode, HybridgeError, Source
from tests.cloud_fallback.client.peer import Peer, question


def _sent(token: BearerToken) -> str:
    ((key, value),) = token.metadata()
    assert key == "authorization"
    return value.removeprefix("Bearer ")


def test_a_renewed_token_is_used_and_one_that_is_being_written_is_not(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first.token\n")
    token = BearerToken(path)
    assert _sent(token) == "first.token"
    path.write_text("second-token==")
    assert _sent(token) == "second-token=="
    for half_written in ("", "\n", "two tokens", "tok\nen", "täken", "x" * 9000):
        path.write_text(half_written)
        assert _sent(token) == "second-token=="
    path.unlink()
    assert _sent(token) == "second-token=="
    (tmp_path / "new").write_text("third")
    os.replace(tmp_path / "new", path)
    assert _sent(token) == "third"


def test_a_token_behind_a_link_that_is_moved_is_followed(tmp_path: Path) -> None:
    # As Kubernetes renews the files of a mounted secret.
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(f"token-{name}")
    (tmp_path / "current").symlink_to("one")
    (tmp_path / "token").symlink_to("current/token")
    token = BearerToken(tmp_path / "token")
    assert _sent(token) == "token-one"
    (tmp_path / "next").symlink_to("two")
    os.replace(tmp_path / "next", tmp_path / "current")
    assert _sent(token) == "token-two"


@pytest.mark.parametrize("content", [None, b"", b"two tokens", b"x" * 8001, b"\xff\xfe"])
def test_a_file_without_a_token_is_refused_at_the_start(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    with pytest.raises(HybridgeError) as caught:
        BearerToken(tmp_path / "token")
    assert caught.value.code is ErrorCode.CREDENTIALS_INVALID
    assert str(tmp_path) in caught.value.message


def test_the_token_is_shown_nowhere(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("very secret")
    with pytest.raises(HybridgeError) as caught:
        BearerToken(tmp_path / "token")
    assert "secret" not in caught.value.message
    (tmp_path / "token").write_text("verysecret")
    assert "verysecret" not in repr(BearerToken(tmp_path / "token"))


def test_it_is_renewed_while_many_threads_use_it(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("token-0")
    token = BearerToken(path)
    used: set[str] = set()
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            used.add(_sent(token))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(1, 50):
        path.write_text(f"token-{number}")
    stop.set()
    for thread in threads:
        thread.join()
    assert used <= {f"token-{number}" for number in range(50)}
    assert _sent(token) == "token-49"


def test_a_token_goes_over_tls_or_stays_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    options = {"model": "m", "token_file": tmp_path / "token"}
    for target, in_clear in (("cloud.example:1", False), ("cloud.example:1", True), ("127.0.0.1:1", False)):
        with pytest.raises(HybridgeError) as caught:
            CloudFallback(target, token_in_clear=in_clear, **options)  # type: ignore[arg-type]
        assert caught.value.code is ErrorCode.USAGE
    CloudFallback("127.0.0.1:1", token_in_clear=True, **options).close()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.8.9.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("dns:///localhost:1", True),
        ("ipv4:127.0.0.1:1", False),  # not recognised, which is the safe side
        ("unix:/run/endpoint", True),
        ("10.0.0.1:1", False),
        ("localhost.example:1", False),
        ("127.0.0.1.example:1", False),
        ("cloud.example:8001", False),
    ],
)
def test_what_is_on_this_machine_is_told_from_what_is_not(target: str, expected: bool) -> None:
    assert is_loopback(target) is expected


def test_an_endpoint_lets_in_who_brings_the_token(ask: Callable[..., CloudFallback], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old")
    peer = Peer(token="old")
    client = ask(peer, token_file=tmp_path / "token", token_in_clear=True)
    assert client.resolve(question()).source is Source.CLOUD
    peer.token = "new"
    refused = client.resolve(question())
    assert (refused.source, "UNAUTHENTICATED" in refused.detail) == (Source.DEVICE, True)
    assert "old" not in refused.detail
    (tmp_path / "token").write_text("new")
    assert client.resolve(question()).source is Source.CLOUD
    assert client.figures().failures == {ErrorCode.UNAUTHENTICATED: 1}
