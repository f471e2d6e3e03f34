"""Stages that do not wait for each other run at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from edge_runtime import Chain, ErrorCode, HybridgeError, Stage
from edge_runtime.operators import operator
from edge_runtime.tensor_spec import Array

Calling = Callable[..., Stage]


def _wait(name: str, source: str, result: str, seconds: float = 0.02) -> Stage:
    return Stage.from_operator(
        name, "wait", inputs={"array": source}, outputs={"array": result}, params={"seconds": seconds}
    )


def _fork(*branches: Stage) -> list[Stage]:
    @operator("sum", gives={"total": ""})
    def total(one: Array, two: Array) -> Array:
        return one + two

    return [*branches, Stage.from_operator("sum", "sum", inputs={"one": "y", "two": "z"})]


def test_two_branches_take_as_long_as_one() -> None:
    with Chain(_fork(_wait("a", "x", "y"), _wait("b", "x", "z"))) as chain:
        chain.run(np.ones(1))  # how long stages take is learnt as they run
        taken = []
        for value in range(6):
            start = time.perf_counter()
            prediction = chain.run(np.full(1, value))
            taken.append(time.perf_counter() - start)
            assert prediction.outputs["total"] == 2 * value
            assert prediction.total_ms > 39
        # The best of several: the machine has other things to do.
        assert 0.02 <= min(taken) < 0.034


def test_quick_stages_stay_in_the_caller_s_thread(calling: Calling) -> None:
    seen: list[int] = []

    def note(array: Array) -> Array:
        seen.append(threading.get_ident())
        return array

    with Chain(_fork(calling("a", note, "x", "y"), calling("b", note, "x", "z"))) as chain:
        for _ in range(50):
            chain.run(np.ones(1))
    # A machine that is busy may make one look slow now and then.
    assert seen.count(threading.get_ident()) > 80


@pytest.mark.parametrize("bad", ["a", "b"])
def test_an_error_in_one_branch_is_the_run_s_error_once_the_other_is_done(bad: str, calling: Calling) -> None:
    done: list[str] = []

    def branch(name: str) -> Callable[[Any], Any]:
        def run(array: Array) -> Array:
            time.sleep(0.005)
            if name == bad and array[0] < 0:
                raise ValueError(f"no {name}")
            done.append(name)
            return array

        return run

    stages = _fork(calling("a", branch("a"), "x", "y"), calling("b", branch("b"), "x", "z"))
    with Chain(stages) as chain:
        for _ in range(3):
            chain.run(np.ones(1))
            done.clear()
            with pytest.raises(HybridgeError, match=f"no {bad}") as caught:
                chain.run(-np.ones(1))
            assert caught.value.code is ErrorCode.OPERATOR_FAILED
            # Nothing of a run that failed goes on behind the caller's back.
            count = len(done)
            time.sleep(0.01)
            assert len(done) == count
        assert chain.run(np.ones(1)).outputs["total"] == 2
        figures = chain.metrics.figures()
        assert (figures.runs, figures.errors) == (4, {ErrorCode.OPERATOR_FAILED: 3})


def test_errors_in_both_branches_are_one_error(calling: Calling) -> None:
    def fail(array: Array) -> Array:
        time.sleep(0.002)
        raise ValueError("neither")

    with Chain(_fork(calling("a", fail, "x", "y"), calling("b", fail, "x", "z"))) as chain:
        for _ in range(5):
            with pytest.raises(HybridgeError, match="neither"):
                chain.run(np.ones(1))
        assert sum(stage.errors for stage in chain.metrics.figures().stages) >= 5


def test_many_callers_and_many_branches_never_wait_for_each_other() -> None:
    def wide(width: int) -> Chain:
        return Chain(
            [
                *(_wait(f"a{number}", "x", f"y{number}", 0.001) for number in range(width)),
                *(_wait(f"b{number}", f"y{number}", f"z{number}", 0.001) for number in range(width)),
            ]
        )

    inner = wide(3)
    stages = [Stage.from_chain("left", inner), _wait("side", "x", "w", 0.001)]
    with Chain(stages) as chain, ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(chain.run, np.full(1, value)) for value in range(60)]
        for value, future in enumerate(futures):
            outputs = future.result(timeout=30).outputs
            assert {name: float(array[0]) for name, array in outputs.items()} == dict.fromkeys(
                ("z0", "z1", "z2", "w"), value
            )


def test_closing_a_chain_ends_its_threads_and_it_may_be_closed_twice() -> None:
    chain = Chain(_fork(_wait("a", "x", "y", 0.002), _wait("b", "x", "z", 0.002)))
    for _ in range(3):
        chain.run(np.ones(1))
    assert any(thread.name.startswith("hybridge-branch") for thread in threading.enumerate())
    chain.close()
    assert not any(thread.name.startswith("hybridge-branch") for thread in threading.enumerate())
    chain.close()
