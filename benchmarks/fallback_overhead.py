"""What asking the cloud through `CloudFallback` costs beside a bare stub, and what a cloud that fails or is slow costs.

``HYBRIDGE_DATA=... python -m benchmarks.fallback_overhead`` measures, all in one run:

- asking: a model that does nothing, with 4 KB and 602 KB of float32, and MobileNet v2 (602 KB), behind an endpoint in a
  process of its own, through the fallback and through a bare stub on the same channel, in turn;
- not asking: how much longer an unsure prediction takes than a sure one while the breaker is open, the device is
  offline, or the endpoint has pushed back;
- lateness: over a link slower than the deadline, with and without second attempts, by how much the device's answer is
  later than that;
- bytes: what a photograph takes in each form in which it may be sent.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.data import data_file
from cloud_fallback import CloudFallback, EndpointProcess
from cloud_fallback.client.breaker import BreakerSettings
from cloud_fallback.client.hedging import Hedge
from cloud_fallback.client.payload import Payload
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from cloud_fallback.open_inference.tensors import encode_request, serialize_request
from edge_runtime import Model, Query, Reason
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, table
from edge_runtime.operators.image_file import decode
from edge_runtime.tensor_spec import Array
from edge_runtime.timing import paired_ratio

__all__ = ["fallback_overhead"]

_MOBILENET = "imagenet_ladder/mobilenet_v2_1.0_224_quant.tflite"
_PHOTOGRAPH = "images/cat_720p.jpg"
_IMAGE_SHAPE = (1, 224, 224, 3)
# Of float32: 4 KB, and as much as the image.
_TRIVIAL = {"trivial-4kb": (1, 1024), "trivial-602kb": (1, 150_528)}
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
_ASKED_LATE = 40
_NEVER = BreakerSettings(failures=10**9, failure_rate=1.0, window=10**9)


@click.command()
@click.option("--pairs", default=21, show_default=True, type=click.IntRange(min=3), help="Pairs of blocks.")
@click.option("--calls", default=50, show_default=True, type=click.IntRange(min=5), help="Calls a block.")
@format_option
def fallback_overhead(pairs: int, calls: int) -> None:
    """Compares CloudFallback with a bare stub, and measures what a cloud that fails or is slow costs."""
    mobilenet = data_file(_MOBILENET)
    queries = {
        name: _query(np.random.default_rng(0).random(shape, np.float32)) for name, shape in _TRIVIAL.items()
    }
    queries["mobilenet-v2"] = _model_query(Model(mobilenet))
    with tempfile.TemporaryDirectory(prefix="hybridge-") as folder:
        models = {
            name: _write_trivial(Path(folder) / f"{name}.onnx", shape) for name, shape in _TRIVIAL.items()
        }
        models["mobilenet-v2"] = mobilenet
        with EndpointProcess([f"{name}={path}" for name, path in models.items()]) as endpoint:
            asked = {
                name: _ask(endpoint.address, name, query, pairs=pairs, calls=calls)
                for name, query in queries.items()
            }
            unasked = _not_asking(queries["trivial-4kb"], pairs=pairs, calls=calls)
            late = _lateness(endpoint.port, queries["trivial-4kb"])
    sent = _sizes(data_file(_PHOTOGRAPH))
    emit(
        {"ask": asked, "not_asking_extra_us": unasked, "late_ms": late, "request_bytes": sent},
        lambda: _text(asked, unasked, late, sent),
    )


def _write_trivial(path: Path, shape: tuple[int, int]) -> Path:
    """A model whose output is the first ten elements of its input."""
    from onnx import TensorProto, helper, numpy_helper, save

    constants = {"starts": [0, 0], "ends": [1, 10]}
    graph = helper.make_graph(
        [helper.make_node("Slice", ["x", "starts", "ends"], ["y"])],
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _query(x: Array) -> Query:
    return Query("stage", {"x": x}, {"y": np.zeros((1, 10), np.float32)}, confidence=0.5, threshold=1.0)


def _model_query(model: Model) -> Query:
    (spec,) = model.inputs
    inputs = {spec.name: np.random.default_rng(0).random(_IMAGE_SHAPE, dtype=np.float32)}
    return Query("stage", inputs, model.run(inputs), confidence=0.5, threshold=1.0)


def _ask(address: str, name: str, query: Query, *, pairs: int, calls: int) -> dict[str, float]:
    with CloudFallback(address, model=name, deadline_s=_PATIENCE_S, breaker=_NEVER) as fallback:
        # The fallback's own: on another, with another connection, it is not the same call.
        channel = fallback._connection._channel(0)._channel
        infer = GRPCInferenceServiceStub(channel).ModelInfer
        # Made once: what is left is the call itself.
        request = encode_request(name, query.inputs)
        infer(request, timeout=_PATIENCE_S, wait_for_ready=True)
        if fallback.resolve(query).outputs is None:
            raise RuntimeError(f"the endpoint did not answer for {name}: {fallback.resolve(query).detail}")
        ratio, ours, bare = paired_ratio(
            lambda: fallback.resolve(query),
            lambda: infer(request, timeout=_PATIENCE_S),
            pairs=pairs,
            calls=calls,
        )
    size = sum(array.nbytes for array in query.inputs.values())
    return {"input_bytes": size, "fallback_ms": ours.median_ms, "stub_ms": bare.median_ms, "ratio": ratio}


def _not_asking(query: Query, *, pairs: int, calls: int) -> dict[str, dict[str, float]]:
    """Microseconds that an unsure prediction takes longer than a sure one, when nobody can be asked."""
    sure = Query("stage", query.inputs, query.outputs, confidence=0.5, threshold=0.1)
    with _silent_port() as silent, _free_port() as nobody:
        return {
            "breaker open": _extra(silent, query, sure, Reason.CLOUD_BREAKER_OPEN, pairs=pairs, calls=calls),
            "offline": _extra(nobody, query, sure, Reason.OFFLINE, pairs=pairs, calls=calls),
        }


def _extra(
    port: int, query: Query, sure: Query, expected: Reason, *, pairs: int, calls: int
) -> dict[str, float]:
    settings = BreakerSettings(failures=3, open_s=600, max_open_s=600)
    with CloudFallback(f"127.0.0.1:{port}", model="m", deadline_s=0.02, breaker=settings) as fallback:
        for _ in range(3):
            fallback.resolve(query)
        if (reason := fallback.resolve(query).reason) is not expected:
            raise RuntimeError(f"the fallback says {reason}, not {expected}")
        _, unsure, kept = paired_ratio(
            lambda: fallback.resolve(query), lambda: fallback.resolve(sure), pairs=pairs, calls=20 * calls
        )
        all_unsure = [_seconds(lambda: fallback.resolve(query)) for _ in range(5000)]
    return {
        "sure_us": kept.median_ms * 1e3,
        "extra_us_p50": (unsure.median_ms - kept.median_ms) * 1e3,
        "extra_us_p99": float(np.percentile(all_unsure, 99)) * 1e6 - kept.median_ms * 1e3,
    }


@contextmanager
def _silent_port() -> Iterator[int]:
    """A port on which connections are accepted, by the system, and nobody ever speaks."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def _free_port() -> Iterator[int]:
    """A port on which nobody listens, nor will while this lasts."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def _lateness(port: int, query: Query) -> dict[str, dict[str, dict[str, float]]]:
    with _slow_link(port) as slow:
        return {
            what: {
                f"{deadline_s * 1e3:.0f}": _late(slow, query, deadline_s, hedge)
                for deadline_s in _DEADLINES_S
            }
            for what, hedge in (("one attempt", False), ("two attempts", Hedge(share=1.0)))
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


def _late(port: int, query: Query, deadline_s: float, hedge: Hedge | bool) -> dict[str, float]:
    late: list[float] = []
    with CloudFallback(
        f"127.0.0.1:{port}", model="trivial-4kb", deadline_s=deadline_s, breaker=_NEVER, hedge=hedge
    ) as fallback:
        fallback.infer(query.inputs, deadline_s=_PATIENCE_S)  # so that the connection is there
        while len(late) < _ASKED_LATE:
            start = time.perf_counter()
            answer = fallback.resolve(query)
            # The others were not asked for want of time, as it knows the link by then.
            if answer.reason is Reason.CLOUD_DEADLINE:
                late.append((time.perf_counter() - start - deadline_s) * 1e3)
    return {"p50": float(np.median(late)), "p99": float(np.percentile(late, 99))}


def _sizes(photograph: Path) -> dict[str, int]:
    """Bytes of a request with a photograph of 224x224 pixels, in each form."""
    from edge_runtime.operators.opencv import opencv

    image = decode(np.frombuffer(photograph.read_bytes(), np.uint8))
    scaled = opencv().resize(image, _IMAGE_SHAPE[1:3], interpolation=opencv().INTER_AREA)
    inputs = {"image": scaled.astype(np.float32)[np.newaxis]}

    def size(forms: dict[str, str], **declared: Any) -> int:
        return len(serialize_request("m", Payload(forms).shrink(inputs, declared)))

    return {
        "float32": size({}),
        "float16": size({"image": "float16"}),
        "uint8, as the model declares": size({}, image=("UINT8", 4)),
        "png": size({"image": "png"}),
        "jpeg:90": size({"image": "jpeg:90"}),
        "jpeg:75": size({"image": "jpeg:75"}),
    }


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _text(
    asked: dict[str, dict[str, float]],
    unasked: dict[str, dict[str, float]],
    late: dict[str, dict[str, dict[str, float]]],
    sent: dict[str, int],
) -> str:
    return "\n\n".join(
        (
            table(
                [
                    (
                        n,
                        f"{r['input_bytes']:,.0f}",
                        f"{r['fallback_ms']:.3f}",
                        f"{r['stub_ms']:.3f}",
                        f"{r['ratio']:.3f}",
                    )
                    for n, r in asked.items()
                ],
                header=("model", "bytes", "fallback ms", "bare stub ms", "ratio"),
            ),
            table(
                [(what, *(f"{value:.1f}" for value in r.values())) for what, r in unasked.items()],
                header=("nobody to ask", "sure us", "extra us p50", "extra us p99"),
            ),
            table(
                [
                    (what, f"{deadline} ms", f"{r['p50']:.1f}", f"{r['p99']:.1f}")
                    for what, by_deadline in late.items()
                    for deadline, r in by_deadline.items()
                ],
                header=("slow link", "deadline", "late ms p50", "late ms p99"),
            ),
            table(
                [(form, f"{size:,}", f"{size / sent['float32']:.3f}") for form, size in sent.items()],
                header=("photograph as", "bytes", "of float32"),
            ),
        )
    )


if __name__ == "__main__":
    run_verb(fallback_overhead)
