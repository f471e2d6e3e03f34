"""What the package offers, and what importing it costs a device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cloud_fallback


def test_everything_that_is_announced_is_there() -> None:
    for name in cloud_fallback.__all__:
        assert getattr(cloud_fallback, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        cloud_fallback.nothing  # noqa: B018


def test_a_device_that_asks_does_not_load_what_serves() -> None:
    script = "import sys; from cloud_fallback import CloudFallback; print(*sorted(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(run.stdout.split())
    assert "cloud_fallback.client.client" in loaded
    forbidden = {
        "cloud_fallback.endpoint.endpoint",
        "cloud_fallback.endpoint.served",
        "onnxruntime",
        "tensorflow",
        "flwr",
        "onnx",
    }
    assert not loaded & forbidden


@pytest.mark.parametrize("module", ["grpc_health.v1", "grpc_reflection.v1alpha", "onnxruntime"])
def test_a_missing_library_is_named_with_the_line_that_installs_it(onnx_models: Path, module: str) -> None:
    script = (
        "import sys\nsys.modules[sys.argv.pop(1)] = None\nfrom edge_runtime.command import main\nmain()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, module, "serve", str(onnx_models / "linear.onnx"), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 9, run.stderr
    assert "pip install 'hybridge[serve]'" in run.stderr
    assert module.partition(".")[0] in run.stderr
