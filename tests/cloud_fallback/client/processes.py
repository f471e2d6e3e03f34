"""A peer and a client in processes of their own: `python -m tests.cloud_fallback.client.processes peer|client ...`.

The client reads a question a line from standard input, ``{"values": [1, 2]}``, and writes what came of it and how long
that took: ``{"source": "cloud", "reason": "unsure", "ms": 1.2, ...}``. Both end when their standard input does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from cloud_fallback import CloudFallback
from cloud_fallback.client.breaker import BreakerSettings
from tests.cloud_fallback.client.peer import Peer, Serving, question


@dataclass(frozen=True)
class Told:
    """What a client's process says of one question."""

    source: str
    reason: str
    detail: str
    y: float | None
    ms: float
    asked: int
    breaker: str
    is_offline: bool


class ClientProcess:
    """A client in a process of its own.

    Args:
        target: Whom it asks.
        options: Arguments of `CloudFallback`; `breaker` as a mapping.
        prefix: What starts the process, such as ``ip netns exec name``.
        env: Its environment, beside this process's.
    """

    def __init__(
        self,
        target: str,
        options: dict[str, Any],
        *,
        prefix: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
    ):
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", __name__, "client", target, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | (env or {}),
        )
        assert self._read() == {"ready": True}

    def ask(self, *values: float) -> Told:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"values": values or (1.0, 2.0)}) + "\n")
        self._process.stdin.flush()
        return Told(**self._read())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


class PeerProcess:
    """A `Peer` in a process of its own, which can be killed.

    Args:
        host: The address to serve on.
        port: Its port, 0 for any.
        delay_s: Seconds that an answer takes.
        prefix: What starts the process.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, *, delay_s: float = 0.0, prefix: tuple[str, ...] = ()
    ):
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", __name__, "peer", host, str(port), str(delay_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.address = f"{host}:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def _run_peer(host: str, port: str, delay_s: str) -> None:
    with Serving(Peer(delay_s=(float(delay_s),)), host=host, port=int(port)) as serving:
        print(serving.port, flush=True)  # noqa: T201 - a program of its own
        sys.stdin.read()


def _run_client(target: str, text: str) -> None:
    options = json.loads(text)
    if "breaker" in options:
        options["breaker"] = BreakerSettings(**options["breaker"])
    with CloudFallback(target, **({"model": "m"} | options)) as client:
        print(json.dumps({"ready": True}), flush=True)  # noqa: T201 - likewise
        for line in sys.stdin:
            query = question(*json.loads(line)["values"])
            start = time.perf_counter()
            answer = client.resolve(query)
            milliseconds = (time.perf_counter() - start) * 1e3
            figures = client.figures()
            told = Told(
                answer.source,
                answer.reason,
                answer.detail,
                None if answer.outputs is None else float(answer.outputs["y"][0]),
                milliseconds,
                figures.asked,
                figures.breaker,
                figures.is_offline,
            )
            print(json.dumps(asdict(told)), flush=True)  # noqa: T201 - likewise


if __name__ == "__main__":
    if sys.argv[1] == "peer":
        _run_peer(*sys.argv[2:])
    else:
        _run_client(*sys.argv[2:])
