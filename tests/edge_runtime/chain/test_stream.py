from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import Chain, ErrorCode, Frame, HybridgeError, Model, Stage, StreamResult
from edge_runtime.metrics import resident_bytes
from edge_runtime.tensor_spec import Array
from tests.edge_runtime.chain.conftest import pass_on

Calling = Callable[..., Stage]


def _numbers(count: int) -> Iterator[Array]:
    for number in range(count):
        yield np.full(1, number, np.float32)


def _values(results: list[StreamResult], name: str) -> list[float]:
    return [float(result.prediction.outputs[name].ravel()[0]) for result in results if result.prediction]


def _is_idle(chain: Chain) -> bool:
    figures = chain.metrics.figures()
    waiting = [stage.waiting for stage in figures.stages]
    return (figures.queue_depth, figures.in_flight, sum(waiting)) == (0, 0, 0) and min(waiting) == 0


def _streaming_threads() -> list[str]:
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith(("hybridge-stream", "hybridge-source"))
    ]


def _jitter(seed: int) -> Callable[[Array], Array]:
    rng = np.random.default_rng(seed)
    lock = threading.Lock()

    def sleep(array: Array) -> Array:
        with lock:
            seconds = rng.exponential(0.0005)
        time.sleep(seconds)
        return array

    return sleep


@pytest.fixture
def uneven(calling: Calling) -> Chain:
    """A chain that forks and joins, each of its stages of another and of a random time."""
    return Chain(
        [
            calling("a", _jitter(1), "x", "a"),
            calling("b", _jitter(2), "a", "b"),
            calling("c", _jitter(3), "a", "c"),
            Stage.from_operator("d", "concat", inputs={"first": "b", "second": "c"}, outputs={"array": "d"}),
        ]
    )


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_answers_come_in_the_frames_order_whatever_the_stages_take(uneven: Chain, workers: int) -> None:
    with uneven.stream(_numbers(200), workers=workers) as stream:
        results = list(stream)
    assert [result.index for result in results] == list(range(200))
    assert _values(results, "d") == list(range(200))
    assert _is_idle(uneven)
    assert uneven.metrics.figures().runs == 200


def test_stages_of_several_frames_run_at_once(calling: Calling) -> None:
    both = threading.Barrier(2)

    def meet(array: Array) -> Array:
        # Returns only when a frame is in this stage while another is in the other one.
        both.wait(timeout=10)
        return array

    chain = Chain([calling("a", meet, "x", "y"), calling("b", meet, "y", "z")])
    with chain.stream(_numbers(20), workers=2) as stream:
        results = list(itertools.islice(stream, 19))
        both.abort()
    assert _values(results, "z") == list(range(19))


@pytest.mark.parametrize(("name", "states"), [("running-sum", {"state": "next"}), ("counter", None)])
def test_a_model_with_a_state_gets_every_frame_in_order(
    models: Path, calling: Calling, name: str, states: dict[str, str] | None
) -> None:
    model = Model(models / f"{name}.tflite", states=states)
    output = model.outputs[0].name
    chain = Chain([calling("before", _jitter(1), "raw", "x"), Stage.from_model("sum", model)])
    frames = [np.full((1, 2), value, np.float32) for value in np.random.default_rng(0).integers(1, 9, 150)]
    sums = np.cumsum([frame[0, 0] for frame in frames])
    expected = sums + 10 if states is None else sums + [frame[0, 0] for frame in frames]
    for _ in range(2):  # each stream begins anew
        with chain.stream(frames, workers=4) as stream:
            assert _values(list(stream), output) == expected.tolist()


def test_a_frame_that_fails_is_passed_over_by_a_model_with_a_state(models: Path) -> None:
    model = Model(models / "running-sum.tflite", states={"state": "next"})
    check = Stage.from_operator("check", "refuse-negative", inputs={"array": "raw"}, outputs={"array": "x"})
    chain = Chain([check, Stage.from_model("sum", model)])
    frames = [np.full((1, 2), -1 if index % 3 == 1 else 1, np.float32) for index in range(60)]
    with chain.stream(frames, workers=4) as stream:
        results = list(stream)
    assert [result.error is not None for result in results] == [index % 3 == 1 for index in range(60)]
    assert _values(results, "y") == list(range(2, 42))


def test_a_model_runs_as_many_frames_as_it_has_instances_and_no_more(models: Path, image: Array) -> None:
    model = Model(models / "classifier.tflite", instances=2)
    model.warm_up()
    inside, most, lock = [0], [0], threading.Lock()
    for instance in model._idle:
        invoke = instance.interpreter.invoke

        def counted(invoke: Any = invoke) -> None:
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.002)
            invoke()
            with lock:
                inside[0] -= 1

        instance.interpreter.invoke = counted  # type: ignore[method-assign]
    chain = Chain([Stage.from_model("read", model)])
    with chain.stream([image] * 40, workers=4) as stream:
        assert len(list(stream)) == 40
    assert most == [2]


def test_errors_are_answers_and_the_stream_goes_on(calling: Calling) -> None:
    def check(array: Any) -> Any:
        if array[0] == 3:
            raise ValueError("three is not wanted")
        return array

    chain = Chain([calling("check", check, "x", "y")])
    lost = HybridgeError(ErrorCode.SOURCE_INVALID, "photo.jpg", received="half a file")
    source: list[Any] = [
        np.zeros(1), np.full(1, 3.0), lost, {"x": np.ones(1)}, {"z": np.ones(1)}, "text",
        Frame({"x": np.ones(1)}, "n", 2.5),
    ]  # fmt: skip
    with chain.stream(source, workers=3) as stream:
        results = list(stream)
    assert [result.index for result in results] == list(range(7))
    codes = [result.error.code if result.error else None for result in results]
    assert codes == [
        None,
        ErrorCode.OPERATOR_FAILED,
        ErrorCode.SOURCE_INVALID,
        None,
        ErrorCode.INPUT_MISSING,
        ErrorCode.INPUT_INVALID,
        None,
    ]
    assert all((result.prediction is None) == (result.error is not None) for result in results)
    assert results[2].error is lost
    assert results[2].frame.name == "photo.jpg"
    assert (results[6].frame.name, results[6].frame.time_s) == ("n", 2.5)
    figures = chain.metrics.figures()
    assert figures.runs == 3
    assert sum(figures.errors.values()) == 4
    assert _is_idle(chain)


def test_an_error_that_nobody_foresaw_is_an_answer_too(
    monkeypatch: pytest.MonkeyPatch, calling: Calling
) -> None:
    chain = Chain([calling("a", lambda array: array, "x", "y")])
    step = chain.stages[0].step
    run = step.run

    def fail(call: Any, inputs: Any) -> Any:
        if inputs["array"][0] == 2:
            raise KeyError("wires crossed")
        return run(call, inputs)

    monkeypatch.setattr(step, "run", fail)
    with chain.stream(_numbers(5), workers=2) as stream:
        results = list(stream)
    assert [result.error is None for result in results] == [True, True, False, True, True]
    assert results[2].error is not None
    assert results[2].error.code is ErrorCode.INTERNAL
    assert "wires crossed" in results[2].error.message


class Fed:
    """A source that gives what it is told to, when it is told to."""

    def __init__(self) -> None:
        self._given: list[Any] = []
        self._changed = threading.Condition()
        self.taken = 0
        self.closed = False

    def give(self, *frames: Any) -> None:
        with self._changed:
            self._given += frames
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._given or self.closed)
                if not self._given:
                    return
                frame = self._given.pop(0)
                self.taken += 1
            yield frame


def _until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it never came to that"
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("overflow", "answered", "dropped"),
    [
        ("block", list(range(12)), 0),
        # One is under way and two wait when the rest comes: the last two of all, or the two that waited first.
        ("drop-oldest", [0, 10, 11], 9),
        ("drop-newest", [0, 1, 2], 9),
    ],
)
def test_a_full_entrance_does_as_it_was_told(
    calling: Calling, overflow: Any, answered: list[int], dropped: int
) -> None:
    gate = threading.Event()
    chain = Chain([calling("gate", lambda array: (gate.wait(timeout=30), array)[1], "x", "y")])
    source = Fed()
    metrics = chain.metrics
    with chain.stream(source, queue_size=2, overflow=overflow, workers=1) as stream:
        source.give(np.zeros(1))
        _until(lambda: metrics.figures().in_flight == 1)
        source.give(np.full(1, 1), np.full(1, 2))
        _until(lambda: metrics.figures().queue_depth == 2)
        source.give(*(np.full(1, number) for number in range(3, 12)))
        if dropped:
            _until(lambda: metrics.figures().dropped.get(overflow) == dropped)
        else:
            time.sleep(0.05)
            # The fourth is in the hand of who waits for room; the source waits with it.
            assert source.taken == 4
        assert metrics.figures().queue_depth == 2
        gate.set()
        source.close()
        results = list(stream)
    assert [result.index for result in results] == answered
    assert _values(results, "y") == answered
    assert sum(metrics.figures().dropped.values()) == dropped
    assert _is_idle(chain)


def test_frames_that_wait_for_a_stage_are_counted_there(models: Path, image: Array) -> None:
    model = Model(models / "classifier.tflite")
    chain = Chain([Stage.from_model("read", model)])
    with model.borrow() as lent:
        assert lent
        stream = chain.stream([image] * 30, workers=2, queue_size=5)
        _until(lambda: chain.metrics.figures().queue_depth == 5)
        figures = chain.metrics.figures()
        assert figures.in_flight == 3
        assert figures.stages[0].waiting == 2
    assert len(list(stream)) == 30
    assert _is_idle(chain)


def test_what_a_source_raises_is_raised_once_all_before_it_is_answered(uneven: Chain) -> None:
    def source() -> Iterator[Array]:
        yield from _numbers(10)
        raise HybridgeError(ErrorCode.SOURCE_INVALID, "camera", received="no more frames")

    seen: list[int] = []
    with uneven.stream(source(), workers=3) as stream, pytest.raises(HybridgeError, match="no more frames"):
        seen.extend(result.index for result in stream)
    assert seen == list(range(10))
    assert _is_idle(uneven)
    for bad in (None, 5):
        with pytest.raises(TypeError):
            list(uneven.stream(bad))  # type: ignore[arg-type]
    assert not _streaming_threads()


def test_closing_stops_a_source_that_waits_for_ever(calling: Calling) -> None:
    chain = Chain([calling("a", lambda array: array, "x", "y")])
    source = Fed()
    source.give(np.zeros(1))
    with chain.stream(source) as stream:
        assert next(iter(stream)).index == 0
        start = time.monotonic()
    assert time.monotonic() - start < 1.5
    assert source.closed
    assert not _streaming_threads()
    assert _is_idle(chain)


def test_closing_does_not_wait_for_a_generator_that_waits_for_ever(calling: Calling) -> None:
    chain = Chain([calling("a", lambda array: array, "x", "y")])
    let_go = threading.Event()

    def source() -> Iterator[Array]:
        yield np.zeros(1)
        let_go.wait()

    stream = chain.stream(source())
    assert stream.next_result() is not None
    waiting = ThreadPoolExecutor(1)
    reader = waiting.submit(stream.next_result)
    time.sleep(0.02)
    start = time.monotonic()
    stream.close()
    assert time.monotonic() - start < 2.0
    # Whoever waits for an answer is told that there is none.
    assert reader.result(timeout=2) is None
    waiting.shutdown()
    assert stream.next_result() is None
    assert _is_idle(chain)
    let_go.set()


def test_a_source_whose_close_fails_leaves_no_threads(calling: Calling) -> None:
    class Stuck(Fed):
        def close(self) -> None:
            super().close()
            raise OSError("device is gone")

    chain = Chain([calling("a", lambda array: array, "x", "y")])
    source = Stuck()
    stream = chain.stream(source)
    with pytest.raises(OSError, match="device is gone"):
        stream.close()
    assert not _streaming_threads()
    stream.close()


def test_leaving_a_loop_early_stops_the_threads(uneven: Chain) -> None:
    closed = threading.Event()

    def endless() -> Iterator[Array]:
        try:
            for number in itertools.count():
                yield np.full(1, number, np.float32)
        finally:
            closed.set()

    for _ in range(5):
        for result in uneven.stream(endless(), workers=3):
            if result.index == 7:
                break
        assert not _streaming_threads()
        assert _is_idle(uneven)
        gc.collect()
        assert closed.is_set()  # a generator's own `finally` has run
        closed.clear()


def test_a_slow_reader_holds_up_the_source_and_few_frames_are_alive(calling: Calling) -> None:
    alive: set[int] = set()
    most = [0]

    class Tracked(np.ndarray[Any, Any]):
        pass

    def source() -> Iterator[Array]:
        for number in range(150):
            frame = np.zeros(3).view(Tracked)
            alive.add(number)
            weakref.finalize(frame, alive.discard, number)
            most[0] = max(most[0], len(alive))
            yield frame
            del frame

    def copied(array: Array) -> Array:
        return np.array(array)

    chain = Chain([calling("a", copied, "x", "y"), calling("b", copied, "y", "z")])
    queue_size, workers = 3, 2
    count = 0
    with chain.stream(source(), queue_size=queue_size, workers=workers) as stream:
        for result in stream:
            count += 1
            if count < 40:
                time.sleep(0.002)
            del result
    assert count == 150
    # Those at the entrance, those under way, one in the source's hand, one in each worker's and one in the reader's.
    assert most[0] <= queue_size + (workers + 1) + 1 + workers + 1
    gc.collect()
    assert not alive


def test_frames_that_are_late_are_dropped_where_the_chain_says_so(calling: Calling) -> None:
    def slow(array: Array) -> Array:
        time.sleep(0.03 if array[0] % 2 else 0)
        return array

    chain = Chain(
        [calling("slow", slow, "x", "y"), calling("next", lambda array: array, "y", "z")],
        deadline_s=0.02,
        late="drop",
    )
    with chain.stream(_numbers(8), workers=1) as stream:
        results = list(stream)
    assert {result.index for result in results}.isdisjoint({1, 3, 5, 7})
    assert all(result.error is None for result in results)
    figures = chain.metrics.figures()
    assert figures.dropped[ErrorCode.CHAIN_LATE] == 8 - len(results) >= 4
    assert figures.errors[ErrorCode.CHAIN_LATE] == 8 - len(results)
    assert _is_idle(chain)


def test_a_last_frame_that_is_late_ends_the_stream_all_the_same(calling: Calling) -> None:
    chain = Chain(
        [
            calling("slow", pass_on("slow", seconds=0.01), "x", "y"),
            calling("next", lambda array: array, "y", "z"),
        ],
        deadline_s=0.001,
        late="drop",
    )
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: list(chain.stream(_numbers(4)))).result(timeout=10) == []


def test_two_streams_of_one_chain_run_at_once(uneven: Chain) -> None:
    def read(offset: int) -> list[float]:
        frames = (frame + offset for frame in _numbers(100))
        with uneven.stream(frames, workers=3) as stream:
            return _values(list(stream), "d")

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(read, (0, 1000))
    assert first == list(range(100))
    assert second == list(range(1000, 1100))
    assert uneven.metrics.figures().runs == 200
    assert _is_idle(uneven)


def test_streams_and_calls_and_closing_among_each_other(uneven: Chain) -> None:
    def read(number: int) -> None:
        for _ in range(4):
            with uneven.stream(_numbers(1000), workers=1 + number) as stream:
                seen = [result.index for result in itertools.islice(stream, 10 * (number + 1))]
            assert seen == list(range(10 * (number + 1)))
            assert uneven.run(np.zeros(1, np.float32)).outputs["d"].shape == (2,)

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(read, number) for number in range(3)]:
            future.result(timeout=30)
    assert _is_idle(uneven)
    uneven.close()


@pytest.mark.parametrize(
    "settings", [{"queue_size": 0}, {"workers": -1}, {"overflow": "drop"}, {"queue_size": -3, "workers": 2}]
)
def test_settings_that_cannot_be_are_refused_before_any_thread_starts(
    uneven: Chain, settings: dict[str, Any]
) -> None:
    with pytest.raises(HybridgeError) as caught:
        uneven.stream(_numbers(1), **settings)
    assert caught.value.code is ErrorCode.USAGE
    assert not _streaming_threads()


def test_an_empty_source_is_an_empty_stream(uneven: Chain) -> None:
    assert list(uneven.stream([])) == []
    assert list(uneven.stream(iter(()), overflow="drop-newest")) == []


def test_a_single_model_answers_as_it_does_alone(models: Path) -> None:
    model = Model(models / "classifier.tflite")
    images = np.random.default_rng(0).random((30, 1, 8, 8, 1), dtype=np.float32)
    chain = Chain([Stage.from_model("read", model)])
    with chain.stream(images, workers=2) as stream:
        for image, result in zip(images, stream, strict=True):
            assert result.prediction is not None
            np.testing.assert_array_equal(result.prediction.outputs["logits"], model.run(image)["logits"])


# In asyncio.


def test_the_event_loop_goes_on_while_a_chain_runs(calling: Calling) -> None:
    chain = Chain([calling("slow", pass_on("slow", seconds=0.05), "x", "y")])

    async def main() -> tuple[int, float]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.002)
                ticks += 1

        ticking = asyncio.create_task(tick())
        prediction = await chain.run_async(np.ones(1))
        async for result in chain.stream_async(_numbers(3)):
            assert result.prediction is not None
        ticking.cancel()
        return ticks, float(prediction.outputs["y"][0])

    ticks, value = asyncio.run(main())
    assert ticks > 10
    assert value == 1
    assert _is_idle(chain)


def test_leaving_an_asynchronous_stream_early_stops_its_threads(uneven: Chain) -> None:
    async def leave() -> None:
        async with contextlib.aclosing(uneven.stream_async(_numbers(1000), workers=2)) as results:
            async for result in results:
                if result.index == 5:
                    break

    async def cancel() -> None:
        source = Fed()

        async def read() -> None:
            async for _ in uneven.stream_async(source):
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert source.closed

    for main in (leave, cancel):
        asyncio.run(main())
        assert not _streaming_threads()
        assert _is_idle(uneven)


@pytest.mark.slow
def test_memory_does_not_grow_over_twenty_thousand_frames(models: Path) -> None:
    if not resident_bytes():
        pytest.skip("resident memory is read from /proc, which this system has not")
    chain = Chain(
        [
            Stage.from_operator("scale", "scale", inputs={"array": "raw"}, outputs={"array": "image"}),
            Stage.from_model("read", Model(models / "classifier.tflite")),
            Stage.from_operator("chances", "softmax", outputs={"logits": "chances"}),
        ]
    )
    photo = np.zeros((1, 8, 8, 1), np.uint8)

    def run(count: int) -> None:
        with chain.stream(itertools.repeat({"raw": photo}, count), workers=2) as stream:
            assert sum(1 for _ in stream) == count

    run(4_000)
    before = resident_bytes()
    run(20_000)
    assert resident_bytes() - before < 1_500_000
    assert chain.metrics.figures().runs == 24_000
