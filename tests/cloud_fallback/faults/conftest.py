"""Fixtures of the tests of faults: an endpoint to attack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_fallback import EndpointProcess
from tests.cloud_fallback.faults.attacked import Attacked

# Messages of up to 8 MiB, so that attacks with the largest ones are quick.
LIMIT = 8 * 2**20


@pytest.fixture(scope="session")
def _attacked(onnx_models: Path) -> Iterator[Attacked]:
    if not Path("/proc/self/status").exists():
        pytest.skip("asks /proc how much memory a process has")
    attacked = Attacked(EndpointProcess([onnx_models], arguments=["--max-message-mb", str(LIMIT // 2**20)]))
    yield attacked
    attacked.close()


@pytest.fixture
def attacked(_attacked: Attacked) -> Iterator[Attacked]:
    """One endpoint for all tests of a run, so that each also finds it as the others have left it."""
    _attacked.answers()
    yield _attacked
    _attacked.hang_up()
    # Whatever was done to it, it answers, and nothing went wrong that it did not foresee.
    _attacked.answers(30.0)
    assert "Traceback" not in _attacked.log()
