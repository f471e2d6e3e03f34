"""The process that `edge_runtime.latency` starts: loads one model, runs it, and reports what that cost.

A process of its own, so that load time and memory are the model's and not those of whatever was loaded before.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from edge_runtime.chain import Chain
from edge_runtime.interpreter import runtime_version
from edge_runtime.model import Model
from edge_runtime.tensor_spec import Array, TensorSpec
from edge_runtime.timing import Timing, time_runs

__all__ = ["Probe", "ProbeRequest"]


class ProbeRequest(Struct, frozen=True):
    """What to measure."""

    path: str
    num_threads: int
    runs: int
    warmup: int
    min_seconds: float


class Probe(Struct, frozen=True):
    """What was measured of one model with one number of threads.

    Attributes:
        num_threads: Threads that an invocation may use.
        runtime: Distribution and version of the interpreter.
        load_ms: Reading, verifying and allocating, until the model is ready.
        first_ms: The first run, which prepares what later runs reuse.
        memory_bytes: Resident memory that the loaded and warm model added to the process.
        peak_bytes: Largest resident memory of the whole process, Python and NumPy included.
        model: Time of `Model.run`: the tensors in, the tensors out.
        prediction: Time of the whole prediction: preprocessing, model, confidence and label.
    """

    num_threads: int
    runtime: str
    load_ms: float
    first_ms: float
    memory_bytes: int
    peak_bytes: int
    model: Timing
    prediction: Timing


def probe(request: ProbeRequest) -> Probe:
    """Measures in this process, which should have loaded no model before."""
    before = _status_bytes("VmRSS")
    start = time.perf_counter()
    model = Model(request.path, num_threads=request.num_threads)
    load_ms = (time.perf_counter() - start) * 1e3
    rng = np.random.default_rng(0)
    shapes = _shapes(model)
    inputs = {spec.name: _generate(spec, shapes[spec.name], rng) for spec in model.inputs}
    start = time.perf_counter()
    model.run(inputs)
    first_ms = (time.perf_counter() - start) * 1e3
    timing = time_runs(
        lambda: model.run(inputs), runs=request.runs, warmup=request.warmup, min_seconds=request.min_seconds
    )
    memory = max(_status_bytes("VmRSS") - before, 0)
    chain = Chain.from_bundle(model)
    raw = {
        spec.name: _generate(spec, _raw_shape(spec, shapes.get(spec.name, ())), rng)
        for spec in chain.stages[0].input_specs
    }
    prediction = time_runs(
        lambda: chain.run(raw), runs=request.runs, warmup=request.warmup, min_seconds=request.min_seconds
    )
    return Probe(
        num_threads=request.num_threads,
        runtime=runtime_version(),
        load_ms=load_ms,
        first_ms=first_ms,
        memory_bytes=memory,
        peak_bytes=_status_bytes("VmHWM"),
        model=timing,
        prediction=prediction,
    )


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """A shape for each input: free dimensions at the sizes that the bundle was compared at, else one."""
    if model.bundle is None:
        return {spec.name: _fixed(spec.shape, {}) for spec in model.inputs}
    signature = model.bundle.manifest.signature
    return {spec.name: _fixed(spec.shape, signature.sizes) for spec in signature.inputs}


def _fixed(shape: tuple[int | str, ...], sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(sizes.get(size, 1) if isinstance(size, str) else size for size in shape)


def _raw_shape(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """What a chain takes for an input: as the model takes it where that fits, else each free dimension at one."""
    return shape if spec.admits(shape) else _fixed(spec.shape, {})


def _generate(spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return rng.random(shape).astype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    # Indices into an embedding must stay small; for an image any value will do.
    limits = np.iinfo(dtype)
    low, high = (limits.min, limits.max) if dtype.itemsize == 1 else (0, 1)
    return rng.integers(low, high, shape, endpoint=True).astype(dtype)


def _status_bytes(field: str) -> int:
    # Linux; elsewhere memory is reported as zero rather than guessed.
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    for line in status.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    """Reads a request from standard input and writes the probe to standard output, both JSON."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=ProbeRequest)
    sys.stdout.buffer.write(msgspec.json.encode(probe(request)))


if __name__ == "__main__":
    main()
