"""Fixtures of the client's tests: an endpoint that a test scripts, and certificates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from cloud_fallback import CloudFallback
from tests.cloud_fallback.client.certificates import Authority
from tests.cloud_fallback.client.peer import Peer, Serving


@pytest.fixture
def serve() -> Iterator[Callable[..., Serving]]:
    """Serves a peer until the test is over."""
    with ExitStack() as stack:

        def start(peer: Peer, credentials: Any = None) -> Serving:
            return stack.enter_context(Serving(peer, credentials))

        yield start


@pytest.fixture
def ask(serve: Callable[..., Serving]) -> Iterator[Callable[..., CloudFallback]]:
    """Opens a fallback on a peer, or on an address, and closes it."""
    with ExitStack() as stack:

        def open_one(peer: Peer | str, **options: Any) -> CloudFallback:
            target = peer if isinstance(peer, str) else serve(peer).address
            settings: dict[str, Any] = {"model": "m", "deadline_s": 5.0} | options
            return stack.enter_context(CloudFallback(target, **settings))

        yield open_one


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("authority"))
