"""What asking the cloud through `CloudFallback` adds to a bare stub, and how late an answer is that comes too late.

``HYBRIDGE_DATA=... python -m benchmarks.fallback_overhead`` serves real models from a process of its own and asks each
in turn through the fallback and through a bare stub on a channel of the same kind: the DS-CNN of MLPerf Tiny (2 KB of
float32) and MobileNet v2 (602 KB). The time the model takes is in both. Then it asks over a link slower than the
deadline, from a process of its own too, and reports by how much the device's answer is later than the deadline.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
import grpc
import numpy as np

from benchmarks.data import data_file
from cloud_fallback import CloudFallback, EndpointProcess
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from cloud_fallback.open_inference.tensors import encode_request
from edge_runtime import Model, Query
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, table
from edge_runtime.timing import paired_ratio, time_runs

__all__ = ["fallback_overhead"]

_MODELS = {
    "ds-cnn": "mlperf_tiny/kws_ref_model.tflite",
    "mobilenet-v2": "imagenet_ladder/mobilenet_v2_1.0_224_quant.tflite",
}
_DEADLINES_S = (0.02, 0.05, 0.1)
_LINK = """
import sys
from benchmarks.demo.slow_link import SlowLink
with SlowLink(int(sys.argv[1]), delay_s=0.1) as link:
    print(link.port, flush=True)
    sys.stdin.read()
"""
# Long enough for any model here; the point is the overhead.
_PATIENCE_S = 5.0


@click.command()
@click.option("--pairs", default=21, show_default=True, type=click.IntRange(min=3), help="Pairs of blocks.")
@click.option("--calls", default=50, show_default=True, type=click.IntRange(min=5), help="Calls a block.")
@format_option
def fallback_overhead(pairs: int, calls: int) -> None:
    """Compares CloudFallback with a bare stub, and measures how deadlines are kept."""
    models = {name: data_file(path) for name, path in _MODELS.items()}
    with EndpointProcess([f"{name}={path}" for name, path in models.items()]) as endpoint:
        asked = {
            name: _ask(endpoint.address, name, Model(path), pairs=pairs, calls=calls)
            for name, path in models.items()
        }
        with _slow_link(endpoint.port) as port:
            query = _query(Model(models["ds-cnn"]))
            late = {f"{deadline * 1e3:.0f}": _lateness(port, query, deadline) for deadline in _DEADLINES_S}
    emit({"ask": asked, "late_ms_by_deadline_ms": late}, lambda: _text(asked, late))


def _query(model: Model, *, threshold: float = 1.0) -> Query:
    (spec,) = model.inputs
    shape = tuple(1 if isinstance(size, str) else size for size in spec.shape)
    inputs = {spec.name: np.random.default_rng(0).random(shape, dtype=np.float32)}
    return Query("stage", inputs, model.run(inputs), confidence=0.5, threshold=threshold)


def _ask(address: str, name: str, model: Model, *, pairs: int, calls: int) -> dict[str, float]:
    query = _query(model)
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with (
        CloudFallback(address, model=name, deadline_s=_PATIENCE_S) as fallback,
        grpc.insecure_channel(address, options) as channel,
    ):
        infer = GRPCInferenceServiceStub(channel).ModelInfer
        # Encoded once: what is left is the call itself.
        request = encode_request(name, query.inputs)
        infer(request, timeout=_PATIENCE_S, wait_for_ready=True)
        if fallback.resolve(query).outputs is None:
            raise RuntimeError(f"the endpoint did not answer for {name}")
        ratio, ours, bare = paired_ratio(
            lambda: fallback.resolve(query),
            lambda: infer(request, timeout=_PATIENCE_S),
            pairs=pairs,
            calls=calls,
        )
        sure = _query(model, threshold=0.0)
        kept = time_runs(lambda: fallback.resolve(sure), runs=2000, warmup=100)
    size = sum(array.nbytes for array in query.inputs.values())
    return {
        "input_bytes": size,
        "fallback_ms": ours.median_ms,
        "stub_ms": bare.median_ms,
        "ratio": ratio,
        "keep_ms": kept.median_ms,
    }


@contextmanager
def _slow_link(port: int) -> Iterator[int]:
    command = [sys.executable, "-c", _LINK, str(port)]
    # It ends when its standard input does, so also when this process is gone.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as link:
        assert link.stdout is not None  # noqa: S101 - it was opened as a pipe
        assert link.stdin is not None  # noqa: S101 - likewise
        try:
            yield int(link.stdout.readline())
        finally:
            link.stdin.close()


def _lateness(port: int, query: Query, deadline_s: float) -> dict[str, float]:
    with CloudFallback(f"127.0.0.1:{port}", model="ds-cnn", deadline_s=deadline_s) as fallback:
        fallback.infer(query.inputs, deadline_s=_PATIENCE_S)  # so that the connection is there
        late = [(_seconds(lambda: fallback.resolve(query)) - deadline_s) * 1e3 for _ in range(40)]
    return {"p50": float(np.median(late)), "p99": float(np.percentile(late, 99))}


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _text(asked: dict[str, dict[str, float]], late: dict[str, dict[str, float]]) -> str:
    rows = [
        (
            name,
            f"{r['input_bytes']:,.0f}",
            f"{r['fallback_ms']:.3f}",
            f"{r['stub_ms']:.3f}",
            f"{r['ratio']:.3f}",
            f"{r['keep_ms'] * 1e3:.1f}",
        )
        for name, r in asked.items()
    ]
    header = ("model", "bytes", "fallback ms", "bare stub ms", "ratio", "keep us")
    lateness = [(f"{deadline} ms", f"{r['p50']:.1f}", f"{r['p99']:.1f}") for deadline, r in late.items()]
    return f"{table(rows, header=header)}\n\n{table(lateness, header=('deadline', 'late ms p50', 'late ms p99'))}"


if __name__ == "__main__":
    run_verb(fallback_overhead)
