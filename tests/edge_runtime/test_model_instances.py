from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError, Model
from edge_runtime.tensor_spec import Array


def test_many_threads_get_their_own_answers(models: Path) -> None:
    model = Model(models / "classifier-int8.tflite")
    images = np.random.default_rng(5).random((200, 1, 8, 8, 1), dtype=np.float32)
    alone = [model.run(one)["logits"] for one in images]
    start = threading.Barrier(8)

    def work(offset: int) -> None:
        start.wait()
        for index in range(offset, len(images), 8):
            np.testing.assert_array_equal(model.run(images[index])["logits"], alone[index])

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, offset) for offset in range(8)]:
            future.result()


def _interpreters(model: Model) -> list[Any]:
    return [instance.interpreter for instance in model._idle]


@pytest.mark.parametrize(("name", "instances"), [("classifier", 1), ("classifier-int8", 3)])
def test_threads_that_share_instances_never_get_another_ones_answer(
    models: Path, name: str, instances: int
) -> None:
    model = Model(models / f"{name}.tflite", instances=instances)
    images = np.random.default_rng(5).random((64, 1, 8, 8, 1), dtype=np.float32)
    alone = [model.run(one)["logits"] for one in images]
    start = threading.Barrier(8)

    def work(seed: int) -> None:
        start.wait()
        for index in np.random.default_rng(seed).integers(0, len(images), 2_000):
            np.testing.assert_array_equal(model.run(images[index])["logits"], alone[index])

    _in_threads(work, 8)
    assert len(_interpreters(model)) <= instances


def _in_threads(work: Callable[[int], None], count: int, *, timeout_s: float = 60.0) -> None:
    """Runs `work(0)` to `work(count - 1)` at once; what any raises, or that one hangs, fails the test."""
    # So short a turn makes threads meet between any two bytecodes.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    pool = ThreadPoolExecutor(count)
    try:
        futures = [pool.submit(work, number) for number in range(count)]
        for future in futures:
            future.result(timeout=timeout_s)
    finally:
        sys.setswitchinterval(interval)
        pool.shutdown(wait=False, cancel_futures=True)


def test_instances_are_in_use_at_the_same_time(models: Path, image: Array) -> None:
    model = Model(models / "classifier.tflite", instances=2)
    with model.borrow(), ThreadPoolExecutor(1) as pool:
        # The other instance answers while one is lent.
        assert pool.submit(model.run, image).result(timeout=10)["logits"].shape == (1, 10)
        with model.borrow():
            waiting = pool.submit(model.run, image)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.05)
        assert waiting.result(timeout=10)["logits"].shape == (1, 10)


def test_invocations_of_two_instances_run_at_once(models: Path, image: Array) -> None:
    model = Model(models / "classifier.tflite", instances=2)
    model.warm_up()
    both_within = threading.Barrier(2)
    for interpreter in _interpreters(model):
        invoke = interpreter.invoke
        interpreter.invoke = lambda invoke=invoke: (both_within.wait(timeout=10), invoke())
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(model.run, [image] * 6))) == 6
    assert len(model.run_many([{"image": image}] * 4)) == 4


def test_each_instance_keeps_what_it_allocated_for_its_sizes(models: Path) -> None:
    model = Model(models / "any-size.tflite", instances=2)
    photos = [np.zeros((1, size, size, 3), np.float32) for size in (8, 16)]
    for photo in photos:
        model.run(photo)
    for interpreter in _interpreters(model):
        interpreter.allocate_tensors = None  # a call would raise
    for photo in photos * 3:
        assert model.run(photo)["map"].shape[1] == photo.shape[1] - 4
    with pytest.raises(TypeError):
        model.run(np.zeros((1, 9, 9, 3), np.float32))


def test_sizes_from_many_threads_get_their_own_answers(models: Path) -> None:
    model = Model(models / "any-batch.tflite", instances=2)
    weights = np.arange(6, dtype=np.float32).reshape(3, 2)

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for rows in rng.integers(1, 6, 500):
            x = rng.random((rows, 3), dtype=np.float32)
            np.testing.assert_allclose(model.run(x)["y"], x @ weights, rtol=1e-5)

    _in_threads(work, 6)


def test_closing_waits_for_calls_that_run_and_refuses_later_ones(models: Path, image: Array) -> None:
    model = Model(models / "classifier.tflite", instances=2)
    model.warm_up()
    freed = [weakref.ref(instance) for instance in model._idle]
    with ThreadPoolExecutor(2) as pool:
        with model.borrow():
            closing = pool.submit(model.close)
            with pytest.raises(TimeoutError):
                closing.result(timeout=0.05)
            with pytest.raises(HybridgeError) as caught:
                model.run(image)
            assert caught.value.code is ErrorCode.MODEL_CLOSED
        closing.result(timeout=10)
    assert [reference() for reference in freed] == [None, None]
    for call in (
        lambda: model.run(image),
        lambda: model.run_many([{"image": image}] * 2),
        model.warm_up,
        model.reset,
        model.placements,
        lambda: model.borrow().__enter__(),
    ):
        with pytest.raises(HybridgeError) as caught:
            call()
        assert caught.value.code is ErrorCode.MODEL_CLOSED
    model.close()


def test_closing_among_calls_ends_every_one_of_them(models: Path, image: Array) -> None:
    for _ in range(20):
        model = Model(models / "classifier.tflite", instances=2)
        expected = model.run(image)["logits"]

        def call(model: Model = model, expected: Array = expected) -> None:
            while True:
                np.testing.assert_array_equal(model.run(image)["logits"], expected)

        def work(number: int, model: Model = model, call: Callable[[], None] = call) -> None:
            if number == 0:
                model.close()
                return
            with pytest.raises(HybridgeError, match="after it was closed"):
                call()

        _in_threads(work, 5, timeout_s=20)
        assert not model._idle


def test_unloading_among_calls_changes_no_answer(models: Path, image: Array) -> None:
    model = Model(models / "classifier.tflite", instances=2)
    expected = model.run(image)["logits"]
    assert model.unload()
    assert not model._idle
    with model.borrow():
        assert not model.unload()
    done = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            try:
                for _ in range(300):
                    model.unload()
                    time.sleep(0)
            finally:
                done.set()
        while not done.is_set():
            np.testing.assert_array_equal(model.run(image)["logits"], expected)

    _in_threads(work, 4)
    assert model.unload()
    np.testing.assert_array_equal(model.run(image)["logits"], expected)


def test_warming_up_makes_every_instance(models: Path) -> None:
    model = Model(models / "any-size.tflite", instances=3)
    outputs = model.warm_up(sizes={"dim1": 9, "dim2": 8})
    assert outputs["map"].shape == (1, 5, 4, 2)
    assert len(_interpreters(model)) == 3
    photo = np.ones((1, 6, 7, 3), np.float32)
    np.testing.assert_array_equal(model.warm_up({"photo": photo})["map"], model.run(photo)["map"])
    with pytest.raises(HybridgeError) as caught:
        model.warm_up()  # one by one is too small for its kernel
    assert caught.value.code is ErrorCode.INVOKE_FAILED
    with pytest.raises(HybridgeError) as caught:
        model.warm_up({"photo": photo.astype(np.float64)})
    assert caught.value.code is ErrorCode.INPUT_DTYPE
    assert model.run(photo)["map"].shape == (1, 2, 3, 2)


def test_two_that_warm_the_same_model_up_do_not_wait_for_each_other(models: Path) -> None:
    for _ in range(10):
        model = Model(models / "classifier.tflite", instances=4)

        def work(number: int, model: Model = model) -> None:
            assert model.warm_up()["logits"].shape == (1, 10), number

        _in_threads(work, 3, timeout_s=20)
