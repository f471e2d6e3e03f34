"""What an endpoint counts, in memory: outcomes, times, sizes, and nothing that a caller could fill it with."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="needs the 'serve' extra")

from cloud_fallback import Repository
from cloud_fallback.endpoint.data_plane import DataPlane, InferenceRequest
from cloud_fallback.endpoint.served import TimeLeft, no_limit
from cloud_fallback.endpoint.served.turn import Turn, note_turn, take_turn
from cloud_fallback.endpoint.telemetry import Histogram, SeriesFigures, Telemetry, Transport
from edge_runtime import ErrorCode, HybridgeError
from tests.cloud_fallback.endpoint.rest_models import Echo, Gated

Array = np.ndarray[Any, Any]


class Noting(Echo):
    """Tells how its runs went, as the queue of a model does."""

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:
        note_turn(Turn(0.002, 0.03, 4))
        if "BOOL" in inputs:
            raise HybridgeError(ErrorCode.INVOKE_FAILED, "model")
        return super().infer(inputs, time_left=time_left)


def _ask(
    data_plane: DataPlane,
    model: str,
    version: str = "",
    transport: Transport = Transport.GRPC,
    **options: Any,
) -> None:
    with data_plane.telemetry.record(transport) as record:
        record.received(100)
        record.request = InferenceRequest(model, version, options.pop("inputs", {}), **options)
        data_plane.infer(record.request)
        record.bytes_out = 7


def _series(telemetry: Telemetry) -> dict[tuple[str, str, str], SeriesFigures]:
    return {(each.model, each.version, str(each.transport)): each for each in telemetry.figures().series}


def test_requests_are_counted_by_model_version_transport_and_outcome() -> None:
    data_plane = DataPlane(Repository([Noting(version="1"), Noting(version="2"), Echo("other")]))
    for _ in range(3):
        _ask(data_plane, "echo")
    _ask(data_plane, "echo", "1")
    _ask(data_plane, "other", transport=Transport.REST)
    with pytest.raises(HybridgeError):
        _ask(data_plane, "echo", "1", outputs=["none"])
    found = _series(data_plane.telemetry)
    assert {labels: dict(each.codes) for labels, each in found.items()} == {
        ("echo", "2", "grpc"): {"ok": 3},
        ("echo", "1", "grpc"): {"ok": 1, "output-unknown": 1},
        ("other", "1", "rest"): {"ok": 1},
    }
    newest = found["echo", "2", "grpc"]
    assert (newest.bytes_in, newest.bytes_out) == (300, 21)
    assert sum(newest.queued.counts) == sum(newest.run.counts) == 3
    assert [newest.queued.total, newest.run.total] == pytest.approx([0.006, 0.09])
    assert (newest.rows.counts[2], newest.rows.total) == (3, 12)
    assert sum(found["other", "1", "rest"].queued.counts) == 0


def test_a_run_that_fails_is_counted_with_its_time_and_for_its_version() -> None:
    data_plane = DataPlane(Repository([Noting(version="5")]))
    with pytest.raises(HybridgeError):
        _ask(data_plane, "echo", inputs={"BOOL": np.zeros(1, bool)})
    (each,) = data_plane.telemetry.figures().series
    assert (each.version, dict(each.codes), sum(each.run.counts)) == ("5", {"invoke-failed": 1}, 1)


def test_names_that_callers_make_up_are_counted_under_none() -> None:
    data_plane = DataPlane(Repository([Echo()]))
    for index in range(50):
        for model, version in ((f"m{index}", ""), ("echo", f"v{index}")):
            with pytest.raises(HybridgeError):
                _ask(data_plane, model, version)
    assert {labels: dict(each.codes) for labels, each in _series(data_plane.telemetry).items()} == {
        ("", "", "grpc"): {"model-unknown": 100}
    }


def test_a_second_request_of_one_key_is_counted_for_the_version_that_answered_the_first() -> None:
    data_plane = DataPlane(Repository([Noting(version="5")]))
    for _ in range(2):
        _ask(data_plane, "echo", idempotency_key="k")
    (each,) = data_plane.telemetry.figures().series
    assert (each.version, each.codes["ok"], sum(each.run.counts)) == ("5", 2, 1)


def test_anything_else_that_is_raised_is_counted_as_internal() -> None:
    telemetry = Telemetry()
    with pytest.raises(KeyError), telemetry.record(Transport.REST):
        raise KeyError
    assert telemetry.figures().series[0].codes == Counter({"internal": 1})


def test_requests_under_way_are_known() -> None:
    model = Gated()
    data_plane = DataPlane(Repository([model]))
    x = {"x": np.ones(1, np.float32)}
    threads = [
        threading.Thread(target=_ask, args=(data_plane, "gated"), kwargs={"inputs": x}) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert model.entered.wait(10)
    assert data_plane.telemetry.figures().in_flight[Transport.GRPC] >= 1
    model.gate.set()
    for thread in threads:
        thread.join()
    assert data_plane.telemetry.figures().in_flight == {Transport.GRPC: 0, Transport.REST: 0}


def test_nothing_is_lost_when_many_threads_count_and_one_reads() -> None:
    telemetry, stop = Telemetry(), threading.Event()

    def count() -> None:
        for _ in range(2000):
            with telemetry.record(Transport.GRPC) as record:
                record.received(1)

    def read() -> None:
        while not stop.is_set():
            for each in telemetry.figures().series:
                assert sum(each.codes.values()) == sum(each.seconds.counts) == each.bytes_in

    threads = [threading.Thread(target=count) for _ in range(6)]
    reader = threading.Thread(target=read)
    for thread in (*threads, reader):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    reader.join()
    (each,) = telemetry.figures().series
    assert each.codes["ok"] == sum(each.seconds.counts) == each.bytes_in == 12_000


def test_a_histogram_counts_up_to_and_including_its_bounds() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 2.5):
        histogram.add(value)
    assert (histogram.counts, histogram.total) == ([2, 2, 1], 7.0)


def test_ids_that_are_made_are_all_different_and_those_given_are_kept() -> None:
    telemetry = Telemetry()
    records = [telemetry.record(Transport.GRPC) for _ in range(100)]
    assert len({each.request_id for each in records}) == 100
    assert records[0].request_id == records[0].request_id
    records[1].request_id = "given"
    assert records[1].request_id == "given"
    assert Telemetry().record(Transport.GRPC).request_id != records[0].request_id


def test_what_a_model_noted_is_for_its_own_thread_and_once() -> None:
    note_turn(Turn(1.0, 2.0))
    seen: list[Turn | None] = []
    thread = threading.Thread(target=lambda: seen.append(take_turn()))
    thread.start()
    thread.join()
    assert (seen, take_turn(), take_turn()) == ([None], Turn(1.0, 2.0), None)
