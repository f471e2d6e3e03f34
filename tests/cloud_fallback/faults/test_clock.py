"""A wall clock that jumps, by hours and by years, in the endpoint's process."""

from __future__ import annotations

import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

import tests.cloud_fallback.client
from cloud_fallback import EndpointProcess
from cloud_fallback.endpoint.token_file import token_digest
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest, ServerMetadataRequest
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from cloud_fallback.open_inference.tensors import encode_request
from tests.cloud_fallback.faults.fault_table import FaultTable
from tests.cloud_fallback.faults.recording_model import RUNS, make, runs

OK, LATE = grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
HOUR_S = 3600
SetClock = Callable[[int], None]
Start = Callable[..., EndpointProcess]


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Moves the wall clock of processes that are started after it by as many seconds as it is called with."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the library that moves a process's clock")
    source = Path(tests.cloud_fallback.client.__file__).with_name("clock_jump.c")
    library, offset = tmp_path / "clock_jump.so", tmp_path / "offset"
    subprocess.run([compiler, "-shared", "-fPIC", "-O", "-o", library, source, "-ldl"], check=True)
    offset.write_bytes(struct.pack("q", 0))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("CLOCK_JUMP_FILE", str(offset))

    def jump(seconds: int) -> None:
        # In place: the process has it in its memory.
        with offset.open("r+b") as file:
            file.write(struct.pack("q", seconds))

    return jump


@pytest.fixture
def recording(clock: SetClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setenv(RUNS, str(tmp_path / "runs"))
    started: list[EndpointProcess] = []

    def start(*arguments: str) -> EndpointProcess:
        started.append(EndpointProcess([f"{make.__module__}:make"], arguments=arguments))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@contextmanager
def _jumping(clock: SetClock) -> Iterator[None]:
    """The clock goes back and forth for as long as the block runs."""
    is_over = threading.Event()

    def jump() -> None:
        while True:
            for hours in (1, -1, 24 * 365, -24 * 365, 0):
                clock(hours * HOUR_S)
                if is_over.wait(0.05):
                    return

    thread = threading.Thread(target=jump)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        clock(0)


def _request(seconds: float) -> ModelInferRequest:
    return encode_request("recording", {"seconds": np.array([seconds], np.float32)})


def test_a_clock_that_jumps_makes_no_request_late_and_no_late_request_good(
    recording: Start, clock: SetClock, tmp_path: Path, fault_table: FaultTable
) -> None:
    process = recording()
    with grpc.insecure_channel(process.address) as channel, _jumping(clock):
        stub = GRPCInferenceServiceStub(channel)
        # Each waits for the others' turns while the clock jumps, and has time enough for that.
        in_time = [stub.ModelInfer.future(_request(0.02), timeout=20) for _ in range(60)]
        assert {call.code() for call in in_time} == {OK}
        ran = runs(tmp_path / "runs")
        busy = [stub.ModelInfer.future(_request(0.8), timeout=20) for _ in range(2)]
        time.sleep(0.2)
        late = [stub.ModelInfer.future(_request(0.02), timeout=0.3) for _ in range(20)]
        assert {call.code() for call in late} <= {LATE, EXHAUSTED}
        assert {call.code() for call in busy} == {OK}
        assert stub.ModelInfer(_request(0.02), timeout=20).model_name == "recording"
    assert runs(tmp_path / "runs") == ran + 3
    fault_table(
        "the endpoint's clock jumps by hours and by a year, back and forth, while requests wait",
        "60 requests with time left were answered, 20 without were not run",
    )


@pytest.mark.heavy
def test_a_clock_that_jumps_gives_nobody_more_than_its_rate_and_locks_nobody_out(
    recording: Start, clock: SetClock, tmp_path: Path, fault_table: FaultTable
) -> None:
    token = "t" * 43
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        f'[clients.a]\ntoken_sha256 = ["{token_digest(token)}"]\nrequests_per_second = 5\nburst = 5\n'
        "expires = 2999-01-01T00:00:00Z\n"
    )
    process = recording("--tokens", str(tokens))
    metadata = (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(process.address) as channel:
        stub = GRPCInferenceServiceStub(channel)

        def let_in(times: int) -> int:
            calls = [
                stub.ServerMetadata.future(ServerMetadataRequest(), metadata=metadata) for _ in range(times)
            ]
            assert {call.code() for call in calls} <= {OK, EXHAUSTED}
            return sum(call.code() is OK for call in calls)

        assert let_in(20) <= 6
        clock(24 * HOUR_S)
        assert let_in(20) <= 3
        clock(-24 * HOUR_S)
        time.sleep(0.5)
        assert 1 <= let_in(20) <= 5
        # A change of the file is seen whatever the clock says.
        tokens.write_text("")
        time.sleep(0.7)
        call = stub.ServerMetadata.future(ServerMetadataRequest(), metadata=metadata)
        assert call.code() is grpc.StatusCode.UNAUTHENTICATED
    fault_table(
        "the endpoint's clock jumps by a day, forward and back, while a client is at its rate",
        "it got no more than its rate, and no less; a token revoked meanwhile was refused",
    )
