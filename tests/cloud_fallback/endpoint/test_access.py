"""Who is let in to do what, how often, and what is said and logged of those who are not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cloud_fallback.endpoint.access import Access, bearer, host_of, is_loopback
from cloud_fallback.endpoint.rate_limit import ClientRate, RateLimit
from cloud_fallback.endpoint.refusal_log import RefusalLog
from cloud_fallback.endpoint.token_file import TokenFile, token_digest
from edge_runtime import ErrorCode, HybridgeError

GATE, DEPLOYER = "gate-token-" + "g" * 32, "deployer-token-" + "d" * 32

CLIENTS = f"""
[clients.gate-17]
token_sha256 = ["{token_digest(GATE)}"]
models = ["digits"]

[clients.deployer]
token_sha256 = ["{token_digest(DEPLOYER)}", "{token_digest("next" + DEPLOYER)}"]
scopes = ["admin"]

[clients."device.example"]
scopes = ["infer", "admin"]
"""


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    path.write_text(CLIENTS)
    return path


def at(peer: str) -> Callable[[], str]:
    return lambda: peer


PEER = at("ipv4:192.0.2.7:4711")


def _code(call: Callable[[], object]) -> ErrorCode:
    with pytest.raises(HybridgeError) as caught:
        call()
    return caught.value.code


def _until(condition: Callable[[], bool], seconds: float) -> float:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - start


def test_a_token_gives_its_clients_name_and_lets_it_do_what_its_scopes_say(tokens: Path) -> None:
    access = Access(TokenFile(tokens))
    assert access.admit(GATE, "infer", PEER) == "gate-17"
    assert access.admit(DEPLOYER, "admin", PEER) == "deployer"
    assert access.admit("next" + DEPLOYER, "admin", PEER) == "deployer"
    assert _code(lambda: access.admit(GATE, "admin", PEER)) is ErrorCode.NOT_PERMITTED
    # A scope is only what it says: who may load models may not ask them.
    assert _code(lambda: access.admit(DEPLOYER, "infer", PEER)) is ErrorCode.NOT_PERMITTED


@pytest.mark.parametrize("token", [None, "", "wrong", GATE[:-1], GATE + "g", token_digest(GATE)])
def test_whoever_has_no_token_of_the_file_is_nobody(tokens: Path, token: str | None) -> None:
    access = Access(TokenFile(tokens))
    assert _code(lambda: access.admit(token, "infer", PEER)) is ErrorCode.UNAUTHENTICATED
    # Nor does coming from this machine make a difference.
    assert _code(lambda: access.admit(token, "infer", at("127.0.0.1:80"))) is ErrorCode.UNAUTHENTICATED


def test_a_client_asks_its_own_models_only_whether_there_are_others_or_not(tokens: Path) -> None:
    access = Access(TokenFile(tokens))
    access.admit(GATE, "infer", PEER, model="digits")
    access.check_model("gate-17", "digits")
    for check in (
        lambda: access.admit(GATE, "infer", PEER, model="faces"),
        lambda: access.check_model("gate-17", "faces"),
        lambda: access.check_model("somebody", "digits"),
    ):
        assert _code(check) is ErrorCode.NOT_PERMITTED
    access.check_model("deployer", "faces")


def test_a_certificate_stands_for_the_client_of_its_name(tokens: Path) -> None:
    access = Access(TokenFile(tokens))
    assert access.admit(None, "admin", PEER, certificate=["10.0.0.7", "device.example"]) == "device.example"
    assert (
        _code(lambda: access.admit(None, "infer", PEER, certificate=["stranger"])) is ErrorCode.NOT_PERMITTED
    )
    # A token comes first, and a wrong one is not made good by a certificate.
    assert access.admit(GATE, "infer", PEER, certificate=["device.example"]) == "gate-17"
    refused = _code(lambda: access.admit("wrong", "infer", PEER, certificate=["device.example"]))
    assert refused is ErrorCode.UNAUTHENTICATED


def test_without_a_file_anybody_asks_and_only_this_machine_administers() -> None:
    access = Access()
    assert access.admit(None, "infer", PEER) == ""
    assert access.admit("whatever", "infer", PEER, model="digits") == ""
    assert access.admit(None, "admin", at("ipv6:%5B::1%5D:4711")) == ""
    assert _code(lambda: access.admit(None, "admin", PEER)) is ErrorCode.NOT_PERMITTED
    assert access.admit(None, "infer", PEER, certificate=["device"]) == "device"
    assert _code(lambda: access.admit(None, "admin", at("127.0.0.1:1"), certificate=["device"])) is (
        ErrorCode.NOT_PERMITTED
    )


def test_a_client_is_let_in_until_it_expires(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(
        f'[clients.past]\ntoken_sha256 = ["{token_digest("a")}"]\nexpires = 2020-01-01T00:00:00Z\n'
        f'[clients.future]\ntoken_sha256 = ["{token_digest("b")}"]\nexpires = 2999-01-01T00:00:00+01:00\n'
    )
    access = Access(TokenFile(path))
    assert access.admit("b", "infer", PEER) == "future"
    with pytest.raises(HybridgeError, match="let in until 2020") as caught:
        access.admit("a", "infer", PEER)
    assert caught.value.code is ErrorCode.UNAUTHENTICATED


def test_a_revoked_token_stops_working_within_a_second_and_a_new_one_works(tokens: Path) -> None:
    access = Access(TokenFile(tokens))
    assert access.admit(GATE, "infer", PEER) == "gate-17"
    tokens.write_text(CLIENTS.replace(token_digest(GATE), token_digest("renewed")))

    def is_revoked() -> bool:
        try:
            access.admit(GATE, "infer", PEER)
        except HybridgeError:
            return True
        return False

    _until(is_revoked, 1.0)
    assert access.admit("renewed", "infer", PEER) == "gate-17"


def test_a_token_revoked_while_nobody_asked_is_refused_at_once(tokens: Path) -> None:
    access = Access(TokenFile(tokens))
    tokens.write_text("")
    time.sleep(0.6)
    assert _code(lambda: access.admit(GATE, "infer", PEER)) is ErrorCode.UNAUTHENTICATED


@pytest.mark.parametrize("rubbish", [b"\xff\xfe", b"[clients", b'[clients.x]\nscope = ["infer"]', None])
def test_a_broken_file_is_logged_once_and_changes_nothing(
    tokens: Path, rubbish: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    access = Access(TokenFile(tokens, look_s=0.02))
    if rubbish is None:
        tokens.unlink()
    else:
        tokens.write_bytes(rubbish)
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        assert access.admit(GATE, "infer", PEER) == "gate-17"
        time.sleep(0.01)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    tokens.write_text(CLIENTS.replace("gate-17", "gate-18"))
    _until(lambda: access.admit(GATE, "infer", PEER) == "gate-18", 1.0)


@pytest.mark.parametrize(
    ("content", "received"),
    [
        (f'[clients.a]\ntoken_sha256 = ["{GATE}"]', "matching regex"),
        (f'[clients.a]\ntoken_sha256 = "{token_digest(GATE)}"', "Expected `array`"),
        (f'[clients.a]\ntoken = "{GATE}"', "unknown field `token`"),
        ('[clients.a]\nscopes = ["root"]', "Invalid enum value"),
        ("[clients.a]\nrequests_per_second = 0", "> 0"),
        ("[clients.a]\nexpires = 2030-01-01T00:00:00", "timezone"),
        (
            f'[clients.a]\ntoken_sha256 = ["{token_digest(GATE)}"]\n[clients.b]\n'
            f'token_sha256 = ["{token_digest(GATE)}"]',
            "one token for two clients, 'a' and 'b'",
        ),
        (f"{GATE}", "Expected '=' after a key"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_without_its_tokens(
    tmp_path: Path, content: str, received: str
) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(content)
    with pytest.raises(HybridgeError) as caught:
        TokenFile(path)
    assert caught.value.code is ErrorCode.CREDENTIALS_INVALID
    assert received in caught.value.message
    assert GATE not in caught.value.message
    assert token_digest(GATE) not in caught.value.message


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HybridgeError, match="No such file") as caught:
        TokenFile(tmp_path / "none.toml")
    assert caught.value.code is ErrorCode.CREDENTIALS_INVALID


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (None, None),
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Basic abc", ""),
        ("abc", ""),
        ("Bearer", ""),
        ("", ""),
    ],
)
def test_a_header_is_read_as_the_rfc_has_it(header: str | None, token: str | None) -> None:
    assert bearer(header) == token


@pytest.mark.parametrize(
    ("peer", "host", "here"),
    [
        ("ipv4:127.0.0.1:4711", "127.0.0.1", True),
        ("127.8.9.1:4711", "127.8.9.1", True),
        ("ipv6:%5B::1%5D:4711", "::1", True),
        ("[::1]:4711", "::1", True),
        ("[::ffff:127.0.0.1]:4711", "::ffff:127.0.0.1", True),
        ("ipv6:[2001:db8::7]:80", "2001:db8::7", False),
        ("2001:db8::7", "2001:db8::7", False),
        ("192.0.2.7:80", "192.0.2.7", False),
        ("unix:/run/endpoint", "unix:/run/endpoint", True),
        ("0.0.0.0", "0.0.0.0", False),
        ("", "", False),
    ],
)
def test_the_address_of_a_peer_is_read_however_it_is_spelt(peer: str, host: str, here: bool) -> None:
    assert host_of(peer) == host
    assert is_loopback(host_of(peer)) is here


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "endpoint.example"])
def test_tokens_are_not_taken_in_clear_from_other_machines(tokens: Path, host: str) -> None:
    access = Access(TokenFile(tokens))
    assert _code(lambda: access.check_in_clear(host)) is ErrorCode.USAGE
    for local in ("127.0.0.1", "::1", "localhost"):
        access.check_in_clear(local)
    Access().check_in_clear(host)


def test_a_client_has_its_rate_to_itself_and_is_told_when_to_come_again(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(
        f'[clients.a]\ntoken_sha256 = ["{token_digest("a")}"]\nrequests_per_second = 10\nburst = 3\n'
        f'[clients.b]\ntoken_sha256 = ["{token_digest("b")}"]\n'
        f'[clients.c]\ntoken_sha256 = ["{token_digest("c")}"]\nrequests_per_second = inf\n'
    )
    clock = Clock()
    access = Access(TokenFile(path), limit=RateLimit(requests_per_second=1), clock=clock)

    def asks(token: str, times: int) -> int:
        """How many of them are let in."""
        let_in = 0
        for _ in range(times):
            with suppress(HybridgeError):
                access.admit(token, "infer", PEER)
                let_in += 1
        return let_in

    assert (asks("a", 9), asks("b", 9), asks("c", 9)) == (3, 1, 9)
    with pytest.raises(HybridgeError, match="at most 10 calls a second") as caught:
        access.admit("a", "infer", PEER)
    assert caught.value.retry_after_s == pytest.approx(0.1)
    clock.now += 0.1
    assert (asks("a", 9), asks("b", 9)) == (1, 0)
    # Those that are refused do not count, and a pause saves up no more than the burst.
    clock.now += 3600
    assert (asks("a", 9), asks("b", 9)) == (3, 1)


def test_without_a_file_each_address_has_its_rate() -> None:
    access = Access(limit=RateLimit(requests_per_second=2), clock=Clock())
    for host in ("192.0.2.1", "192.0.2.2"):
        access.admit(None, "infer", at(f"{host}:1000"))
        access.admit(None, "infer", at(f"{host}:2000"))
        with pytest.raises(HybridgeError, match="at most 2 calls a second"):
            access.admit(None, "infer", at(f"{host}:3000"))


def test_bytes_are_paid_for_before_the_next_message() -> None:
    clock = Clock()
    rate = ClientRate(RateLimit(bytes_per_second=1000), clock=clock)
    assert rate.ask() == 0
    rate.sent(3000)
    # A second's worth was there; two seconds' are owed.
    assert rate.ask() == pytest.approx(2.0)
    clock.now += 2.0
    assert rate.ask() == 0


def test_a_rate_is_exact_under_many_threads() -> None:
    rate = ClientRate(RateLimit(requests_per_second=100), clock=Clock())
    let_in: list[bool] = []

    def ask() -> None:
        let_in.extend(rate.ask() == 0 for _ in range(50))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(let_in) == 100


def test_a_limit_that_changes_in_the_file_counts_at_once(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    entry = f'[clients.a]\ntoken_sha256 = ["{token_digest("a")}"]\nrequests_per_second = '
    path.write_text(entry + "0.001")
    access = Access(TokenFile(path))
    access.admit("a", "infer", PEER)
    assert _code(lambda: access.admit("a", "infer", PEER)) is ErrorCode.CLOUD_OVERLOADED
    path.write_text(entry + "1000")

    def is_let_in() -> bool:
        try:
            return access.admit("a", "infer", PEER) == "a"
        except HybridgeError:
            return False

    _until(is_let_in, 1.0)


def test_addresses_without_number_do_not_fill_memory() -> None:
    access = Access(limit=RateLimit(requests_per_second=1))
    for number in range(20_000):
        access.admit(None, "infer", at(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:80"))
    assert len(access._rates) <= 16_384


def test_refusals_are_counted_all_and_logged_once_a_peer_and_minute(
    tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    access = Access(TokenFile(tokens))
    for number in range(200):
        for token, peer in ((f"guess-{number}", "192.0.2.1:80"), (None, "192.0.2.2:80")):
            with pytest.raises(HybridgeError):
                access.admit(token, "infer", at(peer))
    _code(lambda: access.admit(GATE, "admin", at("192.0.2.1:80")))
    assert access.refused() == {ErrorCode.UNAUTHENTICATED: 400, ErrorCode.NOT_PERMITTED: 1}
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "refused 192.0.2.1",
        "refused 192.0.2.2",
        "refused 'gate-17' at 192.0.2.1",
    ]
    assert "guess-" not in caplog.text
    assert GATE not in caplog.text


def test_a_flood_of_refusals_from_everywhere_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = RefusalLog(logging.getLogger("test"), max_lines=5, clock=clock)
    for number in range(3000):
        log.refused(f"10.0.{number >> 8}.{number & 255}", "no token")
    assert len(caplog.records) == 5
    assert len(log._peers) <= 1024
    caplog.clear()
    clock.now += 61
    log.refused("10.9.9.9", "no token")
    log.refused("10.9.9.9", "no token")
    clock.now += 61
    log.refused("10.9.9.9", "no token")
    assert [record.message for record in caplog.records] == [
        "refused calls of 2995 more peers",
        "refused 10.9.9.9: no token",
        "refused 10.9.9.9: no token, and 1 more in the 61 s before",
    ]
