"""Latency of a model on this machine: load, first run, steady runs, and memory.

Machines drift, by more than what many models differ: those that are to be compared are measured in turn, round after
round, and the medians over the rounds are compared (`measure_in_turn`, `rank_latency`).
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

import msgspec
import numpy as np

from edge_runtime.bundle import Bundle
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.latency_probe import Probe, ProbeRequest
from edge_runtime.manifest import Latency
from edge_runtime.model import Model

__all__ = ["machine_name", "measure_in_turn", "measure_latency", "rank_latency", "with_latency"]


def measure_latency(
    model: bytes | str | PathLike[str],
    *,
    num_threads: Sequence[int] = (1,),
    runs: int = 200,
    warmup: int = 20,
    min_seconds: float = 1.0,
) -> list[Probe]:
    """Measures a bundle or `.tflite`, in a fresh process for each number of threads.

    Args:
        model: The `.edge` or `.tflite` file, or the bytes of a `.tflite`.
        num_threads: Numbers of threads to try.
        runs: At least so many runs are counted.
        warmup: Runs before that.
        min_seconds: Counting goes on for so long.

    Raises:
        HybridgeError: What loading the model raises; `invoke-failed` when it cannot run on generated inputs.
    """
    Model(model)  # what is wrong with it is said here, not by a process that failed
    if isinstance(model, bytes):
        with tempfile.TemporaryDirectory(prefix="hybridge-") as folder:
            path = Path(folder) / "model.tflite"
            path.write_bytes(model)
            return _probes(path, num_threads, runs, warmup, min_seconds)
    return _probes(Path(model), num_threads, runs, warmup, min_seconds)


def measure_in_turn(
    paths: Iterable[str | PathLike[str]],
    *,
    rounds: int = 5,
    runs: int = 5,
    warmup: int = 2,
    min_seconds: float = 0.1,
) -> dict[Path, list[Probe]]:
    """Measures several models on one thread so that their latencies can be compared.

    Every round measures each model once, in a fresh process; what slows the machine down for a while slows them all.
    A round takes about half a second a model.

    Args:
        paths: `.edge` or `.tflite` files.
        rounds: Measurements of each.
        runs: At least so many runs are counted in each.
        warmup: Runs before that.
        min_seconds: Counting goes on for so long.

    Returns:
        For each path the probes of all rounds.

    Raises:
        HybridgeError: As `measure_latency`.
    """
    probes: dict[Path, list[Probe]] = {Path(path): [] for path in paths}
    for path in probes:
        Model(path)
    for turn in range(rounds):
        # Who goes first differs from round to round: a processor is fastest before it is hot.
        order = list(probes)
        for path in order[turn % len(order) :] + order[: turn % len(order)] if order else ():
            probes[path] += _probes(path, (1,), runs, warmup, min_seconds)
    return probes


def rank_latency(paths: Iterable[str | PathLike[str]], *, rounds: int = 5) -> dict[Path, float]:
    """Median latency of each model in milliseconds on one thread, the fastest first; see `measure_in_turn`.

    Example:
        >>> rank_latency(["int8.edge", "float32.edge"])
        {PosixPath('int8.edge'): 0.11, PosixPath('float32.edge'): 0.19}
    """
    medians = {
        path: _summary(probes).median_ms for path, probes in measure_in_turn(paths, rounds=rounds).items()
    }
    return dict(sorted(medians.items(), key=lambda item: item[1]))


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
    """The bundle with the measured latencies in its manifest, in place of earlier ones of the same machine.

    Of several probes with the same number of threads the medians are kept.
    """
    machine = machine_name()
    measured = tuple(
        _summary([probe for probe in probes if probe.num_threads == threads])
        for threads in dict.fromkeys(probe.num_threads for probe in probes)
    )
    kept = tuple(latency for latency in bundle.manifest.metrics.latency if latency.machine != machine)
    metrics = msgspec.structs.replace(bundle.manifest.metrics, latency=kept + measured)
    return Bundle.create(msgspec.structs.replace(bundle.manifest, metrics=metrics), bundle.files)


def _summary(probes: Sequence[Probe]) -> Latency:
    return Latency(
        machine=machine_name(),
        runtime=probes[0].runtime,
        num_threads=probes[0].num_threads,
        median_ms=float(np.median([probe.model.median_ms for probe in probes])),
        p95_ms=float(np.median([probe.model.p95_ms for probe in probes])),
        runs=sum(probe.model.runs for probe in probes),
    )


def _probes(
    path: Path, num_threads: Sequence[int], runs: int, warmup: int, min_seconds: float
) -> list[Probe]:
    return [_probe(ProbeRequest(str(path), threads, runs, warmup, min_seconds)) for threads in num_threads]


def _probe(request: ProbeRequest) -> Probe:
    run = subprocess.run(
        [sys.executable, "-m", "edge_runtime.latency_probe"],
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
