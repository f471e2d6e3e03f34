"""An endpoint in a process of its own, started and stopped from Python."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from os import PathLike, fspath
from types import TracebackType
from typing import IO, Any, Self

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["EndpointProcess"]


class EndpointProcess:
    """Runs `hybridge serve` beside this process, on a loopback port that the system chooses, until `stop`.

    It ends with this process too, however that ends. It is in a session of its own, so that Ctrl-C reaches this
    process alone and requests under way can finish.

    Args:
        models: What to serve: paths, or ``name=path``.
        arguments: More flags of the command, such as ``["--instances", "1"]``.
        ready_s: Seconds that it may take to load the models.

    Raises:
        HybridgeError: The command's own error when it reports one, such as `file-not-found` or `model-invalid`;
            `cloud-unavailable` when it ends otherwise, or is not ready in time.

    Example:
        >>> with EndpointProcess(["digits-large-1.0.edge"]) as endpoint:
        ...     fallback = CloudFallback(endpoint.address, model="digits-large")
    """

    def __init__(
        self, models: Iterable[str | PathLike[str]], *, arguments: Iterable[str] = (), ready_s: float = 60.0
    ):
        # A file rather than a pipe: nobody reads what it logs while it runs, and a full pipe would stop it.
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [
                # -P: the folder that this runs in may have a module called like one of ours.
                *(sys.executable, "-P", "-c", "from edge_runtime.command import main; main()", "serve"),
                *(fspath(model) for model in models),
                *("--port", "0", "--format", "json", "--exit-with-parent"),
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        try:
            ready = self._wait_until_ready(ready_s)
            self.port: int = ready["port"]
            self.address: str = ready["address"]
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def stop(self, timeout_s: float = 15.0) -> int:
        """Lets requests under way finish; returns the exit code, which is 0 unless it had to be killed."""
        self._process.terminate()
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.returncode
        finally:
            self._release()

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        self._process.kill()
        self._process.wait()
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.stop()

    def _wait_until_ready(self, ready_s: float) -> dict[str, Any]:
        # Ends the read below: a process that is gone closes its pipe.
        watchdog = threading.Timer(ready_s, self._process.kill)
        watchdog.start()
        try:
            said = self._first_object()
        finally:
            watchdog.cancel()
        if "port" in said:
            return said
        self._process.wait()
        if "error" in said:
            raise HybridgeError(ErrorCode(said["error"]["code"]), said["error"]["message"])
        self._log.seek(0)
        raise HybridgeError(
            ErrorCode.CLOUD_UNAVAILABLE,
            "endpoint process",
            received=f"exit code {self._process.returncode} {self._log.read().decode(errors='replace').strip()}",
            expected=f"an endpoint that is ready within {ready_s:g} s",
        )

    def _first_object(self) -> dict[str, Any]:
        text = b""
        for line in self._process.stdout or ():
            text += line
            # The object is written over several lines, and the last one closes it.
            if line.rstrip() == b"}":
                said: dict[str, Any] = json.loads(text)
                return said
        return {}

    def _release(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()
