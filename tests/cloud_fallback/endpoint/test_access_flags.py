"""The flags of `hybridge serve` that say who may ask, on a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from cloud_fallback import CloudFallback, EndpointProcess
from cloud_fallback.client.tls import Tls
from cloud_fallback.endpoint.security_flags import Security
from cloud_fallback.endpoint.token_file import token_digest
from cloud_fallback.open_inference.open_inference_pb2 import RepositoryIndexRequest
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from edge_runtime import ErrorCode, HybridgeError
from tests.cloud_fallback.client.certificates import Authority
from tests.cloud_fallback.onnx_models import LINEAR_WEIGHTS

X = np.ones((1, 3), np.float32)
TOKEN = "token-of-a-device-" + "t" * 25
NONE: dict[str, Any] = {
    "tls_cert": None,
    "tls_key": None,
    "client_ca": None,
    "tokens": None,
    "tokens_in_clear": False,
    "requests_per_second": None,
    "bytes_per_second": None,
}


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    path.write_text(f'[clients.device]\ntoken_sha256 = ["{token_digest(TOKEN)}"]\nmodels = ["linear"]\n')
    return path


def test_a_device_with_a_token_is_answered_over_tls_and_nothing_of_it_is_logged(
    onnx_models: Path, tmp_path: Path, tokens: Path
) -> None:
    authority = Authority.create(tmp_path)
    cert, key = authority.sign("server", ["127.0.0.1"])
    good, wrong = tmp_path / "device.token", tmp_path / "wrong.token"
    good.write_text(TOKEN)
    wrong.write_text("wrong-" + TOKEN)
    arguments = ["--tls-cert", str(cert), "--tls-key", str(key), "--tokens", str(tokens)]
    with EndpointProcess([onnx_models], arguments=[*arguments, "--requests-per-second", "50"]) as process:
        options: dict[str, Any] = {"tls": Tls(ca=str(authority.ca)), "deadline_s": 10.0}
        with CloudFallback(process.address, model="linear", token_file=good, **options) as client:
            np.testing.assert_array_equal(client.infer({"x": X})["y"], X @ LINEAR_WEIGHTS)
        for model, file, code in (
            ("linear", wrong, ErrorCode.UNAUTHENTICATED),
            ("doubles", good, ErrorCode.NOT_PERMITTED),
        ):
            with CloudFallback(process.address, model=model, token_file=file, **options) as client:
                with pytest.raises(HybridgeError) as caught:
                    client.infer({"x": X})
                assert caught.value.code is code
        credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes())
        with grpc.secure_channel(process.address, credentials) as channel:
            call = GRPCInferenceServiceStub(channel).RepositoryIndex.future(
                RepositoryIndexRequest(), metadata=(("authorization", f"Bearer {TOKEN}"),)
            )
            assert call.code() is grpc.StatusCode.PERMISSION_DENIED
        process._log.seek(0)
        log = process._log.read().decode()
    assert "refused" in log
    assert TOKEN not in log
    assert token_digest(TOKEN) not in log


def test_tokens_in_clear_for_other_machines_end_it_with_what_to_do(onnx_models: Path, tokens: Path) -> None:
    with pytest.raises(HybridgeError, match="--tls-cert") as caught:
        EndpointProcess(
            [onnx_models / "linear.onnx"], arguments=["--host", "0.0.0.0", "--tokens", str(tokens)]
        )
    assert caught.value.code is ErrorCode.USAGE


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ({"tls_cert": "cert.pem"}, ErrorCode.USAGE),
        ({"tls_key": "key.pem"}, ErrorCode.USAGE),
        ({"client_ca": "ca.pem"}, ErrorCode.USAGE),
        ({"tls_cert": "cert.pem", "tls_key": "key.pem"}, ErrorCode.CREDENTIALS_INVALID),
        ({"tokens": "none.toml"}, ErrorCode.CREDENTIALS_INVALID),
    ],
)
def test_flags_that_do_not_go_together_and_files_that_are_not_there_are_told(
    flags: dict[str, str], code: ErrorCode
) -> None:
    with pytest.raises(HybridgeError) as caught:
        Security.of(**NONE | flags)
    assert caught.value.code is code


def test_without_flags_it_is_open_and_in_clear() -> None:
    security = Security.of(**NONE)
    assert security.tls is None
    assert security.access.admit(None, "infer", lambda: "192.0.2.1:80") == ""
