"""`hybridge serve`: an endpoint in a process of its own."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.console import emit, format_option, say

if TYPE_CHECKING:
    from cloud_fallback.endpoint.endpoint import Endpoint

__all__ = ["serve"]

# How often to look whether the parent is still there.
_PARENT_CHECK_S = 0.25


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]MODEL...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8001,
    show_default=True,
    help="Port to listen on; 0 lets the system choose.",
)
@click.option(
    "--max-message-mb",
    type=click.IntRange(min=1, max=2047),
    default=64,
    show_default=True,
    help="Size of the largest request and response, in MiB.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=8, show_default=True, help="Calls answered at once."
)
@click.option(
    "--instances",
    type=click.IntRange(min=1),
    help="Calls that may run at once on each model.  [default: 2, or 1 on a single core]",
)
@click.option(
    "--num-threads",
    type=click.IntRange(min=1),
    help="Threads that each instance may use.  [default: the cores, shared out among instances]",
)
@click.option(
    "--grace-s",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Seconds that calls under way have to finish when it is told to stop.",
)
@click.option("--exit-with-parent", is_flag=True, help="Stop when the process that started this one ends.")
@format_option
def serve(
    models: tuple[str, ...],
    host: str,
    port: int,
    max_message_mb: int,
    workers: int,
    instances: int | None,
    num_threads: int | None,
    grace_s: float,
    exit_with_parent: bool,
) -> None:
    """Serves .edge, .tflite and .onnx files, folders of them, chains (.toml), and what module:function returns.

    It speaks the Open Inference Protocol.

    Writes its address to standard output when it is ready. SIGTERM and SIGINT stop it: new calls are refused, those
    under way finish, and it exits with 0.
    """
    parent = os.getppid() if exit_with_parent else None
    from cloud_fallback.endpoint.endpoint import Endpoint
    from cloud_fallback.endpoint.repository import Repository

    repository = Repository.load(models, instances=instances, num_threads=num_threads)
    endpoint = Endpoint(
        repository, host=host, port=port, max_message_bytes=max_message_mb * 2**20, max_workers=workers
    )
    stop = _stop_on_signals()
    with endpoint:
        emit(_data(endpoint), lambda: _text(endpoint))
        while not stop.wait(_PARENT_CHECK_S if exit_with_parent else None):
            # An orphan is given to another parent.
            if os.getppid() != parent:
                break
        # A second signal ends it at once.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        say("stopping: calls under way may finish")
        endpoint.stop(grace_s)


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def request_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)
    return stop


def _data(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "address": endpoint.address,
        "host": endpoint.host,
        "port": endpoint.port,
        "models": [
            {"name": model.name, "version": model.version, "platform": model.platform}
            for model in endpoint.repository.models
        ],
    }


def _text(endpoint: Endpoint) -> str:
    models = ", ".join(f"{model.name} {model.version}" for model in endpoint.repository.models)
    return f"serving {models} on {endpoint.address}"
