from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.footprint_probe import resident_bytes

if not Path("/proc/thread-self/smaps").exists():
    pytest.skip("resident memory is read from /proc, which this system has not", allow_module_level=True)


def test_resident_memory_is_what_the_kernel_says_and_grows_with_what_is_touched() -> None:
    before = resident_bytes()
    status = Path("/proc/self/status").read_text()
    kernel = int(status.partition("VmRSS:")[2].split()[0]) * 1024
    # The kernel's own counters are up to a few pages a thread behind.
    assert abs(before - kernel) < 0.05 * kernel
    held = bytearray(64 << 20)
    held[:: 4 << 10] = bytes(1) * (len(held) // (4 << 10))  # a byte in every page
    assert 0.9 * len(held) < resident_bytes() - before < 1.1 * len(held)


def test_the_footprint_is_by_package_and_by_step(models: Path) -> None:
    model = models / "any-batch.tflite"
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.footprint", "--model", model, "--runs", "1", "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(run.stdout)
    packages = result["install"]["packages"]
    assert {"hybridge", "numpy", "msgspec", "click"} <= set(packages)
    assert not {"pytest", "tensorflow", "opencv-python-headless"} & set(packages)
    assert sum(size or 0 for size in packages.values()) == result["install"]["total_bytes"]
    steps = result["memory"]["steps"]
    assert steps["NumPy"] > 5e6
    assert steps["interpreter"] > 1e6
    assert sum(steps.values()) == result["memory"]["total_bytes"]
