"""Figures of fallbacks as Prometheus scrapes them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest

from cloud_fallback import CloudFallback
from cloud_fallback.client.answer_cache import AnswerCache
from cloud_fallback.client.figures import FallbackFigures
from cloud_fallback.client.prometheus import FallbackCollector
from edge_runtime import Query
from tests.cloud_fallback.client.peer import Peer, Serving, question
from tests.cloud_fallback.client.test_settings import INNER


def test_every_figure_is_scraped(ask: Callable[..., CloudFallback]) -> None:
    read, sort = ask(Peer(), cache=AnswerCache()), ask("127.0.0.1:1")
    for _ in range(10):
        read.resolve(question(1, 2))
    for number in range(10):
        read.resolve(question(number, number))
    read.resolve(Query("s", {}, {"y": np.zeros(2)}, 0.9, 0.5))
    sort.resolve(question())
    registry = CollectorRegistry()
    registry.register(FallbackCollector({"read": read, "sort": sort}))
    text = generate_latest(registry).decode()
    for line in (
        'hybridge_fallback_decisions_total{action="ask",reason="unsure",stage="read"} 20.0',
        'hybridge_fallback_decisions_total{action="keep",reason="confident",stage="read"} 1.0',
        'hybridge_fallback_decisions_total{action="keep",reason="cloud-unavailable",stage="sort"} 1.0',
        'hybridge_fallback_failures_total{code="cloud-unavailable",stage="sort"} 1.0',
        'hybridge_fallback_cache_hits_total{stage="read"} 9.0',
        'hybridge_fallback_asked_total{stage="read"} 11.0',
        'hybridge_fallback_breaker_state{stage="sort",state="closed"} 1.0',
        'hybridge_fallback_offline{stage="sort"} 1.0',
        'hybridge_fallback_expected_seconds{stage="read"}',
    ):
        assert line in text
    assert 'expected_seconds{stage="sort"}' not in text
    for name in FallbackFigures.__slots__:
        assert (
            name.removesuffix("_ms").removeprefix("is_").replace("breaker_openings", "breaker_openings")
            in text
        )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_a_run_shows_its_fallbacks_on_the_page_of_its_chain(
    serve: Callable[..., Serving], tmp_path: Path
) -> None:
    there, away, port = serve(Peer()).address, f"127.0.0.1:{_free_port()}", _free_port()
    (tmp_path / "inner.toml").write_text(INNER)
    stage = (
        '[[stages]]\nname = "{name}"\nchain = "{chain}"\ninputs = {{ x = "x" }}\noutputs = {{ y = "{name}" }}\n'
        '[stages.fallback]\nurl = "grpc://{address}/m"\nthreshold = 0.5\ndeadline_ms = 5000\n'
    )
    deferring = 'unanswered = "defer"\noutbox = "outbox.db"\n'
    (tmp_path / "within.toml").write_text(
        'outputs = ["y"]\n' + stage.format(name="y", chain="inner.toml", address=away) + deferring
    )
    (tmp_path / "chain.toml").write_text(
        'name = "reader"\noutputs = ["read", "all"]\n'
        + stage.format(name="read", chain="inner.toml", address=there)
        + '[[stages]]\nname = "all"\nchain = "within.toml"\noutputs = { y = "all" }\n'
    )
    words = [str(tmp_path / "chain.toml"), "--input", "-", "--metrics-port", str(port), "--format", "json"]
    with subprocess.Popen(
        [sys.executable, "-m", "edge_runtime", "run", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for low in (0.9, 0.3):
            process.stdin.write(json.dumps({"x": [low, 2.0]}) + "\n")
            process.stdin.flush()
            assert "outputs" in json.loads(process.stdout.readline())
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            page = answer.read().decode()
        process.stdin.close()
        process.stdout.read()
    assert process.returncode == 0
    for line in (
        'hybridge_chain_runs_total{chain="reader"} 2.0',
        'hybridge_fallback_decisions_total{action="keep",chain="reader",reason="confident",stage="read"} 1.0',
        'hybridge_fallback_decisions_total{action="ask",chain="reader",reason="unsure",stage="read"} 1.0',
        'hybridge_fallback_asked_total{chain="reader",stage="read"} 1.0',
        'hybridge_fallback_breaker_state{chain="reader",stage="read",state="closed"} 1.0',
        'hybridge_fallback_breaker_state{chain="reader",stage="read",state="open"} 0.0',
        'hybridge_fallback_deferred_total{chain="reader",stage="all/y"} 1.0',
        'hybridge_outbox_depth{chain="reader",stage="all/y"} 1.0',
        'hybridge_outbox_puts_total{chain="reader",stage="all/y"} 1.0',
        'hybridge_outbox_oldest_age_seconds{chain="reader",stage="all/y"}',
    ):
        assert line in page, page
    assert 'hybridge_outbox_depth{chain="reader",stage="read"}' not in page
