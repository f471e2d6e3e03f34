"""A server of the Open Inference Protocol in a process of its own, until it is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import grpc

from cloud_fallback.open_inference.open_inference_pb2 import ModelReadyRequest
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["ServerProcess", "free_port"]

_LOG_TAIL = 2000


class ServerProcess:
    """Runs a server's command, waits until a model answers, and ends all of its processes.

    It leads a session of its own, which holds its workers too, and is killed when this process dies.

    Args:
        command: What to run.
        model: The model that must be ready.
        port: Where it will listen, on the loopback.
        environment: Variables beside those of this process.
        folder: Where to run it.
        ready_s: Seconds that it may take.

    Raises:
        HybridgeError: `cloud-unavailable` when it ends, or is not ready in time, with the end of its log.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        model: str,
        port: int,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        ready_s: float = 90.0,
    ):
        self.address = f"127.0.0.1:{port}"
        # A file rather than a pipe: nobody reads what it logs while it runs, and a full pipe would stop it.
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the server
        self._process = subprocess.Popen(
            [*map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=folder,
            start_new_session=True,
        )
        # Its standard input ends when this process does, however that ends.
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -s KILL -- "-$0"', str(self._process.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._wait_until_ready(model, ready_s)
        except BaseException:
            self.kill()
            raise

    @property
    def session(self) -> int:
        """The session that all of its processes are in."""
        return self._process.pid

    def stop(self, timeout_s: float = 20.0) -> None:
        """Asks it to end, and kills what is left of it then."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """Ends all of its processes at once, as a crash of its machine would."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._watchdog.kill()
        self._watchdog.communicate()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._log.closed:
            self.stop()

    def _wait_until_ready(self, model: str, ready_s: float) -> None:
        give_up = time.monotonic() + ready_s
        with grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            is_ready = GRPCInferenceServiceStub(channel).ModelReady
            while time.monotonic() < give_up and self._process.poll() is None:
                try:
                    if is_ready(ModelReadyRequest(name=model), timeout=1).ready:
                        return
                except grpc.RpcError:
                    pass
                time.sleep(0.1)
        self._log.seek(0)
        said = self._log.read()[-_LOG_TAIL:].decode(errors="replace")
        raise HybridgeError(
            ErrorCode.CLOUD_UNAVAILABLE,
            f"server '{Path(self._process.args[0]).name}'",  # type: ignore[index, arg-type]
            received=f"exit code {self._process.poll()}, {said}",
            expected=f"model '{model}' ready within {ready_s:g} s",
        )


def free_port() -> int:
    """A port of the loopback that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
