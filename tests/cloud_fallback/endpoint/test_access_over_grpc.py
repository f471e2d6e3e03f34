"""Who is let in over gRPC: decided from a call's metadata, before its message is read or a model hears of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from cloud_fallback import Endpoint, Repository
from cloud_fallback.endpoint.access import Access
from cloud_fallback.endpoint.data_plane import Inference, InferenceRequest
from cloud_fallback.endpoint.rate_limit import RateLimit
from cloud_fallback.endpoint.served import ServedModel
from cloud_fallback.endpoint.served.served_model import TimeLeft, no_limit
from cloud_fallback.endpoint.token_file import TokenFile, token_digest
from cloud_fallback.open_inference.open_inference_pb2 import (
    ModelInferRequest,
    ModelMetadataRequest,
    ModelReadyRequest,
    RepositoryIndexRequest,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
    ServerLiveRequest,
    ServerMetadataRequest,
    ServerReadyRequest,
)
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from cloud_fallback.open_inference.statuses import CODE_KEY, PUSHBACK_KEY
from cloud_fallback.open_inference.tensors import decode_response, encode_request
from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import TensorSpec
from tests.cloud_fallback.faults.fault_table import FaultTable

Array = np.ndarray[Any, Any]
INFER = "/inference.GRPCInferenceService/ModelInfer"
X = np.ones(3, np.float32)


class Recording:
    """A model that notes what reaches it, and takes as long as it is told."""

    version, platform = "1", "none"
    inputs = outputs = (TensorSpec("x", ("n",), "float32"),)

    def __init__(self, name: str, delay_s: float = 0.0):
        self.name, self.delay_s = name, delay_s
        self.seen: list[Mapping[str, Array]] = []

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:  # noqa: ARG002
        self.seen.append(inputs)
        time.sleep(self.delay_s)
        return {"x": inputs["x"]}


def _token(name: str) -> str:
    return f"{name}-token-".ljust(43, "x")


def _as(name: str | None) -> tuple[tuple[str, str], ...]:
    """A call's metadata with a client's token."""
    return () if name is None else (("authorization", f"Bearer {_token(name)}"),)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    path.write_text(
        f'[clients.asker]\ntoken_sha256 = ["{token_digest(_token("asker"))}"]\nmodels = ["open", "slow"]\n'
        f'[clients.keeper]\ntoken_sha256 = ["{token_digest(_token("keeper"))}"]\nscopes = ["admin"]\n'
        f'[clients.limited]\ntoken_sha256 = ["{token_digest(_token("limited"))}"]\n'
        "requests_per_second = 0.5\nburst = 2\n"
        f'[clients.heavy]\ntoken_sha256 = ["{token_digest(_token("heavy"))}"]\nbytes_per_second = 1000\n'
        f'[clients.former]\ntoken_sha256 = ["{token_digest(_token("former"))}"]\nexpires = 2020-01-01T00:00:00Z\n'
    )
    return path


@pytest.fixture
def models() -> dict[str, Recording]:
    return {name: Recording(name, delay_s) for name, delay_s in (("open", 0), ("secret", 0), ("slow", 0.5))}


@pytest.fixture
def endpoint(tokens: Path, models: dict[str, Recording]) -> Iterator[Endpoint]:
    served: list[ServedModel] = list(models.values())
    with Endpoint(Repository(served), access=Access(TokenFile(tokens))) as endpoint:
        yield endpoint


@pytest.fixture
def channel(endpoint: Endpoint) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(endpoint.address) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(channel)


def _ended(call: Any, *arguments: Any, **options: Any) -> tuple[grpc.StatusCode, str | None]:
    """Status and hybridge code of a call."""
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        return error.code(), dict(error.trailing_metadata()).get(CODE_KEY)
    return grpc.StatusCode.OK, None


UNAUTHENTICATED = (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")
NOT_PERMITTED = (grpc.StatusCode.PERMISSION_DENIED, "not-permitted")
OK = (grpc.StatusCode.OK, None)


def test_a_request_without_a_good_token_never_reaches_a_model(
    stub: GRPCInferenceServiceStub, models: dict[str, Recording], fault_table: FaultTable
) -> None:
    request = encode_request("open", {"x": X})
    for metadata in (
        _as(None),
        _as("stranger"),
        _as("former"),
        (("authorization", _token("asker")),),
        (("authorization", f"Basic {_token('asker')}"),),
        (("x-token", _token("asker")),),
        # The last one counts, so that nobody hides one behind another.
        (*_as("asker"), *_as("stranger")),
    ):
        assert _ended(stub.ModelInfer, request, metadata=metadata) == UNAUTHENTICATED
    assert models["open"].seen == []
    response = stub.ModelInfer(request, metadata=_as("asker"))
    np.testing.assert_array_equal(decode_response(response)["x"], X)
    assert len(models["open"].seen) == 1
    fault_table(
        "requests without a token, with a wrong one, or with one that has expired",
        "UNAUTHENTICATED; no model heard of them",
    )


def test_a_call_is_refused_before_its_message_has_come(
    channel: grpc.Channel, fault_table: FaultTable
) -> None:
    infer = channel.stream_unary(INFER)
    is_over = threading.Event()

    def messages() -> Iterator[bytes]:
        # Never one; the call is refused all the same.
        is_over.wait(10)
        yield b"late"

    start = time.monotonic()
    assert _ended(infer, messages(), metadata=_as("stranger")) == UNAUTHENTICATED
    assert time.monotonic() - start < 5
    is_over.set()
    fault_table("a caller without a good token that sends no message", "refused without waiting for it")


def test_rubbish_without_a_token_is_not_even_parsed(channel: grpc.Channel) -> None:
    infer = channel.unary_unary(INFER)
    assert _ended(infer, b"\xff" * 1000) == UNAUTHENTICATED
    assert _ended(infer, b"\xff" * 1000, metadata=_as("asker")) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "input-invalid",
    )


@pytest.mark.parametrize(
    ("client", "infers", "administers"),
    [
        (None, UNAUTHENTICATED, UNAUTHENTICATED),
        ("asker", OK, NOT_PERMITTED),
        ("keeper", NOT_PERMITTED, OK),
    ],
)
def test_every_method_has_its_scope(
    stub: GRPCInferenceServiceStub,
    client: str | None,
    infers: tuple[grpc.StatusCode, str | None],
    administers: tuple[grpc.StatusCode, str | None],
) -> None:
    metadata = _as(client)
    inferring: list[tuple[Any, Any]] = [
        (stub.ServerMetadata, ServerMetadataRequest()),
        (stub.ModelMetadata, ModelMetadataRequest(name="open")),
        (stub.ModelReady, ModelReadyRequest(name="open")),
        (stub.ModelInfer, encode_request("open", {"x": X})),
    ]
    for call, request in inferring:
        assert _ended(call, request, metadata=metadata) == infers, call
    assert _ended(stub.RepositoryIndex, RepositoryIndexRequest(), metadata=metadata) == administers
    unload = RepositoryModelUnloadRequest(model_name="open")
    assert _ended(stub.RepositoryModelUnload, unload, metadata=metadata) == administers
    load = _ended(stub.RepositoryModelLoad, RepositoryModelLoadRequest(model_name="open"), metadata=metadata)
    # It was made in a program, and cannot be loaded again.
    assert load == ((grpc.StatusCode.NOT_FOUND, "model-unknown") if client == "keeper" else administers)


def test_whether_it_lives_is_told_to_anybody_and_what_it_serves_is_not(
    stub: GRPCInferenceServiceStub, channel: grpc.Channel
) -> None:
    assert stub.ServerLive(ServerLiveRequest()).live
    assert stub.ServerReady(ServerReadyRequest()).ready
    health = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    assert health.Check(health_pb2.HealthCheckRequest()).status == serving
    watch = health.Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == serving
    watch.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        ProtoReflectionDescriptorDatabase(channel).get_services()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_reflection_answers_who_may_infer(endpoint: Endpoint) -> None:
    class WithToken(grpc.StreamStreamClientInterceptor):  # type: ignore[misc]
        def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
            return continuation(details._replace(metadata=_as("asker")), requests)

    with grpc.insecure_channel(endpoint.address) as channel:
        database = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, WithToken()))
        assert "inference.GRPCInferenceService" in database.get_services()


def test_a_client_is_told_of_its_own_models_only(
    stub: GRPCInferenceServiceStub, models: dict[str, Recording]
) -> None:
    metadata = _as("asker")
    for call, request in (
        (stub.ModelInfer, encode_request("secret", {"x": X})),
        (stub.ModelInfer, encode_request("none", {"x": X})),
        (stub.ModelReady, ModelReadyRequest(name="secret")),
        (stub.ModelMetadata, ModelMetadataRequest(name="secret")),
    ):
        assert _ended(call, request, metadata=metadata) == NOT_PERMITTED
    assert models["secret"].seen == []


def test_the_data_plane_hears_who_asks(endpoint: Endpoint, stub: GRPCInferenceServiceStub) -> None:
    clients: list[str] = []
    infer = endpoint.data_plane.infer

    def noting(request: InferenceRequest) -> Inference:
        clients.append(request.client)
        return infer(request)

    endpoint.data_plane.infer = noting  # type: ignore[method-assign]
    for name in ("asker", "limited"):
        stub.ModelInfer(encode_request("open", {"x": X}), metadata=_as(name))
    assert clients == ["asker", "limited"]


def test_a_revoked_token_ends_with_the_calls_that_are_under_way(
    stub: GRPCInferenceServiceStub, tokens: Path, fault_table: FaultTable
) -> None:
    request = encode_request("slow", {"x": X})
    under_way = stub.ModelInfer.future(request, metadata=_as("asker"))
    time.sleep(0.1)
    tokens.write_text("")
    assert under_way.code() is grpc.StatusCode.OK
    start = time.monotonic()
    while _ended(stub.ServerMetadata, ServerMetadataRequest(), metadata=_as("asker")) == OK:
        assert time.monotonic() - start < 1.0, "still let in after a second"
    assert _ended(stub.ModelInfer, request, metadata=_as("asker")) == UNAUTHENTICATED
    fault_table(
        "a token is revoked while its client asks", "what was under way was answered; refused within a second"
    )


def test_a_client_over_its_rate_is_told_when_to_come_again_and_others_are_not_held_up(
    stub: GRPCInferenceServiceStub, models: dict[str, Recording], fault_table: FaultTable
) -> None:
    request = encode_request("open", {"x": X})
    calls = [stub.ModelInfer.future(request, metadata=_as("limited")) for _ in range(20)]
    codes = [call.code() for call in calls]
    assert codes.count(grpc.StatusCode.OK) == 2
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    refused = next(call for call in calls if call.code() is not grpc.StatusCode.OK)
    trailing = dict(refused.trailing_metadata())
    assert trailing[CODE_KEY] == ErrorCode.CLOUD_OVERLOADED
    assert 1000 < int(trailing[PUSHBACK_KEY]) <= 2000
    assert len(models["open"].seen) == 2
    assert _ended(stub.ModelInfer, request, metadata=_as("asker")) == OK
    fault_table(
        "a client asks ten times as often as it may", "told when to come again; others answered at once"
    )


def test_bytes_that_were_sent_count(stub: GRPCInferenceServiceStub) -> None:
    large = encode_request("open", {"x": np.zeros(10_000, np.float32)})
    small = encode_request("open", {"x": X})
    assert _ended(stub.ModelInfer, large, metadata=_as("heavy")) == OK
    assert _ended(stub.ModelInfer, small, metadata=_as("heavy")) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "cloud-overloaded",
    )


def test_an_open_endpoint_can_have_a_rate_for_each_address(models: dict[str, Recording]) -> None:
    limited = Access(limit=RateLimit(requests_per_second=0.1, burst=3))
    with (
        Endpoint(Repository([models["open"]]), access=limited) as endpoint,
        grpc.insecure_channel(endpoint.address) as channel,
        ThreadPoolExecutor(8) as pool,
    ):
        stub = GRPCInferenceServiceStub(channel)
        request = encode_request("open", {"x": X})
        ended = list(pool.map(lambda _: _ended(stub.ModelInfer, request), range(8)))
        assert ended.count(OK) == 3
        assert stub.ServerLive(ServerLiveRequest()).live


def test_tokens_in_clear_are_for_this_machine_unless_said_otherwise(
    tokens: Path, models: dict[str, Recording]
) -> None:
    access, repository = Access(TokenFile(tokens)), Repository([models["open"]])
    with pytest.raises(HybridgeError, match="--tls-cert") as caught:
        Endpoint(repository, host="0.0.0.0", access=access)
    assert caught.value.code is ErrorCode.USAGE
    with (
        Endpoint(repository, host="0.0.0.0", access=access, tokens_in_clear=True) as endpoint,
        grpc.insecure_channel(f"127.0.0.1:{endpoint.port}") as channel,
    ):
        response = GRPCInferenceServiceStub(channel).ModelInfer(
            encode_request("open", {"x": X}), metadata=_as("asker")
        )
        assert response.model_name == "open"


def test_a_call_of_one_message_takes_no_notice_of_more(channel: grpc.Channel) -> None:
    infer = channel.stream_unary(INFER)
    request = encode_request("open", {"x": X}).SerializeToString()
    assert infer(iter([request] * 5), metadata=_as("asker"))
    assert _ended(infer, iter([]), metadata=_as("asker")) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "input-invalid",
    )
    assert ModelInferRequest.FromString(request).model_name == "open"


def test_a_method_that_there_is_not_is_unimplemented(channel: grpc.Channel) -> None:
    for method in ("/inference.GRPCInferenceService/Delete", "/nothing/At", "/grpc.health.v1.Health/List"):
        call = channel.unary_unary(method)
        assert _ended(call, b"")[0] in (
            grpc.StatusCode.UNIMPLEMENTED,
            grpc.StatusCode.UNAUTHENTICATED,
        )
