"""Why an endpoint is not asked, and what a person can do about it who may ask and whom to trust."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_runtime.errors import ErrorCode, HybridgeError

if TYPE_CHECKING:
    from cloud_fallback.client.client import CloudFallback

__all__ = ["access_advice", "refusal"]

_BY_CODE = {
    ErrorCode.UNAUTHENTICATED: "give a token that the endpoint knows: --token-file, or a chain's token_file",
    ErrorCode.NOT_PERMITTED: "ask for a model that the token is for, or have the endpoint's tokens name this one",
}
# What gRPC and BoringSSL call it.
_BY_WORDS = {
    "CERTIFICATE_VERIFY_FAILED": "trust the authority of the endpoint's certificate: --tls-ca, or ca in a chain's tls",
    "WRONG_VERSION_NUMBER": "the endpoint speaks without TLS: grpc:// in the URL",
    "Socket closed": "see whether the endpoint wants TLS: grpcs:// in the URL; or a certificate: --tls-cert, --tls-key",
    "Hostname Verification": "say what name the certificate has: --tls-server-name, or server_name in a chain's tls",
}


def access_advice(error: HybridgeError) -> str:
    """What to do about an error of a question; empty where it is not about who asks or who is asked."""
    if error.code is not ErrorCode.CLOUD_UNAVAILABLE:
        return _BY_CODE.get(error.code, "")
    return next((advice for words, advice in _BY_WORDS.items() if words in error.received), "")


def refusal(fallback: CloudFallback, *, deadline_s: float = 2.0) -> HybridgeError | None:
    """Why the endpoint cannot be asked now, as only a question is told; None where it is there and lets in."""
    try:
        fallback.ask({}, deadline_s)
    except HybridgeError as error:
        # What is there may well find fault with a question without inputs.
        return error if error.code is ErrorCode.CLOUD_UNAVAILABLE or access_advice(error) else None
    return None
