"""MLServer's parts for clients against our endpoint: its gRPC stub, its converters, its codecs and its types."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from benchmarks.serving_vs_peers.server_process import free_port
from cloud_fallback import EndpointProcess
from edge_runtime import __version__
from tests.cloud_fallback.endpoint.rest_models import DTYPES
from tests.cloud_fallback.peers.client_models import ROWS, TOTALS, assert_total, sum_request
from tests.cloud_fallback.peers.conftest import OTHER_TOKEN, PEER_ENVIRONMENT, TOKEN, Served

pytestmark = pytest.mark.heavy

WIRES = ("typed", "raw", "json")
# The protocol has no typed contents for FP16, and BYTES are texts.
TYPES_OF_ARRAYS = [
    (each, wire) for each in DTYPES for wire in WIRES if each != "BYTES" and (each, wire) != ("FP16", "typed")
]
_CALLER = Path(__file__).with_name("runtimes") / "mlserver_caller.py"


class RefusedError(Exception):
    """What a call ended with: a gRPC status by name or an HTTP status, and why."""

    def __init__(self, status: str, details: str):
        super().__init__(f"{status}: {details}")
        self.status, self.details = status, details


class Caller:
    """`runtimes/mlserver_caller.py` in a process of its own; a call for each of its methods."""

    def __init__(self, python: Path, address: str, rest_address: str):
        # A file rather than a pipe: a full pipe would stop it.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            [python, _CALLER, address, rest_address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **PEER_ENVIRONMENT},
            text=True,
        )

    def __call__(self, call: str, /, *arguments: Any, **named: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([call, arguments, named]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise AssertionError(f"the caller has ended: {self._errors.read()[-4000:]}")
        answer = json.loads(line)
        if "status" in answer:
            raise RefusedError(answer["status"], answer["details"])
        return answer["result"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        with suppress(BrokenPipeError):
            self._process.communicate()
        self._errors.close()


@pytest.fixture(scope="module")
def call(mlserver_python: Path, served: Served) -> Iterator[Caller]:
    with Caller(mlserver_python, served.process.address, served.rest_address) as caller:
        yield caller


def test_the_endpoint_lives_and_says_what_it_is(call: Caller) -> None:
    assert call("health") == [True, True]
    said = call("server")
    assert (said["name"], said["version"]) == ("hybridge", __version__)
    assert "model_repository" in said["extensions"]


def test_a_models_metadata_is_the_same_over_both(call: Caller) -> None:
    over_grpc = call("metadata", "area")
    assert over_grpc == {
        "name": "area",
        "versions": ["1"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": each, "datatype": "FP64", "shape": [-1, 1]} for each in ("width", "height")],
        "outputs": [{"name": "area", "datatype": "FP64", "shape": [-1, 1]}],
    }
    assert call("rest", "/v2/models/area", "MetadataModelResponse")["said"] == over_grpc
    assert call("metadata", "area", "1") == over_grpc


def test_its_types_know_all_that_we_say(call: Caller) -> None:
    request = {"id": "i-1", **sum_request(ROWS[1])}
    for path, parsed_as, body in (
        ("/v2", "MetadataServerResponse", None),
        ("/v2/models/sums", "MetadataModelResponse", None),
        ("/v2/models/sums/versions/1", "MetadataModelResponse", None),
        ("/v2/models/sums/infer", "InferenceResponse", request),
        ("/v2/repository/index", "RepositoryIndexResponse", {}),
    ):
        answer = call("rest", path, parsed_as, body, "GET" if body is None else "POST")
        assert _within(answer["said"], answer["parsed"]), answer
    answer = call("rest", "/v2/models/sums/infer", "InferenceResponse", request, "POST")["parsed"]
    assert answer["id"] == "i-1"
    assert_total(answer, TOTALS[1])


def _within(said: Any, parsed: Any) -> bool:
    """Whether nothing of what was said is missing or another in what was parsed."""
    if isinstance(said, dict):
        return all(key in parsed and _within(value, parsed[key]) for key, value in said.items())
    if isinstance(said, list):
        return len(said) == len(parsed) and all(map(_within, said, parsed))
    return bool(said == parsed)


@pytest.mark.parametrize(("datatype", "wire"), TYPES_OF_ARRAYS)
def test_arrays_of_every_type_go_and_come(call: Caller, datatype: str, wire: str) -> None:
    dtype = np.dtype(DTYPES[datatype])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.array([[limits.max, limits.min], [1, limits.max - 1]], dtype)
    else:
        values = np.array([[0.1, 0], [1, 7.25]]).astype(dtype)
    got = call("numpy", f"twice-{datatype}", "items", DTYPES[datatype], values.tolist(), wire)
    expected = np.concatenate([values, values], axis=1)
    assert got == {"values": expected.tolist(), "dtype": dtype.name, "shape": [2, 4]}


@pytest.mark.parametrize("wire", WIRES)
def test_a_whole_request_is_made_of_an_array_and_its_answer_is_one(call: Caller, wire: str) -> None:
    got = call("numpy_request", "first", "float32", [[1.5, 2.5], [-3.5, 4.5], [0.25, 0]], wire)
    assert got == {"values": [[1.5], [-3.5], [0.25]], "dtype": "float32", "shape": [3, 1]}


def test_nan_comes_back_where_json_has_null(call: Caller) -> None:
    got = call("numpy", "twice-FP32", "items", "float32", [[float("nan"), 2.0]], "json")
    np.testing.assert_array_equal(got["values"], [[np.nan, 2.0, np.nan, 2.0]])


@pytest.mark.parametrize("wire", WIRES)
def test_texts_go_and_come(call: Caller, wire: str) -> None:
    texts = ["", "año", "日本\n", "a" * 300]
    got = call("strings", "label", "text", texts, wire)
    assert got == {"texts": [each for text in texts for each in (text, "!")], "shape": [4, 2]}


@pytest.mark.parametrize("wire", WIRES)
def test_columns_of_a_data_frame_are_inputs_and_outputs_are_columns(call: Caller, wire: str) -> None:
    got = call("frame", "area", {"width": [2.0, 0.5, 3.0], "height": [1.5, 4.0, -1.0]}, wire)
    assert got == {"area": [3.0, 2.0, -3.0]}


@pytest.mark.parametrize("wire", WIRES)
def test_an_id_comes_back_and_a_version_may_be_named(call: Caller, wire: str) -> None:
    answer = call("answer", "sums", sum_request(ROWS[1], request_id="año 1", named=True), wire, version="1")
    assert answer["id"] == "año 1"
    assert_total(answer, TOTALS[1])


@pytest.mark.parametrize("wire", WIRES)
def test_what_is_not_there_is_not_found(call: Caller, wire: str) -> None:
    not_found = "404" if wire == "json" else "NOT_FOUND"
    for model, version, said in (("letters", "", "letters"), ("sums", "7", "'7'")):
        with pytest.raises(RefusedError, match=said) as caught:
            call("answer", model, sum_request(ROWS[0]), wire, version=version)
        assert caught.value.status == not_found


@pytest.mark.parametrize("method", ["metadata", "ready", "load", "unload"])
def test_nothing_is_told_of_a_model_that_is_not_there(call: Caller, method: str) -> None:
    with pytest.raises(RefusedError, match="letters") as caught:
        call(method, "letters")
    assert caught.value.status == "NOT_FOUND"


@pytest.mark.parametrize("wire", WIRES)
def test_a_tensor_that_does_not_fit_is_refused_and_the_next_is_answered(call: Caller, wire: str) -> None:
    with pytest.raises(RefusedError, match=r"received shape \(1, 4\)") as caught:
        call("answer", "sums", sum_request([1, 2, 3, 4]), wire)
    assert caught.value.status == ("400" if wire == "json" else "INVALID_ARGUMENT")
    with pytest.raises(RefusedError, match="INT32") as caught:
        call("numpy", "sums", "row", "int64", [ROWS[0]], wire)
    assert caught.value.status == ("400" if wire == "json" else "INVALID_ARGUMENT")
    assert_total(call("answer", "sums", sum_request(ROWS[0]), wire), TOTALS[0])


@pytest.mark.parametrize("over", ["grpc", "rest"])
def test_a_model_is_unloaded_and_loaded_again(call: Caller, over: str) -> None:
    def state() -> tuple[str, str]:
        over_grpc = call("index")
        over_rest = call("rest", "/v2/repository/index", "RepositoryIndexResponse", {}, "POST")["parsed"]
        assert over_rest == over_grpc
        (own,) = [each for each in over_grpc if each["name"] == "spare"]
        assert {each["state"] for each in over_grpc if each is not own} == {"READY"}
        return own["state"], own["reason"]

    def change(verb: str, model: str = "spare") -> None:
        if over == "grpc":
            call(verb, model)
        else:
            call("post", f"/v2/repository/models/{model}/{verb}")

    assert state() == ("READY", "")
    change("unload")
    assert state() == ("UNAVAILABLE", "unloaded")
    for asked in (["answer", "spare", sum_request(ROWS[0]), "raw"], ["metadata", "spare"]):
        with pytest.raises(RefusedError, match="spare") as caught:
            call(*asked)
        assert caught.value.status == "NOT_FOUND"
    change("load")
    assert state() == ("READY", "")
    assert call("answer", "spare", sum_request(ROWS[0]), "raw")["outputs"][0]["data"] == [TOTALS[0]]
    with pytest.raises(RefusedError, match="letters"):
        change("load", "letters")


@pytest.mark.parametrize("wire", ["raw", "json"])
def test_the_stub_is_answered_with_the_right_token_only(
    mlserver_python: Path, client_models: Path, tokens: Path, wire: str
) -> None:
    port = free_port()
    unknown, not_permitted = ("401", "403") if wire == "json" else ("UNAUTHENTICATED", "PERMISSION_DENIED")
    with (
        EndpointProcess(
            [client_models], arguments=["--tokens", str(tokens), "--rest-port", str(port)]
        ) as process,
        Caller(mlserver_python, process.address, f"http://127.0.0.1:{port}") as caller,
    ):
        for token, status in (("", unknown), ("x" * 43, unknown), (OTHER_TOKEN, not_permitted)):
            with pytest.raises(RefusedError) as caught:
                caller("answer", "sums", sum_request(ROWS[0]), wire, token=token)
            assert caught.value.status == status
        assert_total(caller("answer", "sums", sum_request(ROWS[0]), wire, token=TOKEN), TOTALS[0])
