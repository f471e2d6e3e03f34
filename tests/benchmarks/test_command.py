from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.data import data_file
from edge_runtime import Bundle, HybridgeError
from tests.command import hybridge


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


def test_benchmark_data_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HYBRIDGE_DATA", raising=False)
    with pytest.raises(HybridgeError, match="HYBRIDGE_DATA"):
        data_file("mlperf_tiny/kws_ref_model.tflite")
    monkeypatch.setenv("HYBRIDGE_DATA", str(tmp_path))
    with pytest.raises(HybridgeError, match=r"kws_ref_model\.tflite"):
        data_file("mlperf_tiny/kws_ref_model.tflite")
    (tmp_path / "here").touch()
    assert data_file("here") == tmp_path / "here"
