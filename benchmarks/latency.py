"""Latency of a model on this machine: load, first run, steady runs, and memory."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import msgspec

from benchmarks.latency_probe import Probe, ProbeRequest
from edge_runtime import Bundle, ErrorCode, HybridgeError, Model
from edge_runtime.manifest import Latency

__all__ = ["machine_name", "measure_latency", "with_latency"]


def measure_latency(
    path: str | PathLike[str],
    *,
    num_threads: Sequence[int] = (1,),
    runs: int = 200,
    warmup: int = 20,
    min_seconds: float = 1.0,
) -> list[Probe]:
    """Measures a bundle or `.tflite`, in a fresh process for each number of threads.

    Args:
        path: The `.edge` or `.tflite` file.
        num_threads: Numbers of threads to try.
        runs: At least so many runs are counted.
        warmup: Runs before that.
        min_seconds: Counting goes on for so long.

    Raises:
        HybridgeError: What loading the model raises; `invoke-failed` when it cannot run on generated inputs.
    """
    Model(path)  # what is wrong with it is said here, not by a process that failed
    return [
        _probe(ProbeRequest(str(Path(path)), threads, runs, warmup, min_seconds)) for threads in num_threads
    ]


def machine_name() -> str:
    """Processor, architecture and system of this machine; no host name."""
    processor = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if (
                line.lower().startswith(("model name", "model\t"))
                and "name" in line.lower().partition(":")[0]
            ):
                processor = f"{line.partition(':')[2].strip()}, {platform.machine()}"
                break
    return f"{processor}, {platform.system()}"


def with_latency(bundle: Bundle, probes: Sequence[Probe]) -> Bundle:
    """The bundle with the measured latencies in its manifest, in place of earlier ones of the same machine."""
    machine = machine_name()
    measured = tuple(
        Latency(machine, p.runtime, p.num_threads, p.model.median_ms, p.model.p95_ms, p.model.runs)
        for p in probes
    )
    kept = tuple(latency for latency in bundle.manifest.metrics.latency if latency.machine != machine)
    metrics = msgspec.structs.replace(bundle.manifest.metrics, latency=kept + measured)
    return Bundle.create(msgspec.structs.replace(bundle.manifest, metrics=metrics), bundle.files)


def _probe(request: ProbeRequest) -> Probe:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.latency_probe"],
        input=msgspec.json.encode(request),
        capture_output=True,
        check=False,
    )
    if run.returncode != 0:
        last = run.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise HybridgeError(
            ErrorCode.INVOKE_FAILED,
            f"measuring '{Path(request.path).name}'",
            received=last[0] if last else f"exit code {run.returncode}",
            expected="a model that runs on generated inputs",
        )
    return msgspec.json.decode(run.stdout, type=Probe)
