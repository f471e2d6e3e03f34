"""The endpoint, run as a pod runs it: with the container's own arguments, and probed as the kubelet probes."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cloud_fallback.endpoint.token_file import token_digest
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from cloud_fallback.open_inference.tensors import decode_response, encode_request
from tests.cloud_fallback.deploy.manifests import Manifest, base, container, find, free_port, tls

Array = np.ndarray[Any, Any]

TOKEN = "device-1-of-the-test"


@dataclass(frozen=True)
class Pod:
    """A process that stands for a pod, and what its manifest says of it."""

    process: subprocess.Popen[bytes]
    spec: Manifest
    ports: dict[str, int]
    certificate: bytes | None

    @property
    def container(self) -> Manifest:
        (only,) = self.spec["containers"]
        assert isinstance(only, dict)
        return only

    def passes(self, name: str) -> bool:
        """Whether a probe of the container does, asked once."""
        probe = self.container[name]
        try:
            if "grpc" in probe:
                return self._serves(probe)
            return 200 <= self._status(probe["httpGet"], probe.get("timeoutSeconds", 1)) < 400
        except (grpc.RpcError, OSError, http.client.HTTPException):
            return False

    def get(self, name: str, path: str) -> bytes:
        """What a port answers over HTTP in clear."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[name], timeout=5)
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        return response.read()

    def infer(
        self, model: str, inputs: dict[str, Array], *, token: str | None, timeout: float = 10.0
    ) -> dict[str, Array]:
        """Asks it as a device does."""
        address = f"localhost:{self.ports['grpc']}"
        channel = (
            grpc.insecure_channel(address)
            if self.certificate is None
            else grpc.secure_channel(address, grpc.ssl_channel_credentials(self.certificate))
        )
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        with channel:
            infer = GRPCInferenceServiceStub(channel).ModelInfer
            answer = infer(encode_request(model, inputs), metadata=metadata, timeout=timeout)
        return {name: array.copy() for name, array in decode_response(answer).items()}

    def _serves(self, probe: Manifest) -> bool:
        # In clear, without metadata: the kubelet's probe can do no more.
        with grpc.insecure_channel(f"127.0.0.1:{self.ports['grpc']}") as channel:
            request = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
            answer = health_pb2_grpc.HealthStub(channel).Check(
                request, timeout=probe.get("timeoutSeconds", 1)
            )
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _status(self, get: Manifest, timeout: float) -> int:
        # The kubelet looks at no certificate.
        trusting = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.ports[get["port"]], timeout=timeout, context=trusting
        )
        connection.request("GET", get["path"])
        return connection.getresponse().status


@pytest.fixture(scope="module", params=["base", "tls"])
def pod(
    request: pytest.FixtureRequest, onnx_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pod]:
    """One that has passed its startup probe, with files and ports of this test's in place of a cluster's."""
    resources = base() if request.param == "base" else tls()
    folder = tmp_path_factory.mktemp("pod")
    (folder / "tokens").write_text(f'[clients.test]\ntoken_sha256 = ["{token_digest(TOKEN)}"]\n')
    certificate = _make_certificate(folder) if request.param == "tls" else None
    ports = {each["name"]: free_port() for each in container(resources)["ports"]}
    arguments = _arguments(container(resources), ports, folder, onnx_models)
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_runtime", "serve", *arguments], stdout=subprocess.DEVNULL
    )
    try:
        pod = Pod(process, find(resources, "Deployment")["spec"]["template"]["spec"], ports, certificate)
        _await_start(pod)
        yield pod
    finally:
        process.kill()
        process.wait()


def test_a_pod_that_has_started_is_ready_and_alive(pod: Pod) -> None:
    assert pod.passes("readinessProbe")
    assert pod.passes("livenessProbe")


def test_questions_need_a_token_and_get_answers_with_one(pod: Pod) -> None:
    inputs = {"x": np.ones((1, 3), np.float32)}
    for token in (None, "another"):
        with pytest.raises(grpc.RpcError) as caught:
            pod.infer("linear", inputs, token=token)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert pod.infer("linear", inputs, token=TOKEN)["y"].shape == (1, 2)


def test_a_scrape_gets_what_the_autoscaler_reads(pod: Pod) -> None:
    assert b"\nhybridge_queue_depth" in pod.get("metrics", "/metrics")


def test_a_pod_that_is_told_to_stop_finishes_what_it_was_asked(
    pod: Pod, busy: Callable[[float], dict[str, Array]]
) -> None:
    # The last test, as it ends the pod.
    answers: list[dict[str, Array]] = []
    inputs = busy(1.0)
    asking = threading.Thread(
        target=lambda: answers.append(pod.infer("busy", inputs, token=TOKEN, timeout=30))
    )
    asking.start()
    time.sleep(0.4)
    pod.process.send_signal(signal.SIGTERM)
    stopping = time.monotonic()
    while pod.passes("readinessProbe") and time.monotonic() < stopping + 5:
        time.sleep(0.05)
    assert not pod.passes("readinessProbe")
    sleeps = pod.container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod.process.wait(pod.spec["terminationGracePeriodSeconds"] - sleeps) == 0
    asking.join(10)
    assert len(answers) == 1


def _await_start(pod: Pod) -> None:
    probe = pod.container["startupProbe"]
    deadline = time.monotonic() + probe["periodSeconds"] * probe["failureThreshold"]
    while not pod.passes("startupProbe"):
        assert pod.process.poll() is None, "the endpoint has ended"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _arguments(only: Manifest, ports: dict[str, int], folder: Path, models: Path) -> list[str]:
    """The container's arguments, with what is at hand for the paths, addresses and ports in them."""
    listens = {str(each["containerPort"]): str(ports[each["name"]]) for each in only["ports"]}

    def here(value: str) -> str:
        if value == "0.0.0.0":
            return "127.0.0.1"
        return str(folder / Path(value).name) if value.startswith("/") else listens.get(value, value)

    first, *flags = only["args"]
    assert first == "/models"
    parts = [flag.partition("=") for flag in flags]
    return [str(models), *(f"{flag}{equals}{here(value)}" for flag, equals, value in parts)]


def _make_certificate(folder: Path) -> bytes:
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *(
            "-keyout",
            str(folder / "tls.key"),
            "-out",
            str(folder / "tls.crt"),
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ),
        *("-addext", "subjectAltName=DNS:localhost"),
    ]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OPENSSL_CONF": "/dev/null"})
    return (folder / "tls.crt").read_bytes()
