"""The suite of `Model` with tflite-runtime and NumPy 1, which a 32-bit Raspberry Pi has for LiteRT and NumPy 2."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = ("tflite-runtime==2.14.0", "numpy==1.26.4", "msgspec", "click", "pytest", "pytest-timeout")
SUITE = ("test_bundle.py", "test_latency.py", "test_model.py", "test_model_instances.py", "test_quantizer.py")
# A damaged model may take all memory that there is instead of an error: then a test fails, and not the machine.
LIMITED = ("sh", "-c", 'ulimit -v 4194304 && exec "$0" "$@"')


@pytest.fixture(scope="module")
def python() -> Path:
    """Python of an environment with tflite-runtime, kept in `build/` for the next time."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("tflite-runtime's newest wheels are for Python 3.11")
    folder = ROOT / "build" / "tflite-runtime"
    stamp, wanted = folder / "installed", "\n".join((sys.prefix, *PACKAGES))
    if not stamp.is_file() or stamp.read_text() != wanted:
        subprocess.run(
            [sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True, timeout=60
        )
        pip = [sys.executable, "-m", "pip", "--python", str(folder), "--retries", "1", "--timeout", "20"]
        install = subprocess.run(
            [*pip, "install", "--quiet", "--no-compile", *PACKAGES],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        if install.returncode:
            reason = re.findall(r"^ERROR: .*", install.stderr, re.MULTILINE) or ["pip failed"]
            pytest.skip(f"tflite-runtime cannot be had from the package index: {reason[-1]}")
        stamp.write_text(wanted)
    return folder / "bin" / "python"


def _run(python: Path, models: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LIMITED, str(python), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HYBRIDGE_TEST_MODELS": str(models)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_models_run_alike_with_tflite_runtime_and_numpy_1(python: Path, models: Path) -> None:
    version = _run(
        python,
        models,
        "-c",
        "import numpy; from edge_runtime.interpreter import runtime_version\n"
        "print(runtime_version(), numpy.__version__)",
    )
    assert version.stdout.split() == ["tflite-runtime", "2.14.0", "1.26.4"], version.stderr
    suite = _run(
        python,
        models,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not heavy and not tensorflow"),
        *(f"tests/edge_runtime/{name}" for name in SUITE),
    )
    assert suite.returncode == 0, suite.stdout[-4000:] + suite.stderr[-2000:]
    passed = re.search(r"(\d+) passed", suite.stdout)
    assert passed is not None
    assert int(passed[1]) > 50, suite.stdout
