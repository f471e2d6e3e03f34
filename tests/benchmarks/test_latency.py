from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.data import data_file
from benchmarks.latency import measure_latency
from benchmarks.timing import Timing, paired_ratio, time_runs
from edge_runtime import Bundle, ErrorCode, HybridgeError
from tests.command import hybridge


def test_a_model_is_measured_in_a_process_of_its_own(models: Path) -> None:
    one, two = measure_latency(
        models / "classifier-int8.tflite", num_threads=(1, 2), runs=50, warmup=5, min_seconds=0
    )
    assert (one.num_threads, two.num_threads) == (1, 2)
    for probe in (one, two):
        assert 0 < probe.model.min_ms <= probe.model.median_ms <= probe.model.p95_ms
        assert probe.model.runs == probe.prediction.runs == 50
        assert probe.load_ms > 0
        # Python with NumPy and the interpreter takes tens of megabytes; this process, with TensorFlow, hundreds.
        assert 20e6 < probe.peak_bytes < 200e6
        assert probe.memory_bytes < 20e6


def test_a_bundle_with_preprocessing_is_measured_with_and_without_it(
    make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    path = make_bundle(raw=True).save(tmp_path)
    (probe,) = measure_latency(path, runs=200, warmup=20, min_seconds=0)
    assert probe.prediction.median_ms > probe.model.median_ms


def test_figures_saved_in_a_bundle_are_those_shown(
    make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    path = make_bundle().save(tmp_path / "m.edge")
    before = path.read_bytes()
    measured = tmp_path / "measured.edge"
    flags = ("--runs", "30", "--min-seconds", "0", "--format", "json")
    shown = hybridge("bench", "latency", path, "--save", measured, *flags).json
    (latency,) = Bundle.open(measured).manifest.metrics.latency
    assert latency.median_ms == shown["probes"][0]["model"]["median_ms"]
    assert latency.machine == shown["machine"]
    assert path.read_bytes() == before
    again = hybridge("bench", "latency", measured, "--save", measured, "--overwrite", *flags)
    assert again.exit_code == 0
    assert len(Bundle.open(measured).manifest.metrics.latency) == 1
    assert latency.machine in hybridge("inspect", measured).stdout


def test_the_table_has_a_row_for_each_number_of_threads(models: Path) -> None:
    shown = hybridge(
        "bench", "latency", models / "classifier.tflite", "--num-threads", "1", "--num-threads", "2",
        "--runs", "10", "--min-seconds", "0",
    )  # fmt: skip
    assert shown.exit_code == 0
    assert [line.split()[0] for line in shown.stdout.splitlines()[-2:]] == ["1", "2"]


def test_a_model_that_cannot_run_on_generated_inputs_says_so(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(b"rubbish!TFL3")
    with pytest.raises(HybridgeError) as caught:
        measure_latency(tmp_path / "m.tflite")
    assert caught.value.code is ErrorCode.MODEL_INVALID


def test_timing_counts_what_it_is_asked_to() -> None:
    calls: list[int] = []
    timing = time_runs(lambda: calls.append(1), runs=7, warmup=3)
    assert (len(calls), timing.runs) == (10, 7)
    seconds = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    assert Timing.from_seconds(seconds).median_ms == 3000
    started = time.perf_counter()
    time_runs(lambda: time.sleep(0.001), runs=1, warmup=0, min_seconds=0.1)
    assert time.perf_counter() - started > 0.1


def test_a_ratio_of_paired_runs_finds_what_takes_twice_as_long() -> None:
    ratio, ours, theirs = paired_ratio(lambda: time.sleep(0.004), lambda: time.sleep(0.002), pairs=5, calls=5)
    assert 1.5 < ratio < 2.5
    assert ours.median_ms > theirs.median_ms


def test_benchmark_data_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HYBRIDGE_DATA", raising=False)
    with pytest.raises(HybridgeError, match="HYBRIDGE_DATA"):
        data_file("mlperf_tiny/kws_ref_model.tflite")
    monkeypatch.setenv("HYBRIDGE_DATA", str(tmp_path))
    with pytest.raises(HybridgeError, match=r"kws_ref_model\.tflite"):
        data_file("mlperf_tiny/kws_ref_model.tflite")
    (tmp_path / "here").touch()
    assert data_file("here") == tmp_path / "here"
