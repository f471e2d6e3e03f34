"""Real peers that serve a small classifier of handwritten digits, and what they must answer."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from benchmarks.peers import peer_python
from benchmarks.serving_vs_peers.mlserver import _REQUIREMENTS, start_mlserver
from benchmarks.serving_vs_peers.server_process import ServerProcess, free_port
from benchmarks.serving_vs_peers.triton import start_triton
from cloud_fallback import EndpointProcess
from cloud_fallback.endpoint.token_file import token_digest
from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.console import say
from tests.cloud_fallback.peers.client_models import write_client_models

Array = np.ndarray[Any, Any]
# Starts a peer: on any port that is free, or on the one that is given.
Start = Callable[..., ServerProcess]

TOKEN, OTHER_TOKEN = "token-for-sums-" + "s" * 28, "token-for-area-" + "a" * 28
# For a peer's Python: not where this program's packages are.
PEER_ENVIRONMENT = {"PYTHONPATH": ""}

_RUNTIMES = Path(__file__).with_name("runtimes")
_KSERVE = ("kserve==0.21.0",)
_TENSOR = {"datatype": "FP32"}
_TRITON = """
max_batch_size: 0
input [{name: "image" data_type: TYPE_FP32 dims: [1, 8, 8, 1]}]
output [{name: "logits" data_type: TYPE_FP32 dims: [1, 10]}]
instance_group [{kind: KIND_CPU count: 2}]
"""


class Digits(NamedTuple):
    """Images of 8 x 8 in 0..1, what they show, the logits that a classifier gives for them, and its weights' file."""

    images: Array
    labels: Array
    logits: Array
    file: Path


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    flat, labels = load_digits(return_X_y=True)
    flat = (flat / 16).astype(np.float32)
    trained = LogisticRegression(max_iter=300).fit(flat[:1000], labels[:1000])
    weights, bias = trained.coef_.T.astype(np.float32), trained.intercept_.astype(np.float32)
    file = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(file, weights=weights, bias=bias)
    test = flat[1000:]
    return Digits(test.reshape(-1, 1, 8, 8, 1), labels[1000:], test @ weights + bias, file)


def _mlserver(folder: Path, digits: Digits, port: int | None) -> ServerProcess:
    return start_mlserver(
        folder,
        model="digits",
        source=_RUNTIMES / "mlserver_digits.py",
        implementation="Digits",
        settings={
            "inputs": [{"name": "image", "shape": [1, 8, 8, 1], **_TENSOR}],
            "outputs": [{"name": "logits", "shape": [1, 10], **_TENSOR}],
        },
        files=[digits.file],
        port=port,
    )


def _kserve(folder: Path, digits: Digits, port: int | None) -> ServerProcess:
    python = peer_python("kserve-server", _KSERVE, say=say)
    for file in (_RUNTIMES / "kserve_digits.py", digits.file):
        shutil.copy(file, folder)
    port = port or free_port()
    return ServerProcess(
        [python, "kserve_digits.py", str(free_port()), str(port)],
        model="digits",
        port=port,
        folder=folder,
        environment=PEER_ENVIRONMENT,
    )


def _triton(folder: Path, digits: Digits, port: int | None) -> ServerProcess:
    return start_triton(
        folder,
        model="digits",
        source=_RUNTIMES / "triton_digits.py",
        configuration=_TRITON,
        files=[digits.file],
        port=port,
    )


@contextmanager
def _skipped_without_its_package() -> Iterator[None]:
    try:
        yield
    except HybridgeError as error:
        if error.code is ErrorCode.FILE_NOT_FOUND:
            pytest.skip(f"the peer's package cannot be installed here: {error.message}")
        raise


@pytest.fixture(scope="session")
def mlserver_python() -> Path:
    """The Python of the environment that has MLServer."""
    with _skipped_without_its_package():
        return peer_python("mlserver", _REQUIREMENTS, say=say)


@pytest.fixture(scope="package", params=[_mlserver, _triton, _kserve], ids=["mlserver", "triton", "kserve"])
def start(
    request: pytest.FixtureRequest, digits: Digits, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:
    """Starts a peer, one after the other; they end with the tests."""
    started: list[ServerProcess] = []

    def start_one(port: int | None = None) -> ServerProcess:
        with _skipped_without_its_package():
            started.append(request.param(tmp_path_factory.mktemp("peer"), digits, port))
        return started[-1]

    yield start_one
    for server in started:
        server.__exit__(None, None, None)


@pytest.fixture(scope="package")
def peer(start: Start) -> ServerProcess:
    """A peer that all tests share."""
    return start()


class Served(NamedTuple):
    """Our endpoint in a process of its own."""

    process: EndpointProcess
    rest_port: int

    @property
    def rest_address(self) -> str:
        return f"http://127.0.0.1:{self.rest_port}"


@pytest.fixture(scope="package")
def client_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models that `write_client_models` names."""
    folder = tmp_path_factory.mktemp("client_models")
    write_client_models(folder)
    return folder


@pytest.fixture(scope="package")
def served(client_models: Path) -> Iterator[Served]:
    """Serves them, over gRPC and REST, to anybody."""
    port = free_port()
    with EndpointProcess([client_models], arguments=["--rest-port", str(port)]) as process:
        yield Served(process, port)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """The file that lets in who has `TOKEN` to the model `sums`, and who has `OTHER_TOKEN` to `area`."""
    file = tmp_path / "tokens.toml"
    file.write_text(
        "".join(
            f'[clients.{model}]\ntoken_sha256 = ["{token_digest(token)}"]\nmodels = ["{model}"]\n'
            for model, token in (("sums", TOKEN), ("area", OTHER_TOKEN))
        )
    )
    return file
