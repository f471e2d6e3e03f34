"""An endpoint in a process of its own that tests attack, and what they see of it from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cloud_fallback import EndpointProcess
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from cloud_fallback.open_inference.statuses import PUSHBACK_KEY
from cloud_fallback.open_inference.tensors import decode_response, encode_request
from tests.cloud_fallback.faults.http2 import RawConnection
from tests.cloud_fallback.onnx_models import LINEAR_WEIGHTS

__all__ = ["Attacked", "Memory", "until"]

X = np.arange(6, dtype=np.float32).reshape(2, 3)


class Memory:
    """What a process took of memory while it was watched, in MB."""

    def __init__(self, before: float):
        self.before = self.peak = before

    @property
    def grew(self) -> float:
        return self.peak - self.before


class Attacked:
    """The endpoint's process, reached over sockets only.

    Args:
        process: It serves the models of `onnx_models`.
    """

    def __init__(self, process: EndpointProcess):
        self.process = process
        self.address = process.address
        self.channel = self.own_channel()
        self.stub = GRPCInferenceServiceStub(self.channel)
        self._open: list[RawConnection] = []

    def own_channel(self) -> grpc.Channel:
        """A connection that no other channel shares, for messages of any size."""
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
        ]
        return grpc.insecure_channel(self.address, options)

    def connect(self, **options: Any) -> RawConnection:
        """A raw connection, closed by `hang_up` at the latest."""
        self._open.append(RawConnection(self.address, **options))
        return self._open[-1]

    def hang_up(self) -> None:
        """Closes all raw connections."""
        for connection in self._open:
            connection.close()
        self._open.clear()

    def answers(self, within_s: float = 10.0) -> float:
        """Asserts that it answers correctly and is well; returns the seconds that this took."""
        start = time.monotonic()
        response = self.stub.ModelInfer(encode_request("linear", {"x": X}), timeout=within_s)
        np.testing.assert_array_equal(decode_response(response)["y"], X @ LINEAR_WEIGHTS)
        health = health_pb2_grpc.HealthStub(self.channel)
        check = health.Check(health_pb2.HealthCheckRequest(), timeout=within_s)
        assert check.status == health_pb2.HealthCheckResponse.SERVING
        return time.monotonic() - start

    def answers_in_the_end(self, within_s: float = 30.0) -> float:
        """`answers`, by one who comes again when told to; returns the seconds that this took."""
        start = time.monotonic()
        while True:
            try:
                self.answers(within_s)
                return time.monotonic() - start
            except grpc.RpcError as error:
                pushback = dict(error.trailing_metadata() or ()).get(PUSHBACK_KEY)
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED or pushback is None:
                    raise
                assert time.monotonic() - start < within_s, f"not let in within {within_s} s"
                time.sleep(int(pushback) / 1e3)

    def memory_mb(self) -> float:
        """What it has in memory now."""
        return _resident_mb(self.process.pid)

    @contextmanager
    def memory(self) -> Iterator[Memory]:
        """Watches what it has in memory."""
        memory, is_over = Memory(self.memory_mb()), threading.Event()

        def watch() -> None:
            while not is_over.wait(0.01):
                memory.peak = max(memory.peak, self.memory_mb())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield memory
        finally:
            is_over.set()
            watcher.join()
            memory.peak = max(memory.peak, self.memory_mb())

    def log(self) -> str:
        """What it wrote to standard error."""
        self.process._log.seek(0)
        return self.process._log.read().decode(errors="replace")

    def close(self) -> None:
        """Ends it."""
        self.hang_up()
        self.channel.close()
        self.process.kill()


def until(condition: Callable[[], bool], seconds: float) -> float:
    """Waits for a condition; returns the seconds that it took, and fails when it took more than allowed."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - start


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} has no memory: it has ended")
