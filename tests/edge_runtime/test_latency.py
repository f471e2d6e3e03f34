from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime import Bundle, ErrorCode, HybridgeError
from edge_runtime.latency import machine_name, measure_in_turn, measure_latency, rank_latency, with_latency


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


def test_a_model_that_cannot_run_on_generated_inputs_says_so(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(b"rubbish!TFL3")
    with pytest.raises(HybridgeError) as caught:
        measure_latency(tmp_path / "m.tflite")
    assert caught.value.code is ErrorCode.MODEL_INVALID


def test_bytes_are_measured_as_their_file_is(models: Path) -> None:
    content = (models / "classifier.tflite").read_bytes()
    (probe,) = measure_latency(content, runs=20, warmup=2, min_seconds=0)
    assert probe.model.runs == 20
    with pytest.raises(HybridgeError) as caught:
        measure_latency(content[:100])
    assert caught.value.code is ErrorCode.MODEL_INVALID


def test_models_that_are_compared_take_turns_in_every_round(models: Path) -> None:
    paths = [models / "classifier.tflite", models / "arithmetic.tflite"]
    probes = measure_in_turn(paths, rounds=3, runs=5, warmup=1, min_seconds=0)
    assert {path: len(each) for path, each in probes.items()} == dict.fromkeys(paths, 3)
    ranked = rank_latency(paths, rounds=2)
    assert set(ranked) == set(paths)
    assert list(ranked.values()) == sorted(ranked.values())
    assert min(ranked.values()) > 0
    assert rank_latency([]) == {}


def test_a_bundle_keeps_the_medians_of_several_rounds(
    make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = make_bundle()
    path = bundle.save(tmp_path)
    probes = measure_in_turn([path], rounds=3, runs=5, warmup=1, min_seconds=0)[path]
    (latency,) = with_latency(bundle, probes).manifest.metrics.latency
    assert latency.machine == machine_name()
    assert latency.median_ms == sorted(probe.model.median_ms for probe in probes)[1]
    assert latency.runs == 15
