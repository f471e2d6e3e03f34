"""Operators that only these tests have, and stages of them."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edge_runtime import Stage
from edge_runtime.operators import operator, operator_names, registry
from edge_runtime.tensor_spec import Array


@pytest.fixture(autouse=True)
def own_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators to be seen by one test only: `wait`, `refuse-negative`, and those that it defines."""
    operator_names()  # built-in ones are registered once and for all
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))

    @operator("wait")
    def wait(array: Array, *, seconds: float = 0.02) -> Array:
        time.sleep(seconds)
        return array

    @operator("refuse-negative", takes={"array": "float32[...]"})
    def refuse_negative(array: Array) -> Array:
        if array.size and array.min() < 0:
            raise ValueError("less than nothing")
        return array


@pytest.fixture
def calling() -> Callable[..., Stage]:
    """Makes a stage of a function of one array: `calling(name, function, input, output, **options)`."""

    def make(name: str, function: Callable[[Any], Any], source: str, result: str, **options: Any) -> Stage:
        @operator(f"own-{name}", gives={"array": ""})
        def call(array: Any) -> Any:
            return function(array)

        return Stage.from_operator(
            name, f"own-{name}", inputs={"array": source}, outputs={"array": result}, **options
        )

    return make


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Fails a test that leaves one of the runtime's threads running, after a moment to end."""
    before = set(threading.enumerate())
    yield
    give_up = time.monotonic() + 2.0
    while (left := _ours(before)) and time.monotonic() < give_up:
        gc.collect()
        time.sleep(0.01)
    assert not left, f"threads left: {left}"


def _ours(before: set[threading.Thread]) -> list[str]:
    # A pool that nobody holds any more ends its threads as it is collected, which a closed chain's is at once.
    return [
        thread.name
        for thread in threading.enumerate()
        if thread not in before and thread.name.startswith("hybridge-") and thread.is_alive()
    ]


def ramp(*shape: int) -> Array:
    """Float32 values that differ, the same every time."""
    return (np.arange(np.prod(shape), dtype=np.float32) / 7).reshape(shape)


def pass_on(name: str, ran: list[str] | None = None, *, seconds: float = 0.0) -> Callable[[Array], Array]:
    """A function that gives what it takes, after some seconds and with a note of its name."""

    def run(array: Array) -> Array:
        time.sleep(seconds)
        if ran is not None:
            ran.append(name)
        return array

    return run
