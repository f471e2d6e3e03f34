"""REST over real sockets: every path of the protocol, headers, errors, who is let in, and stopping."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="needs the 'serve' extra")
import httpx

from cloud_fallback import Repository
from cloud_fallback.endpoint.access import Access
from cloud_fallback.endpoint.data_plane import DataPlane
from cloud_fallback.endpoint.rate_limit import RateLimit
from cloud_fallback.endpoint.rest import RestServer
from cloud_fallback.endpoint.rest.http_status import STATUSES
from cloud_fallback.endpoint.server_tls import ServerTls
from cloud_fallback.endpoint.token_file import TokenFile, token_digest
from edge_runtime import ErrorCode, HybridgeError, __version__
from edge_runtime.errors import Kind
from tests.cloud_fallback.client.certificates import Authority
from tests.cloud_fallback.endpoint.rest_models import DTYPES, Echo, Gated, served

Array = np.ndarray[Any, Any]
# One for all: making one reads the system's certificates, which takes longer than most tests.
HTTP = httpx.Client(verify=False, trust_env=False)
LINEAR = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
GATED = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}


@pytest.fixture(scope="module")
def server(onnx_models: Path) -> Iterator[RestServer]:
    repository = Repository.load([onnx_models])
    with RestServer(DataPlane(repository)) as server:
        yield server
    repository.close()


@pytest.fixture
def client(server: RestServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.address, verify=False) as client:
        yield client


@pytest.fixture
def gated() -> Iterator[Gated]:
    model = Gated()
    yield model
    model.gate.set()


def _refusal(response: httpx.Response) -> tuple[int, str, str]:
    assert response.headers["content-type"] == "application/json"
    return response.status_code, response.headers["hybridge-code"], response.json()["error"]


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_server_says_that_it_lives_is_ready_and_what_it_is(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.head("/v2/health/ready").status_code == 200
    for path in ("/v2", "/v2/"):
        assert client.get(path).json() == {
            "name": "hybridge",
            "version": __version__,
            "extensions": ["binary_tensor_data", "model_repository"],
        }
    assert client.get("/v2").headers["server"] == "hybridge"


def test_a_server_that_takes_no_more_requests_is_not_ready(onnx_models: Path) -> None:
    accepting = True
    data_plane = DataPlane(Repository([Echo()]), is_accepting=lambda: accepting)
    with RestServer(data_plane) as server, httpx.Client(base_url=server.address, verify=False) as client:
        accepting = False
        for path in ("/v2/health/ready", "/v2/models/echo/ready"):
            response = client.get(path)
            assert (response.status_code, response.json()["ready"]) == (503, False)
        assert client.get("/v2/health/live").status_code == 200


def test_a_model_says_that_it_is_ready_and_what_it_takes(client: httpx.Client) -> None:
    for path in ("/v2/models/linear", "/v2/models/linear/versions/1"):
        assert client.get(f"{path}/ready").json() == {"name": "linear", "ready": True}
        assert client.get(path).json() == {
            "name": "linear",
            "versions": ["1"],
            "platform": "onnx_onnxv1",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
        }


def test_a_model_is_run_on_json_and_says_which_it_was(client: httpx.Client) -> None:
    for path in ("/v2/models/linear/infer", "/v2/models/linear/versions/1/infer"):
        response = client.post(path, json=LINEAR | {"id": "42"})
        assert response.json() == {
            "model_name": "linear",
            "model_version": "1",
            "id": "42",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [16.0, 22.0]}],
        }
        assert "inference-header-content-length" not in response.headers


def test_a_model_is_run_on_binary_data_and_answers_in_it(client: httpx.Client) -> None:
    head = json.dumps(
        {
            "inputs": [
                {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    response = client.post(
        "/v2/models/linear/infer",
        content=head + np.array([1, 2, 3], "<f4").tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    size = int(response.headers["inference-header-content-length"])
    assert response.headers["content-type"] == "application/octet-stream"
    assert json.loads(response.content[:size])["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert np.frombuffer(response.content[size:], "<f4").tolist() == [16.0, 22.0]
    bare = client.post(
        "/v2/models/linear/infer",
        content=np.array([1, 2, 3], "<f4").tobytes(),
        headers={"Inference-Header-Content-Length": "0"},
    )
    assert bare.content[-8:] == response.content[-8:]


def test_tensors_of_every_type_go_through_in_json() -> None:
    values: dict[str, list[Any]] = {"BOOL": [True, False], "BYTES": ["é", ""], "FP16": [1.5, 0.25]}
    inputs = [
        {"name": name, "shape": [2, 1], "datatype": name, "data": values.get(name, [1, 2])} for name in DTYPES
    ]
    with served(Echo()) as server:
        answer = HTTP.post(f"{server.address}/v2/models/echo/infer", json={"inputs": inputs}).json()
    assert {each["name"]: (each["datatype"], each["shape"], each["data"]) for each in answer["outputs"]} == {
        name: (name, [2, 1], values.get(name, [1, 2])) for name in DTYPES
    }


def test_tritonclient_speaks_to_it(server: RestServer) -> None:
    http = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    triton = http.InferenceServerClient(server.address.removeprefix("http://"))
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("linear")
    assert not triton.is_model_ready("none")
    assert triton.get_server_metadata()["name"] == "hybridge"
    assert triton.get_model_metadata("linear", "1")["platform"] == "onnx_onnxv1"
    assert {
        "name": "linear",
        "version": "1",
        "state": "READY",
        "reason": "",
    } in triton.get_model_repository_index()
    triton.unload_model("doubles")
    assert not triton.is_model_ready("doubles")
    triton.load_model("doubles")
    x = np.arange(3000, dtype=np.float32).reshape(1000, 3)
    for coding in (None, "gzip", "deflate"):
        for binary in (True, False):
            tensor = http.InferInput("x", list(x.shape), "FP32")
            tensor.set_data_from_numpy(x, binary_data=binary)
            result = triton.infer(
                "linear",
                [tensor],
                outputs=[http.InferRequestedOutput("y", binary_data=binary)],
                request_id="7",
                timeout=5_000_000,
                request_compression_algorithm=coding,
                response_compression_algorithm=coding,
            )
            assert result.get_response()["id"] == "7"
            assert np.allclose(result.as_numpy("y"), x @ np.arange(6, dtype=np.float32).reshape(3, 2))
    with pytest.raises(Exception, match="expected one of"):
        triton.infer("none", [tensor])
    triton.close()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2/models/none", 404, "model-unknown"),
        ("GET", "/v2/models/none/ready", 404, "model-unknown"),
        ("GET", "/v2/models/linear/versions/9", 404, "model-unknown"),
        ("POST", "/v2/models/a%2Fb%0D%0A/infer", 404, "model-unknown"),
        ("POST", "/v2/repository/models/none/load", 404, "model-unknown"),
        ("POST", "/v2/repository/models/none/unload", 404, "model-unknown"),
        ("GET", "/v3", 404, "usage"),
        ("GET", "/metrics", 404, "usage"),
        ("GET", "/v2/models/linear/infer", 405, "usage"),
        ("DELETE", "/v2", 405, "usage"),
    ],
)
def test_what_is_not_there_is_said_so(
    client: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    response = client.request(method, path, json=LINEAR if path.endswith("infer") else None)
    assert _refusal(response)[:2] == (status, code)
    assert ("allow" in response.headers) == (status == 405)


def test_every_kind_of_error_is_listed_with_its_status() -> None:
    page = Path(__file__).parents[3].joinpath("docs", "serve.md").read_text()
    listed = {
        kind: int(status)
        for status, kinds in re.findall(r"^\| (\d{3}) \| ([a-z-]+(?:, [a-z-]+)*)", page, re.MULTILINE)
        for kind in kinds.split(", ")
        if kind in list(Kind)
    }
    assert listed == {str(kind): int(status) for kind, status in STATUSES.items()}
    assert set(STATUSES) == set(Kind)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Inference-Header-Content-Length": "-1"}, 400, "input-invalid"),
        ({"Inference-Header-Content-Length": "٣"}, 400, "input-invalid"),
        ({"grpc-timeout": "soon"}, 400, "input-invalid"),
        ({"grpc-timeout": "0m"}, 504, "cloud-deadline"),
        ({"Content-Encoding": "br"}, 415, "input-invalid"),
        ({"Content-Encoding": "gzip"}, 400, "input-invalid"),
        ({"sticky-key": b"\xff"}, 400, "input-invalid"),
        ({"x-request-id": b"\xff"}, 400, "input-invalid"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "not-permitted"),
    ],
)
def test_a_head_that_cannot_be_is_refused(
    client: httpx.Client, headers: dict[str, Any], status: int, code: str
) -> None:
    encoded = {
        name.encode(): value.encode() if isinstance(value, str) else value for name, value in headers.items()
    }
    assert _refusal(client.post("/v2/models/linear/infer", json=LINEAR, headers=encoded))[:2] == (
        status,
        code,
    )


def test_what_a_model_of_a_program_raises_is_not_told() -> None:
    class Broken(Echo):
        def infer(self, inputs: Any, *, time_left: Any = None) -> Any:  # noqa: ARG002
            raise KeyError("/secret/path")

    with served(Broken()) as server:
        refusal = _refusal(HTTP.post(f"{server.address}/v2/models/echo/infer", json={"inputs": []}))
    assert refusal == (500, "internal", "internal error of the endpoint")


def test_compressed_bodies_are_read_and_large_answers_compressed_for_who_takes_them(
    client: httpx.Client,
) -> None:
    rows = {"inputs": [{"name": "x", "shape": [500, 3], "datatype": "FP32", "data": [0.5] * 1500}]}
    packed: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
    for coding, pack in packed.items():
        for accepted, expected in ((coding, coding), ("identity", None), (f"{coding};q=0, br", None)):
            response = client.post(
                "/v2/models/linear/infer",
                content=pack(json.dumps(rows).encode()),
                headers={"Content-Encoding": coding, "Accept-Encoding": accepted},
            )
            assert response.headers.get("content-encoding") == expected
            assert response.json()["outputs"][0]["shape"] == [500, 2]
    assert "content-encoding" not in client.post("/v2/models/linear/infer", json=LINEAR).headers


def test_a_body_that_grows_beyond_the_limit_is_refused_before_it_does() -> None:
    bomb = gzip.compress(b" " * 5_000_000)
    with served(Echo(), max_body_bytes=2**20) as server:
        response = HTTP.post(
            f"{server.address}/v2/models/echo/infer", content=bomb, headers={"Content-Encoding": "gzip"}
        )
    assert _refusal(response)[:2] == (413, "message-too-large")


def test_every_answer_without_an_id_of_the_callers_has_one(client: httpx.Client) -> None:
    made = [client.post("/v2/models/linear/infer", json=LINEAR).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    own = client.post("/v2/models/linear/infer", json=LINEAR, headers={"x-request-id": "r-1"})
    assert own.headers["x-request-id"] == "r-1"
    refused = client.post("/v2/models/none/infer", json=LINEAR, headers={"x-request-id": "r-2"})
    assert refused.headers["x-request-id"] == "r-2"
    in_body = client.post("/v2/models/linear/infer", json=LINEAR | {"id": "a\r\nb"})
    assert (in_body.json()["id"], "x-request-id" in in_body.headers) == ("a\r\nb", False)


def test_a_request_that_comes_twice_with_one_key_is_run_once(gated: Gated) -> None:
    gated.gate.set()
    with served(gated) as server:
        answers = [
            HTTP.post(
                f"{server.address}/v2/models/gated/infer", json=GATED, headers={"idempotency-key": "k"}
            ).json()["outputs"]
            for _ in range(2)
        ]
    assert answers[0] == answers[1]
    assert gated.runs == 1


def test_one_sticky_key_is_answered_by_one_version(tmp_path: Path, onnx_models: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / "linear" / version).mkdir(parents=True)
        (tmp_path / "linear" / version / "model.onnx").write_bytes((onnx_models / "linear.onnx").read_bytes())
    repository = Repository.load([tmp_path], splits={"linear": {"1": 1, "2": 1}})
    with RestServer(DataPlane(repository)) as server:

        def version_for(key: str) -> str:
            answer = HTTP.post(
                f"{server.address}/v2/models/linear/infer", json=LINEAR, headers={"sticky-key": key}
            )
            return str(answer.json()["model_version"])

        versions = {f"device-{index}": version_for(f"device-{index}") for index in range(12)}
        assert set(versions.values()) == {"1", "2"}
        assert {key: version_for(key) for key in versions} == versions
    repository.close()


def test_a_deadline_that_passes_in_the_queue_is_a_timeout(gated: Gated) -> None:
    with served(gated) as server, ThreadPoolExecutor(1) as aside:
        url = f"{server.address}/v2/models/gated/infer"
        first = aside.submit(HTTP.post, url, json=GATED)
        assert gated.entered.wait(10)
        in_body = GATED | {"parameters": {"timeout": 50_000}}
        for response in (
            HTTP.post(url, json=GATED, headers={"grpc-timeout": "50m"}),
            HTTP.post(url, json=in_body),
        ):
            assert _refusal(response)[:2] == (504, "cloud-deadline")
        gated.gate.set()
        assert first.result().status_code == 200
    assert gated.runs == 1


def test_too_many_are_told_when_to_come_again(gated: Gated) -> None:
    with served(gated) as server, ThreadPoolExecutor(3) as aside:
        url = f"{server.address}/v2/models/gated/infer"
        waiting = [aside.submit(HTTP.post, url, json=GATED) for _ in range(3)]
        _until(lambda: gated.queue.figures().waiting == 2)
        response = HTTP.post(url, json=GATED)
        assert _refusal(response)[:2] == (429, "cloud-overloaded")
        assert int(response.headers["retry-after"]) >= 1
        assert 1 <= int(response.headers["retry-after-ms"]) <= 1000
        gated.gate.set()
        assert [each.result().status_code for each in waiting] == [200] * 3


def test_more_than_may_wait_for_a_worker_are_refused_while_health_is_answered(gated: Gated) -> None:
    with served(gated, max_workers=1, max_waiting=1) as server, ThreadPoolExecutor(2) as aside:
        url = f"{server.address}/v2/models/gated/infer"

        def ask_until_there_is_room() -> httpx.Response:
            while (response := HTTP.post(url, json=GATED)).status_code == 429:
                time.sleep(0.01)
            return response

        waiting = [aside.submit(ask_until_there_is_room)]
        assert gated.entered.wait(10)
        waiting.append(aside.submit(ask_until_there_is_room))
        # Those that come before the second wait for the one worker, and their time passes.
        statuses = []
        _until(lambda: statuses.append(_late(url)) or statuses[-1] == 429)  # type: ignore[func-returns-value]
        assert set(statuses) <= {429, 504}
        assert HTTP.get(f"{server.address}/v2/health/live").status_code == 200
        gated.gate.set()
        assert [each.result().status_code for each in waiting] == [200] * 2


def test_a_request_whose_caller_has_hung_up_is_not_run(gated: Gated) -> None:
    body = json.dumps(GATED).encode()
    head = b"POST /v2/models/gated/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with served(gated) as server, ThreadPoolExecutor(1) as aside:
        first = aside.submit(HTTP.post, f"{server.address}/v2/models/gated/infer", json=GATED)
        assert gated.entered.wait(10)
        with socket.create_connection((server.host, server.port)) as second:
            second.sendall(head + body)
            _until(lambda: gated.queue.figures().waiting == 1)
        # The server hears of it on another thread.
        HTTP.get(f"{server.address}/v2/health/live")
        gated.gate.set()
        assert first.result().status_code == 200
        _until(lambda: gated.queue.figures().expired == 1)
    assert gated.runs == 1


def test_loading_and_unloading_take_nothing_that_would_load_something_else(client: httpx.Client) -> None:
    load = "/v2/repository/models/ones/load"
    assert client.post(load).json() == {}
    assert client.post(load, json={"parameters": {}}).json() == {}
    assert _refusal(client.post(load, json={"parameters": {"config": "{}"}}))[:2] == (400, "input-invalid")
    assert _refusal(client.post(load, content=b"["))[:2] == (400, "input-invalid")
    assert _refusal(client.post(load, content=b" " * 100_000))[:2] == (413, "message-too-large")
    unload = {"parameters": {"unload_dependents": False}}
    assert client.post("/v2/repository/models/ones/unload", json=unload).json() == {}
    ready = {each["name"] for each in client.post("/v2/repository/index", json={"ready": True}).json()}
    every = {each["name"] for each in client.post("/v2/repository/index").json()}
    assert every - ready == {"ones"}
    client.post(load)


def test_who_shows_no_token_is_refused_before_the_body_is_read(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        f'[clients.device]\ntoken_sha256 = ["{token_digest("d")}"]\nmodels = ["echo"]\n'
        f'[clients.operator]\ntoken_sha256 = ["{token_digest("o")}"]\nscopes = ["admin"]\n'
    )
    with served(Echo(), Echo("other"), access=Access(TokenFile(tokens))) as server:
        asked = (
            ("POST", "/v2/models/echo/infer", {"": 401, "wrong": 401, "d": 200, "o": 403}),
            ("POST", "/v2/models/other/infer", {"d": 403}),
            ("GET", "/v2/models/echo", {"": 401, "d": 200}),
            ("GET", "/v2", {"": 401, "d": 200}),
            ("POST", "/v2/repository/index", {"": 401, "d": 403, "o": 200}),
            ("POST", "/v2/repository/models/echo/unload", {"d": 403, "o": 200}),
            ("GET", "/v2/health/ready", {"": 200}),
        )
        for method, path, expected in asked:
            for token, status in expected.items():
                response = HTTP.request(
                    method,
                    server.address + path,
                    content=b'{"inputs": []}' if method == "POST" else None,
                    headers={"Authorization": f"Bearer {token}"} if token else {},
                )
                assert response.status_code == status, (path, token)
                assert ("www-authenticate" in response.headers) == (status == 401)
        with socket.create_connection((server.host, server.port), timeout=10) as caller:
            caller.sendall(b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n")
            caller.sendall(b"Expect: 100-continue\r\n\r\n")
            assert caller.recv(64).startswith(b"HTTP/1.1 401 ")


def test_a_client_that_asks_too_often_is_told_when_it_may(tmp_path: Path) -> None:
    limited = Access(limit=RateLimit(requests_per_second=0.5, burst=1))
    with served(Echo(), access=limited) as server:
        url = f"{server.address}/v2/models/echo/infer"
        assert HTTP.post(url, json={"inputs": []}).status_code == 200
        response = HTTP.post(url, json={"inputs": []})
        assert _refusal(response)[:2] == (429, "cloud-overloaded")
        assert response.headers["retry-after"] == "2"


def test_over_tls_clients_are_known_by_their_certificates(tmp_path: Path) -> None:
    import ssl

    authority = Authority.create(tmp_path)
    cert, key = authority.sign("server", ["127.0.0.1"])
    device = tuple(map(str, authority.sign("device")))
    tokens = tmp_path / "tokens.toml"
    tokens.write_text("[clients.device]\n")
    tls = ServerTls(cert, key, authority.ca)
    with served(Echo(), tls=tls, access=Access(TokenFile(tokens))) as server:
        assert server.address.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(authority.ca))
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{server.address}/v2", verify=trusting)
        trusting.load_cert_chain(*device)
        assert httpx.get(f"{server.address}/v2", verify=trusting).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{server.address}/v2", verify=ssl.create_default_context())
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{server.port}/v2")


def test_stopping_answers_what_is_under_way_and_takes_nothing_new(gated: Gated) -> None:
    before = set(threading.enumerate())
    with (
        served(gated) as server,
        ThreadPoolExecutor(2) as aside,
        httpx.Client(base_url=server.address, verify=False) as kept,
    ):
        kept.get("/v2/health/live")
        under_way = aside.submit(HTTP.post, f"{server.address}/v2/models/gated/infer", json=GATED)
        assert gated.entered.wait(10)
        stopped = aside.submit(server.stop, 10.0)
        _until(lambda: not _is_open(server))
        with pytest.raises(httpx.TransportError):
            kept.get("/v2/health/live")
        assert not stopped.done()
        gated.gate.set()
        assert under_way.result().status_code == 200
        stopped.result()
    assert gated.runs == 1
    _until(lambda: set(threading.enumerate()) <= before)


def test_stopping_waits_no_longer_than_it_may(gated: Gated) -> None:
    with served(gated) as server, ThreadPoolExecutor(1) as aside:
        under_way = aside.submit(HTTP.post, f"{server.address}/v2/models/gated/infer", json=GATED)
        assert gated.entered.wait(10)
        begin = time.monotonic()
        server.stop(0.1)
        assert time.monotonic() - begin < 2
        assert isinstance(under_way.exception(), httpx.TransportError)
        gated.gate.set()
        server.stop()


def test_an_address_that_cannot_be_had_is_an_error() -> None:
    with served(Echo()) as server:
        for host, port in ((server.host, server.port), ("203.0.113.7", 0), ("no.such.host.invalid", 0)):
            with pytest.raises(HybridgeError) as refusal:
                RestServer(DataPlane(Repository([Echo()])), host=host, port=port).start()
            assert refusal.value.code is ErrorCode.ADDRESS_IN_USE


def test_it_listens_on_ipv6_too() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with served(Echo(), host="::1") as server:
        assert HTTP.get(f"{server.address}/v2/health/live").json() == {"live": True}


def _late(url: str) -> int:
    time.sleep(0.02)
    return HTTP.post(url, json=GATED, headers={"grpc-timeout": "5m"}).status_code


def _is_open(server: RestServer) -> bool:
    try:
        socket.create_connection((server.host, server.port), timeout=1).close()
    except OSError:
        return False
    return True
