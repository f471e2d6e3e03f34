"""What happens to a device when the cloud or the way to it fails; real processes, real sockets, real packets.

Untrusted certificates are in `test_tls`, tokens that are wrong or revoked in `test_bearer_token`, endpoints that break
the protocol in `test_client`.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloud_fallback import CloudFallback
from cloud_fallback.client.breaker import BreakerSettings
from edge_runtime import Reason, Source
from tests.cloud_fallback.client.bad_network import CLIENT, CLOUD, BadNetwork
from tests.cloud_fallback.client.peer import Peer, Serving, question
from tests.cloud_fallback.client.processes import ClientProcess, PeerProcess, Told

Ask = Callable[..., CloudFallback]
# Processes of this machine get their turn late at times; what a device waits for is the deadline and a little.
_LATE_MS = 150.0


@pytest.fixture
def peer_process() -> Iterator[Callable[..., PeerProcess]]:
    started: list[PeerProcess] = []

    def start(*arguments: object, **options: object) -> PeerProcess:
        started.append(PeerProcess(*arguments, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for process in started:
        process.kill()


def _until_cloud(ask: Callable[[], str], seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while ask() != "cloud":
        assert time.monotonic() < limit, "it was never asked again"
        time.sleep(0.02)


def test_a_server_that_is_killed_mid_request_costs_that_answer_and_is_found_again(
    ask: Ask, peer_process: Callable[..., PeerProcess]
) -> None:
    slow = peer_process(delay_s=5.0)
    client = ask(slow.address, deadline_s=4.0)
    with ThreadPoolExecutor(4) as pool:
        under_way = [pool.submit(client.resolve, question()) for _ in range(4)]
        time.sleep(0.3)
        killed_at = time.monotonic()
        slow.kill()
        answers = [each.result() for each in under_way]
    # Nobody waits for the deadline when the connection is gone.
    assert time.monotonic() - killed_at < 2
    assert {answer.source for answer in answers} == {Source.DEVICE}
    assert {answer.reason for answer in answers} == {Reason.CLOUD_UNAVAILABLE}
    with Serving(Peer(), port=slow.port):
        _until_cloud(lambda: client.resolve(question()).source)


def test_a_server_that_stands_still_costs_the_deadline_and_then_nothing(
    ask: Ask, peer_process: Callable[..., PeerProcess]
) -> None:
    peer = peer_process()
    client = ask(
        peer.address, deadline_s=0.1, breaker=BreakerSettings(failures=3, open_s=0.2, max_open_s=0.2)
    )
    _until_cloud(lambda: client.resolve(question()).source)
    os.kill(peer.pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            start = time.monotonic()
            assert client.resolve(question()).reason is Reason.CLOUD_DEADLINE
            assert time.monotonic() - start < 0.1 + _LATE_MS / 1e3
        # Its kernel accepts for it and acknowledges; only an answer says that it is there.
        start = time.monotonic()
        while time.monotonic() - start < 0.5:
            assert client.resolve(question()).reason is Reason.CLOUD_BREAKER_OPEN
            time.sleep(0.01)
    finally:
        os.kill(peer.pid, signal.SIGCONT)
    _until_cloud(lambda: client.resolve(question()).source)


def test_connections_that_are_accepted_and_never_answered_are_half_open_and_do_no_harm(ask: Ask) -> None:
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with listener:
                while True:
                    try:
                        accepted.append(listener.accept()[0])
                    except OSError:
                        return

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        client = ask(
            f"127.0.0.1:{listener.getsockname()[1]}",
            deadline_s=0.1,
            breaker=BreakerSettings(failures=2, open_s=5),
        )
        took = []
        for _ in range(20):
            start = time.monotonic()
            answer = client.resolve(question())
            took.append(time.monotonic() - start)
            assert answer.source is Source.DEVICE
        assert max(took) < 0.1 + _LATE_MS / 1e3
        assert sum(took) < 0.5
        listener.shutdown(socket.SHUT_RD)
    for connection in accepted:
        connection.close()
    acceptor.join(5)


@pytest.fixture(scope="module")
def clock_jump(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Path]:
    """An environment in which the wall clock is moved, and the file that says by how many seconds."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the library that moves a process's clock")
    folder = tmp_path_factory.mktemp("clock")
    library, offset = folder / "clock_jump.so", folder / "offset"
    source = Path(__file__).with_name("clock_jump.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O", "-o", library, source, "-ldl"], check=True)
    offset.write_bytes(struct.pack("q", 0))
    return {"LD_PRELOAD": str(library), "CLOCK_JUMP_FILE": str(offset)}, offset


def test_a_clock_that_jumps_moves_no_deadline_and_wakes_no_breaker(
    clock_jump: tuple[dict[str, str], Path], serve: Callable[..., Serving]
) -> None:
    environment, offset = clock_jump
    quick, slow = serve(Peer()), serve(Peer(delay_s=(1.0,)))
    options = {"deadline_s": 0.15, "breaker": {"failures": 1000}}
    stop = threading.Event()

    def jump() -> None:
        for days in itertools.cycle((1, -1, 365, -2000, 0)):
            with offset.open("r+b") as file:
                file.write(struct.pack("q", days * 86400))
            if stop.wait(0.037):
                return

    jumper = threading.Thread(target=jump)
    asking = ClientProcess(quick.address, options | {"deadline_s": 5.0}, env=environment)
    waiting = ClientProcess(slow.address, options, env=environment)
    try:
        asking.ask()
        jumper.start()
        assert {asking.ask().source for _ in range(100)} == {"cloud"}
        took = [waiting.ask().ms for _ in range(10)]
    finally:
        stop.set()
        jumper.join()
        asking.close()
        waiting.close()
    # gRPC's Python makes a moment of the wall clock of a timeout, and its core one of the monotonic clock of that: a
    # jump between the two, some microseconds on a machine that is not busy, is the only one that can move a deadline.
    assert sorted(took)[3] > 140
    assert sorted(took)[-4] < 150 + _LATE_MS


@pytest.fixture(scope="module")
def network() -> Iterator[BadNetwork]:
    if problem := BadNetwork.why_not():
        pytest.skip(problem)
    with BadNetwork() as network:
        yield network


@pytest.fixture(scope="module")
def far_peer(network: BadNetwork) -> Iterator[PeerProcess]:
    peer = PeerProcess(CLOUD, prefix=network.prefix(CLOUD))
    yield peer
    peer.kill()


@pytest.fixture(scope="module")
def far_client(network: BadNetwork, far_peer: PeerProcess) -> Iterator[ClientProcess]:
    options = {"deadline_s": 0.2, "breaker": {"failures": 3, "open_s": 0.1, "max_open_s": 0.3}}
    client = ClientProcess(far_peer.address, options, prefix=network.prefix(CLIENT))
    yield client
    client.close()


@pytest.fixture
def well(network: BadNetwork, far_client: ClientProcess) -> Iterator[ClientProcess]:
    """The client on a link that is well; it is left well too."""
    _until_cloud(lambda: far_client.ask().source)
    yield far_client
    for way in (network.up, network.down):
        way.delay_s, way.loss, way.is_cut = 0.0, 0.0, False


def _punctual(told: list[Told]) -> None:
    assert max(each.ms for each in told) < 200 + _LATE_MS
    assert all(each.y == 3.0 for each in told if each.source == "cloud")


def test_a_link_with_delay_is_used_for_as_long_as_answers_come_in_time(
    network: BadNetwork, well: ClientProcess
) -> None:
    network.up.delay_s = network.down.delay_s = 0.03
    near = [well.ask() for _ in range(10)]
    assert [each.source for each in near] == ["cloud"] * 10
    assert min(each.ms for each in near) >= 60
    network.up.delay_s = network.down.delay_s = 0.3
    far = [well.ask() for _ in range(20)]
    _punctual(far)
    assert {each.source for each in far} == {"device"}
    assert "cloud-breaker-open" in {each.reason for each in far}


def test_a_link_that_loses_packets_costs_answers_and_no_punctuality(
    network: BadNetwork, well: ClientProcess
) -> None:
    network.up.delay_s = network.down.delay_s = 0.005
    network.up.loss = network.down.loss = 0.1
    told = []
    for _ in range(60):
        told.append(well.ask())
        time.sleep(0.01)
    _punctual(told)
    assert {each.source for each in told} == {"cloud", "device"}


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_a_link_that_is_cut_is_noticed_and_used_again_when_it_is_there(
    network: BadNetwork, well: ClientProcess, direction: str
) -> None:
    ways = [network.up, network.down] if direction == "both" else [getattr(network, direction)]
    for way in ways:
        way.is_cut = True
    told = [well.ask() for _ in range(30)]
    _punctual(told)
    assert {each.source for each in told} == {"device"}
    # Three deadlines, and from then on nothing but a probe now and then.
    assert sum(each.ms for each in told) < 3 * 200 + 30 * 20 + _LATE_MS
    for way in ways:
        way.is_cut = False
    _until_cloud(lambda: well.ask().source)


@pytest.mark.heavy
def test_a_link_that_gets_better_and_worse_for_minutes_costs_no_punctuality(
    network: BadNetwork, well: ClientProcess
) -> None:
    chance = random.Random(7)
    told: list[Told] = []
    end = time.monotonic() + 120
    while time.monotonic() < end:
        for way in (network.up, network.down):
            way.delay_s = chance.choice((0.0, 0.01, 0.05, 0.15, 0.5))
            way.loss = chance.choice((0.0, 0.01, 0.1, 0.3))
            way.is_cut = chance.random() < 0.15
        for _ in range(chance.randint(5, 60)):
            told.append(well.ask())
            time.sleep(chance.choice((0.0, 0.005, 0.05)))
    late = sorted(each.ms for each in told if each.reason in ("cloud-deadline", "unsure"))
    assert late[int(0.99 * len(late))] < 205 + _LATE_MS
    assert {each.source for each in told} == {"cloud", "device"}
    for way in (network.up, network.down):
        way.delay_s, way.loss, way.is_cut = 0.0, 0.0, False
    _until_cloud(lambda: well.ask().source)
