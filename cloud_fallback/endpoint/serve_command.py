"""`hybridge serve`: an endpoint in a process of its own."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from cloud_fallback.endpoint.allocator import keep_freed_memory
from cloud_fallback.endpoint.outlet_flags import Outlets, outlet_flags
from cloud_fallback.endpoint.rpc.connection_settings import raise_file_limit
from cloud_fallback.endpoint.security_flags import Security, security_flags
from edge_runtime.console import emit, format_option, say, usage_error
from edge_runtime.errors import HybridgeError

if TYPE_CHECKING:
    from cloud_fallback.endpoint.endpoint import Endpoint
    from cloud_fallback.endpoint.repository import Repository

__all__ = ["serve"]

# How often to look whether the parent is still there, and whether to load again.
_CHECK_S = 0.25


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
    "--workers",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Threads that read and answer.",
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
    "--max-batch-size",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Rows of requests that are run together, for models with a free batch.",
)
@click.option(
    "--preferred-batch-size",
    type=click.IntRange(min=1),
    multiple=True,
    help="Rows at which a run begins at once; may be repeated.",
)
@click.option(
    "--queue-delay-ms",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="How long a run waits for more requests.",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(min=1),
    default=48,
    show_default=True,
    help="Requests that may wait for a model; more are refused, with a time to come back after.",
)
@click.option(
    "--split",
    multiple=True,
    metavar="NAME=VERSION:WEIGHT,...",
    help="How requests that name no version are shared among versions; may be repeated.",
)
@click.option(
    "--watch", is_flag=True, help="Load what is new or changed in the files and folders, as SIGHUP does."
)
@click.option(
    "--grace-s",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Seconds that calls under way have to finish when it is told to stop.",
)
@outlet_flags
@security_flags
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
    max_batch_size: int,
    preferred_batch_size: tuple[int, ...],
    queue_delay_ms: float,
    max_waiting: int,
    split: tuple[str, ...],
    watch: bool,
    grace_s: float,
    rest_port: int | None,
    metrics_port: int | None,
    log_requests: bool,
    log_one_in: int,
    exit_with_parent: bool,
    **security: Any,
) -> None:
    """Serves models, folders of them, chains, and what module:function returns.

    A model is an .edge, .tflite, .onnx, .keras or .h5 file or a SavedModel; a chain is a .toml. A folder may hold
    models, or a folder for each model with a folder for each version. It speaks the Open Inference Protocol.

    Writes its address to standard output when it is ready. SIGTERM and SIGINT stop it: new calls are refused, those
    under way finish, and it exits with 0. SIGHUP loads what has changed; no request is dropped.
    """
    parent = os.getppid() if exit_with_parent else None
    keep_freed_memory()
    raise_file_limit()
    from cloud_fallback.endpoint.endpoint import Endpoint
    from cloud_fallback.endpoint.repository import Repository
    from cloud_fallback.endpoint.repository_watch import RepositoryWatch
    from cloud_fallback.endpoint.served import Batching

    stop, reload = threading.Event(), threading.Event()
    # One that comes while models are loaded has them loaded again; until then the others end it.
    _set_by(reload, signal.SIGHUP)
    secured = Security.of(**security)
    outlets = Outlets.of(
        rest_port=rest_port, metrics_port=metrics_port, log_requests=log_requests, log_one_in=log_one_in
    )
    repository = Repository.load(
        models,
        instances=instances,
        num_threads=num_threads,
        batching=Batching(max_batch_size, preferred_batch_size, queue_delay_ms, max_waiting),
        splits=dict(map(_split, split)),
    )
    endpoint = Endpoint(
        repository,
        host=host,
        port=port,
        max_message_bytes=max_message_mb * 2**20,
        max_workers=workers,
        access=secured.access,
        tls=secured.tls,
        tokens_in_clear=secured.tokens_in_clear,
        telemetry=outlets.telemetry,
    )
    _set_by(stop, signal.SIGINT, signal.SIGTERM)
    with RepositoryWatch(repository) if watch else nullcontext():
        # Before the endpoint, whose readiness speaks for all of them.
        with outlets.open(
            endpoint, max_body_bytes=max_message_mb * 2**20, tls=secured.tls, grace_s=grace_s
        ) as others:
            endpoint.start()
            emit(_data(endpoint) | others, lambda: _text(endpoint))
            while not stop.wait(_CHECK_S):
                # An orphan is given to another parent.
                if exit_with_parent and os.getppid() != parent:
                    break
                if reload.is_set():
                    reload.clear()
                    # A stop does not wait for models, but the process does.
                    threading.Thread(target=_reload, args=(repository,), name="endpoint-reload").start()
            # A second signal ends it at once.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            say("stopping: calls under way may finish")
        # While the watch may still be loading.
        endpoint.stop(grace_s)


def _set_by(event: threading.Event, *signals: signal.Signals) -> None:
    def note(_number: int, _frame: FrameType | None) -> None:
        event.set()

    for each in signals:
        signal.signal(each, note)


def _reload(repository: Repository) -> None:
    try:
        failures = repository.refresh()
    except HybridgeError as error:
        failures = [error]
    for failure in failures:
        say(f"not loaded: {failure.message}")
    say(f"serving {_names(repository)}")


def _split(text: str) -> tuple[str, dict[str, float]]:
    """A model's name, and the weight of each of its versions."""
    name, _, shares = text.partition("=")
    try:
        weights = {
            version: float(weight)
            for version, weight in (share.rsplit(":", 1) for share in shares.split(","))
        }
    except ValueError as error:
        raise usage_error(
            f"--split '{text}' is none; write it as name=version:weight,..., such as digits=1.1:5,1.0:95"
        ) from error
    return name, weights


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
    return f"serving {_names(endpoint.repository)} on {endpoint.address}"


def _names(repository: Repository) -> str:
    return ", ".join(f"{model.name} {model.version}" for model in repository.models) or "nothing"
