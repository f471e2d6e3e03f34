"""Who is compared: our endpoint as it comes, and every way of running a peer that might be its fastest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from benchmarks.serving_vs_peers.mlserver import start_mlserver
from benchmarks.serving_vs_peers.triton import start_pytriton, start_triton
from cloud_fallback import EndpointProcess

__all__ = ["MODEL", "Contender", "Endpoint", "Server", "peers"]

MODEL = "plus-one"

_MODELS = Path(__file__).with_name("peer_models")
_TRITON_FIXED = """
max_batch_size: 0
input [{name: "x" data_type: TYPE_FP32 dims: [1, -1]}]
output [{name: "y" data_type: TYPE_FP32 dims: [1, -1]}]
"""
_TRITON_BATCHED = """
max_batch_size: 32
dynamic_batching {}
input [{name: "x" data_type: TYPE_FP32 dims: [-1]}]
output [{name: "y" data_type: TYPE_FP32 dims: [-1]}]
"""


class Server(Protocol):
    """A server that runs.

    Attributes:
        address: Where, as ``host:port``.
        session: The session that all its processes are in.
    """

    @property
    def address(self) -> str: ...  # noqa: D102
    @property
    def session(self) -> int: ...  # noqa: D102


@dataclass(frozen=True)
class Contender:
    """One way of serving `MODEL`.

    Attributes:
        server: Whose server.
        configuration: What it is told.
        start: Starts it with an empty folder of its own.
    """

    server: str
    configuration: str
    start: Callable[[Path], AbstractContextManager[Server]]


class Endpoint(EndpointProcess):
    """Our endpoint, as a `Server`."""

    @property
    def session(self) -> int:
        """It leads a session of its own."""
        return self.pid

    @classmethod
    def contender(cls, arguments: Sequence[str]) -> Contender:
        """It serves `MODEL` with more flags of `hybridge serve`."""
        models = [f"{MODEL}=benchmarks.serving_vs_peers.plus_one:plus_one"]
        return Contender(
            "hybridge", " ".join(arguments) or "as it comes", lambda _: cls(models, arguments=arguments)
        )


def peers() -> list[Contender]:
    """Every configuration of MLServer and of Triton."""
    return [*_mlservers(), *_tritons()]


def _mlservers() -> list[Contender]:
    start = partial(start_mlserver, model=MODEL, source=_MODELS / "mlserver_plus_one.py")
    batching = {"max_batch_size": 32, "max_batch_time": 0.002}
    return [
        Contender("MLServer", "one process", partial(start, implementation="ByCodec")),
        Contender("MLServer", "one process, without its codec", partial(start, implementation="ByList")),
        Contender(
            "MLServer",
            "one process, adaptive batching",
            partial(start, implementation="ByCodec", settings=batching),
        ),
        Contender(
            "MLServer",
            "2 workers",
            partial(start, implementation="ByCodec", server_settings={"parallel_workers": 2}),
        ),
    ]


def _tritons() -> list[Contender]:
    start = partial(start_triton, model=MODEL, source=_MODELS / "triton_plus_one.py")
    described = {
        "Python backend": _TRITON_FIXED,
        "Python backend, dynamic batching": _TRITON_BATCHED,
    }
    return [
        *(
            Contender(
                "Triton",
                f"{description}, {count} instance{'s' * (count > 1)}",
                partial(start, configuration=f"{text}\ninstance_group [{{kind: KIND_CPU count: {count}}}]"),
            )
            for description, text in described.items()
            for count in (1, 2, 4)
        ),
        Contender(
            "Triton",
            "PyTriton, dynamic batching, 2 functions",
            partial(start_pytriton, model=MODEL, source=_MODELS / "pytriton_plus_one.py", arguments=("2",)),
        ),
    ]
