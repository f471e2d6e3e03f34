from __future__ import annotations

import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError, MemoryBudget, Model
from edge_runtime.tensor_spec import Array

pytestmark = pytest.mark.usefixtures("accelerated")

MB = 1_000_000
# Each of the heavy models takes 4.2 MB of packed weights, so that there is room for two of them.
ROOM_FOR_TWO = 11 * MB


@pytest.fixture
def x() -> Array:
    return np.random.default_rng(0).random((1, 1024), dtype=np.float32)


def _expected(models: Path, x: Array) -> list[Array]:
    return [Model(models / f"heavy-{number}.tflite").run(x)["y"] for number in (1, 2, 3)]


def _loaded(model: Model) -> bool:
    return model.memory_bytes > 0


def test_the_one_called_longest_ago_makes_room(models: Path, x: Array) -> None:
    expected = _expected(models, x)
    budget = MemoryBudget(ROOM_FOR_TWO)
    first, second, third = (Model(models / f"heavy-{n}.tflite", budget=budget) for n in (1, 2, 3))
    assert [_loaded(each) for each in (first, second, third)] == [False, True, True]
    assert 8 * MB < budget.used_bytes <= ROOM_FOR_TWO
    second.run(x)
    np.testing.assert_array_equal(first.run(x)["y"], expected[0])
    assert [_loaded(each) for each in (first, second, third)] == [True, True, False]
    np.testing.assert_array_equal(third.run(x)["y"], expected[2])
    assert [_loaded(each) for each in (first, second, third)] == [True, False, True]
    np.testing.assert_array_equal(second.run(x)["y"], expected[1])
    assert [_loaded(each) for each in (first, second, third)] == [False, True, True]
    assert budget.used_bytes <= ROOM_FOR_TWO


def test_what_is_unloaded_is_freed(models: Path, x: Array) -> None:
    budget = MemoryBudget(ROOM_FOR_TWO)
    first = Model(models / "heavy-1.tflite", budget=budget)
    freed = weakref.ref(first._idle[0])
    others = [Model(models / f"heavy-{number}.tflite", budget=budget) for number in (2, 3)]
    assert freed() is None
    assert all(_loaded(other) for other in others)


@pytest.mark.parametrize("threads", [3, 6])
def test_threads_that_need_more_than_fits_all_get_their_answers(models: Path, x: Array, threads: int) -> None:
    expected = _expected(models, x)
    budget = MemoryBudget(ROOM_FOR_TWO)
    loaded = [Model(models / f"heavy-{number}.tflite", budget=budget) for number in (1, 2, 3)]

    def work(seed: int) -> None:
        for index in np.random.default_rng(seed).integers(0, 3, 40):
            np.testing.assert_array_equal(loaded[index].run(x)["y"], expected[index])
            assert budget.used_bytes <= ROOM_FOR_TWO

    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(work, seed) for seed in range(threads)]:
            future.result(timeout=60)


def test_a_model_that_can_never_fit_says_so_with_sizes_and_the_others_go_on(models: Path, x: Array) -> None:
    expected = _expected(models, x)
    budget = MemoryBudget(6 * MB)
    small = Model(models / "heavy-1.tflite", budget=budget)
    with pytest.raises(HybridgeError, match=r"need of \d+\.\d MB.*at most 6.0 MB") as caught:
        Model(np.zeros(0).tobytes() + _padded(models, 8 * MB), budget=budget)
    assert caught.value.code is ErrorCode.MEMORY_BUDGET
    np.testing.assert_array_equal(small.run(x)["y"], expected[0])
    tiny = MemoryBudget(1 * MB)
    with pytest.raises(HybridgeError) as caught:
        Model(models / "heavy-1.tflite", budget=tiny)
    assert caught.value.code is ErrorCode.MEMORY_BUDGET
    assert tiny.used_bytes == 0
    assert Model(models / "classifier.tflite", budget=tiny).run(np.zeros((1, 8, 8, 1), np.float32))


def _padded(models: Path, size: int) -> bytes:
    """A model whose file is so large, whatever it takes."""
    content = (models / "heavy-1.tflite").read_bytes()
    return content + bytes(size - len(content))


def test_a_model_waits_for_those_that_run(models: Path, x: Array) -> None:
    expected = _expected(models, x)
    budget = MemoryBudget(6 * MB)
    first = Model(models / "heavy-1.tflite", budget=budget)
    second = Model(models / "heavy-2.tflite", budget=budget)
    first.run(x)
    with ThreadPoolExecutor(1) as pool:
        with first.borrow():
            waiting = pool.submit(second.run, x)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.1)
        np.testing.assert_array_equal(waiting.result(timeout=10)["y"], expected[1])


def test_whoever_waits_for_a_model_that_he_holds_himself_gets_an_error(
    models: Path, x: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.memory_budget._PATIENCE_S", 0.2)
    budget = MemoryBudget(6 * MB)
    first = Model(models / "heavy-1.tflite", budget=budget)
    second = Model(models / "heavy-2.tflite", budget=budget)
    with first.borrow():
        start = time.monotonic()
        with pytest.raises(HybridgeError) as caught:
            second.run(x)
        assert caught.value.code is ErrorCode.MEMORY_BUDGET
        assert time.monotonic() - start < 2
    assert second.run(x)["y"].shape == (1, 1024)


def test_a_second_instance_that_does_not_fit_is_done_without(models: Path, x: Array) -> None:
    model = Model(models / "heavy-1.tflite", instances=3, budget=MemoryBudget(6 * MB))
    expected = model.run(x)["y"]
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(model.run, x) for _ in range(40)]
        warmed = pool.submit(model.warm_up)
        for future in futures:
            np.testing.assert_array_equal(future.result(timeout=20)["y"], expected)
        warmed.result(timeout=20)
    assert model.instances == 1


def test_a_model_that_carries_a_state_is_not_unloaded_for_another(models: Path, x: Array) -> None:
    budget = MemoryBudget(5 * MB)
    counter = Model(models / "counter.tflite", budget=budget)
    ones = np.ones((1, 2), np.float32)
    assert counter.run(ones)["total"][0, 0] == 11
    heavy = Model(models / "heavy-1.tflite", budget=budget)
    other = Model(models / "heavy-2.tflite", budget=budget)
    heavy.run(x)
    other.run(x)
    assert counter.run(ones)["total"][0, 0] == 12


def test_models_that_are_gone_leave_their_room(models: Path, x: Array) -> None:
    budget = MemoryBudget(ROOM_FOR_TWO)
    model = Model(models / "heavy-1.tflite", budget=budget)
    model.close()
    assert budget.used_bytes == 0
    model = Model(models / "heavy-1.tflite", budget=budget)
    del model
    assert budget.used_bytes == 0


def test_models_may_join_while_others_are_loaded(models: Path, x: Array) -> None:
    budget = MemoryBudget(ROOM_FOR_TWO)
    content = (models / "classifier.tflite").read_bytes()
    stop = threading.Event()

    def join() -> None:
        while not stop.is_set():
            Model(content, budget=budget)

    def look() -> None:
        while not stop.is_set():
            assert budget.used_bytes >= 0

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(join), pool.submit(join), pool.submit(look)]
        try:
            for _ in range(3):
                for number in (1, 2, 3):
                    Model(models / f"heavy-{number}.tflite", budget=budget).run(x)
        finally:
            stop.set()
        for future in futures:
            future.result(timeout=20)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_budget_of_nothing_is_refused(limit: int) -> None:
    with pytest.raises(HybridgeError) as caught:
        MemoryBudget(limit)
    assert caught.value.code is ErrorCode.USAGE
