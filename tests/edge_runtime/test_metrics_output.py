from __future__ import annotations

import io
import re
import urllib.request

import numpy as np
import pytest

from edge_runtime import Answer, Chain, ErrorCode, HybridgeError, Query, Reason, Stage
from edge_runtime.live_view import LiveView, metrics_text
from edge_runtime.metrics import Measure
from edge_runtime.prometheus import prometheus_text, serve_metrics

pytest.importorskip("prometheus_client", reason="needs the 'metrics' extra")


@pytest.fixture
def used_chain() -> Chain:
    """A chain that ran three times and failed once."""
    chain = Chain(
        [
            Stage.from_operator("double", "scale", outputs={"array": "y"}, params={"factor": 2.0}),
            Stage.from_operator(
                "flat", "reshape", inputs={"array": "y"}, outputs={"array": "z"}, params={"shape": [2, 2]}
            ),
        ],
        name="doubling",
    )
    for _ in range(3):
        chain.run(np.ones(4, np.float32))
    with pytest.raises(HybridgeError):
        chain.run(np.ones(3, np.float32))
    return chain


def _samples(text: str) -> dict[str, float]:
    rows = re.findall(r"^(hybridge_\S+) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in rows}


def test_prometheus_text_has_what_the_chain_did(used_chain: Chain) -> None:
    samples = _samples(prometheus_text([used_chain.metrics]))
    assert samples['hybridge_chain_runs_total{chain="doubling"}'] == 3
    assert samples['hybridge_chain_errors_total{chain="doubling",code="operator-failed"}'] == 1
    assert samples['hybridge_stage_latency_seconds_count{chain="doubling",stage="double"}'] == 4
    assert samples['hybridge_stage_errors_total{chain="doubling",stage="flat"}'] == 1
    p50 = samples['hybridge_stage_latency_seconds{chain="doubling",quantile="0.5",stage="double"}']
    assert 0 < p50 < 1
    assert samples["hybridge_resident_bytes"] > 1e6


def test_metrics_are_served_over_http_and_a_taken_port_is_one_clear_error(used_chain: Chain) -> None:
    server = serve_metrics([used_chain.metrics], port=0)
    try:
        port = server.server_address[1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert _samples(answer.read().decode())['hybridge_chain_runs_total{chain="doubling"}'] == 3
        with pytest.raises(HybridgeError) as caught:
            serve_metrics([used_chain.metrics], port=port)
        assert caught.value.code is ErrorCode.ADDRESS_IN_USE
    finally:
        server.shutdown()
        server.server_close()


class _Echo:
    """A fallback that counts, unless its figures fail."""

    def __init__(self, *measures: Measure):
        self._measures = measures

    def resolve(self, query: Query) -> Answer:  # noqa: ARG002
        return Answer.keep(Reason.CONFIDENT)

    def close(self) -> None:
        pass

    def figures(self) -> _Echo:
        return self

    def measures(self) -> tuple[Measure, ...]:
        if not self._measures:
            raise OSError("the disk is gone")
        return self._measures


def test_what_fallbacks_count_is_on_the_page_of_their_chain_and_one_that_fails_takes_nothing_else_away(
    used_chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    coins, lit = (
        Measure("echo_coins", "Coins.", 3, {"kind": "gold"}),
        Measure("echo_lit", "Lamp.", 1, is_count=False),
    )
    used_chain.metrics.stage_asks("double", _Echo(coins, lit))
    used_chain.metrics.stage_asks("flat", _Echo(coins))
    used_chain.metrics.stage_asks("broken", _Echo())
    text = prometheus_text([used_chain.metrics])
    samples = _samples(text)
    assert samples['hybridge_echo_coins_total{chain="doubling",kind="gold",stage="double"}'] == 3
    assert samples['hybridge_echo_coins_total{chain="doubling",kind="gold",stage="flat"}'] == 3
    assert samples['hybridge_echo_lit{chain="doubling",stage="double"}'] == 1
    assert samples['hybridge_chain_runs_total{chain="doubling"}'] == 3
    assert text.count("# TYPE hybridge_echo_coins_total counter") == 1
    assert "fallback of stage 'broken'" in caplog.text


def test_the_text_for_a_person_has_a_row_for_each_stage(used_chain: Chain) -> None:
    text = metrics_text(used_chain.metrics.figures(), per_second=12.34)
    assert text.startswith("doubling: 3 answers, 12.3 a second")
    assert "failed operator-failed 1" in text
    assert re.search(r"^double +4 ", text, re.MULTILINE)


def test_the_live_view_paints_over_itself_and_a_last_time_when_it_is_left(used_chain: Chain) -> None:
    screen = io.StringIO()
    with LiveView(used_chain.metrics, stream=screen, interval_s=0.01):
        while screen.getvalue().count("doubling:") < 2:
            pass
        used_chain.run(np.ones(4, np.float32))
    assert "doubling: 4 answers" in screen.getvalue()
    # Every painting but the first goes back to the first line.
    paintings = screen.getvalue().count("doubling:")
    assert len(re.findall(r"\x1b\[\d+F", screen.getvalue())) == paintings - 1
