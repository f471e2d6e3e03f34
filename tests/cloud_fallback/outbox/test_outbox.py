from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cloud_fallback.outbox import Dropped, DropReason, Outbox, Request, WhenFull
from cloud_fallback.outbox.outbox import Taken
from edge_runtime import ErrorCode, HybridgeError
from tests.cloud_fallback.outbox.conftest import drain_all, echo

OpenOutbox = Callable[..., Outbox]


def put(
    outbox: Outbox, request_id: str, *, priority: int = 0, size: int = 10, destination: str = "d"
) -> None:
    outbox.put(Request(b"x" * size, destination, priority=priority, id=request_id))


def waiting(outbox: Outbox) -> list[str]:
    """Ids in the order in which they would be sent."""
    taken: list[Taken] = []
    while (one := outbox.take()) is not None:
        taken.append(one)
    for one in taken:
        outbox.put_back(one)
    return [one.request.id for one in taken]


def test_the_order_is_that_of_priority_and_then_of_age_over_all_destinations(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox()
    for number, (priority, destination) in enumerate(
        [(0, "a"), (5, "b"), (0, "b"), (-3, "a"), (5, "a"), (0, "a"), (2**62, "c")]
    ):
        put(outbox, str(number), priority=priority, destination=destination)
    assert waiting(outbox) == ["6", "1", "4", "0", "2", "5", "3"]
    assert waiting(open_outbox()) == ["6", "1", "4", "0", "2", "5", "3"]


def test_what_was_put_is_there_after_a_restart_as_it_was(open_outbox: OpenOutbox) -> None:
    body = bytes(range(256)) * 5000
    metadata = {"stage": "read", "frame": 17, "box": [1.5, None, True], "text": "ß\U0001f600\0"}
    open_outbox().put(Request(body, "größe", priority=-7, metadata=metadata, id="one"))
    taken = open_outbox().take()
    assert taken is not None
    assert taken.request == Request(body, "größe", priority=-7, metadata=metadata, id="one")


def test_the_same_id_is_the_same_request_also_after_a_restart_and_after_its_answer(
    open_outbox: OpenOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = open_outbox()
    outbox.put_many([Request(b"first", "d", id="one"), Request(b"first", "d", id="one")])
    outbox = open_outbox()
    assert not caplog.records
    outbox.put(Request(b"other", "d", id="one"))
    assert "other bytes" in caplog.text
    assert outbox.figures().repeats == 1
    taken = outbox.take()
    assert taken is not None
    assert taken.request.body == b"first"
    outbox.settle(taken, b"answer")
    put(outbox, "one")
    assert (outbox.figures().repeats, outbox.depth) == (2, 0)
    outbox.acknowledge(["one"])
    put(outbox, "one")
    assert outbox.depth == 1


def test_what_was_taken_is_not_taken_again_before_it_is_put_back(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox()
    put(outbox, "one")
    taken = outbox.take()
    assert taken is not None
    assert outbox.take() is None
    assert outbox.figures().in_flight == 1
    outbox.put_back(taken)
    assert outbox.take() == taken


def test_blocked_destinations_and_requests_that_rest_are_passed_over(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox()
    put(outbox, "a", destination="down", priority=9)
    put(outbox, "b")
    put(outbox, "c")
    taken = outbox.take(blocked={"down"}, passed_over={"b"}.__contains__)
    assert taken is not None
    assert taken.request.id == "c"


def test_full_refuses_with_what_is_there_and_nothing_of_many_is_stored(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox(max_requests=3, when_full="refuse")
    put(outbox, "a")
    with pytest.raises(HybridgeError, match="expected at most 3") as caught:
        outbox.put_many(Request(b"x", "d", id=str(number)) for number in range(3))
    assert caught.value.code is ErrorCode.OUTBOX_FULL
    assert waiting(outbox) == ["a"]
    assert outbox.figures().refused == 3
    # What is there already needs no room.
    put(outbox, "b")
    put(outbox, "c")
    put(outbox, "c")
    assert outbox.depth == 3


def test_full_drops_the_oldest_whatever_its_priority(open_outbox: OpenOutbox) -> None:
    dropped: list[Dropped] = []
    outbox = open_outbox(max_bytes=150, when_full=WhenFull.DROP_OLDEST, on_drop=dropped.append)
    outbox.put(Request(b"x" * 38, "d", priority=9, id="a", metadata={"frame": 1}))
    for name in "bc":
        put(outbox, name, size=48)
    put(outbox, "d", size=80)
    assert waiting(outbox) == ["c", "d"]
    assert [(each.id, each.why) for each in dropped] == [("a", DropReason.FULL), ("b", DropReason.FULL)]
    assert dropped[0].metadata == {"frame": 1}
    assert dropped[0].priority == 9
    assert outbox.figures().dropped == {"full": 2}


def test_full_drops_the_lowest_priority_and_of_these_the_oldest_but_nothing_more_important(
    open_outbox: OpenOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = open_outbox(max_requests=4, when_full=WhenFull.DROP_LOWEST)
    for name, priority in {"a": 5, "b": 1, "c": 1, "d": 3}.items():
        put(outbox, name, priority=priority, destination=name)
    put(outbox, "e", priority=1)
    assert waiting(outbox) == ["a", "d", "c", "e"]
    assert "dropped 1 (full), the first of them 'b'" in caplog.text
    with pytest.raises(HybridgeError) as caught:
        put(outbox, "f", priority=0)
    assert caught.value.code is ErrorCode.OUTBOX_FULL
    put(outbox, "g", priority=4)
    put(outbox, "h", priority=4)
    assert waiting(outbox) == ["a", "g", "h", "d"]


@pytest.mark.parametrize("when_full", list(WhenFull))
def test_what_is_being_sent_and_answers_are_never_dropped(open_outbox: OpenOutbox, when_full: str) -> None:
    outbox = open_outbox(max_requests=2, when_full=when_full)
    put(outbox, "a")
    put(outbox, "b")
    first, second = outbox.take(), outbox.take()
    assert first is not None
    assert second is not None
    outbox.settle(first, b"answer")
    with pytest.raises(HybridgeError) as caught:
        put(outbox, "c", priority=5)
    assert caught.value.code is ErrorCode.OUTBOX_FULL
    assert outbox.figures().unacknowledged == 1
    outbox.acknowledge(["a"])
    put(outbox, "c", priority=5)


def test_more_than_fits_at_all_is_said_to_be_too_large(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox(max_bytes=1000, when_full="drop-oldest")
    put(outbox, "a")
    with pytest.raises(HybridgeError) as caught:
        put(outbox, "b", size=1001)
    assert caught.value.code is ErrorCode.MESSAGE_TOO_LARGE
    assert waiting(outbox) == ["a"]


def test_limits_hold_with_many_threads_that_put_at_once(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox(max_requests=50, when_full="drop-oldest")

    def work(thread: int) -> None:
        for number in range(40):
            put(outbox, f"{thread}-{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures = outbox.figures()
    assert (figures.depth, figures.puts, figures.dropped) == (50, 320, {"full": 270})
    assert figures.bytes == sum(12 for _ in waiting(outbox))


def test_callbacks_that_fail_are_logged_and_change_nothing(
    open_outbox: OpenOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    def on_drop(_dropped: Dropped) -> None:
        raise RuntimeError("broken")

    outbox = open_outbox(max_requests=1, when_full="drop-oldest", on_drop=on_drop)
    put(outbox, "a")
    put(outbox, "b")
    assert waiting(outbox) == ["b"]
    assert "on_drop failed" in caplog.text


def test_figures_count_what_happened(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox()
    outbox.put_many([Request(b"1234", "d", id="a", metadata={"n": 1}), Request(b"5678", "e", id="b")])
    figures = outbox.figures()
    assert (figures.depth, figures.bytes, figures.depth_by_destination) == (
        2,
        4 + 7 + 4 + 2,
        {"d": 1, "e": 1},
    )
    assert 0 <= figures.oldest_age_s < 10
    assert figures.disk_bytes > 0
    drain_all(outbox, echo)
    figures = outbox.figures()
    assert (figures.depth, figures.bytes, figures.depth_by_destination, figures.oldest_age_s) == (0, 0, {}, 0)
    assert (figures.sent, figures.answered, figures.failed, figures.retries) == (2, 2, 0, 0)
    assert (figures.deliveries, figures.acknowledged, figures.unacknowledged) == (2, 2, 0)


def test_figures_of_what_is_stored_are_those_of_the_file_after_a_restart(open_outbox: OpenOutbox) -> None:
    outbox = open_outbox()
    for number in range(5):
        put(outbox, str(number), destination=f"d{number % 2}")
    taken = outbox.take()
    assert taken is not None
    outbox.settle(taken, b"answer")
    before, after = outbox.figures(), open_outbox().figures()
    assert (before.depth, before.bytes, before.unacknowledged) == (4, 4 * 12 + 8, 1)
    for name in ("depth", "bytes", "unacknowledged", "depth_by_destination"):
        assert getattr(before, name) == getattr(after, name)


@pytest.mark.parametrize(
    "options",
    [
        {"max_bytes": 0},
        {"max_requests": 0},
        {"max_age_s": 0},
        {"when_full": "drop-newest"},
        {"durability": "none"},
    ],
)
def test_settings_that_cannot_be_are_refused_and_make_no_file(path: Path, options: dict[str, object]) -> None:
    with pytest.raises(HybridgeError) as caught:
        Outbox(path, **options)  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.USAGE
    assert not path.exists()


def test_a_closed_outbox_says_so(open_outbox: OpenOutbox, caplog: pytest.LogCaptureFixture) -> None:
    outbox = open_outbox()
    outbox.close()
    outbox.close()
    for call in (lambda: put(outbox, "a"), outbox.take, outbox.figures):
        with pytest.raises(HybridgeError, match="closed") as caught:
            call()
        assert caught.value.code is ErrorCode.USAGE
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
