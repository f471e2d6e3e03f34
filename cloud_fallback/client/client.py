"""The client that a chain uses when the device is unsure: asks an endpoint, and never makes the device wait for it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import grpc
import numpy as np

from cloud_fallback.client.connection import Connection
from cloud_fallback.open_inference.tensors import decode_response, encode_request
from cloud_fallback.policy import Action, Link, OffloadPolicy, Policy
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.fallback import Answer, Query
from edge_runtime.prediction import Reason, Source
from edge_runtime.tensor_spec import Array

__all__ = ["CloudFallback"]

_REASONS = {
    ErrorCode.CLOUD_UNAVAILABLE: Reason.CLOUD_UNAVAILABLE,
    ErrorCode.CLOUD_DEADLINE: Reason.CLOUD_DEADLINE,
    ErrorCode.MESSAGE_TOO_LARGE: Reason.MESSAGE_TOO_LARGE,
}
_SETTINGS = ("deadline_ms", "threshold", "max_message_mb")


class CloudFallback:
    """Asks a model behind an Open Inference Protocol endpoint: ours, KServe, Triton, OpenVINO Model Server or MLServer.

    The connection is made by the first question and kept; calls come from any thread. A process that forks does so
    before the first question: gRPC's threads do not survive a fork, so the child's questions keep the device's answer.

    Args:
        target: The endpoint, as ``host:port`` or another gRPC name.
        model: Name of the model there.
        model_version: Its version, or empty for the endpoint to choose.
        deadline_s: Seconds that an answer may take; a query's own deadline may be nearer.
        policy: When to ask. By default, when the confidence is below the threshold of the bundle or chain.
        inputs: The endpoint's name for each input of the stage that is sent. By default all are, by their own names.
        outputs: The stage's name for each of the endpoint's outputs. By default those of the stage's own names.
        max_message_bytes: Size of the largest request and response.
        credentials: For a connection with TLS, from `grpc.ssl_channel_credentials`.

    Example:
        >>> with CloudFallback("cloud.example:8001", model="digits-large", deadline_s=0.1) as fallback:
        ...     chain = Chain.from_bundle("digits-1.0.edge", fallback=fallback)
        ...     chain.run({"image": image}).source
        <Source.CLOUD: 'cloud'>
    """

    def __init__(
        self,
        target: str,
        *,
        model: str,
        model_version: str = "",
        deadline_s: float = 0.2,
        policy: Policy | None = None,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        max_message_bytes: int = 64 * 2**20,
        credentials: grpc.ChannelCredentials | None = None,
    ):
        if not 0 < deadline_s < math.inf or max_message_bytes < 1:
            raise HybridgeError(
                ErrorCode.USAGE,
                f"fallback to {target}",
                received=f"a deadline of {deadline_s} s and messages of up to {max_message_bytes} bytes",
                expected="both more than 0, and a deadline that ends",
            )
        self.target = target
        self.model = model
        self.model_version = model_version
        self.deadline_s = deadline_s
        self.policy: Policy = OffloadPolicy() if policy is None else policy
        self._input_names = inputs
        self._output_names = {stage: cloud for cloud, stage in (outputs or {}).items()}
        self._max_message_bytes = max_message_bytes
        self._connection = Connection(target, max_message_bytes, credentials)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> CloudFallback:
        """A fallback for ``grpc://host:port/model[/version][?deadline_ms=100&threshold=0.8&max_message_mb=64]``.

        Args:
            url: Where the model is, and settings.
            **options: Arguments of the class, which come before those of the URL.

        Raises:
            HybridgeError: `fallback-unknown` for a URL of another form.
        """
        try:
            target, path, settings = _parsed(url)
        except ValueError as error:
            raise HybridgeError(
                ErrorCode.FALLBACK_UNKNOWN,
                "fallback",
                received=f"'{url}' ({error})",
                expected="grpc://host:port/model[/version][?deadline_ms=100&threshold=0.8&max_message_mb=64]",
            ) from error
        given: dict[str, Any] = dict(zip(("model", "model_version"), path, strict=False))
        if "deadline_ms" in settings:
            given["deadline_s"] = settings["deadline_ms"] / 1e3
        if "threshold" in settings:
            given["policy"] = OffloadPolicy(settings["threshold"])
        if "max_message_mb" in settings:
            given["max_message_bytes"] = int(settings["max_message_mb"] * 2**20)
        return cls(target, **(given | options))

    def resolve(self, query: Query) -> Answer:
        """Asks when the policy says so; keeps the device's answer, with the reason, when the cloud does not deliver.

        An answer counts when it has every output of the stage, of the shape that the device's own has and without
        NaN or infinity; its numbers come in the device's types, its strings as text where the device's are.
        """
        decision = self.policy.judge(query)
        if decision.action is not Action.ASK:
            return Answer.keep(decision.reason)
        deadline = time.monotonic() + self.deadline_s
        if query.deadline is not None:
            deadline = min(deadline, query.deadline)
        decision = self.policy.admit(query, Link(None, None, deadline - time.monotonic(), lambda: 0))
        if decision.action is not Action.ASK:
            return Answer.keep(decision.reason, refused=decision.action is Action.REFUSE)
        names = {stage: self._output_names.get(stage, stage) for stage in query.outputs}
        try:
            answered = self._ask(self._renamed(query.inputs), tuple(names.values()), deadline)
            outputs = {
                stage: self._checked(names[stage], answered[names[stage]], own)
                for stage, own in query.outputs.items()
            }
        except HybridgeError as error:
            return Answer.keep(_REASONS.get(error.code, Reason.CLOUD_REFUSED), error.message)
        return Answer(outputs, Source.CLOUD, decision.reason)

    def infer(self, inputs: Mapping[str, Array], deadline_s: float | None = None) -> dict[str, Array]:
        """Asks in any case, with the endpoint's own names, and says what went wrong if something did.

        Args:
            inputs: An array for each of the model's inputs.
            deadline_s: Seconds that the answer may take, in place of the fallback's own.

        Returns:
            An array for each of the model's outputs.

        Raises:
            HybridgeError: `cloud-unavailable`, `cloud-deadline`, `message-too-large`, `model-unknown`, or
                `cloud-refused` for every other refusal and for a response that does not follow the protocol;
                `input-dtype` for an array that cannot be sent.
        """
        seconds = self.deadline_s if deadline_s is None else deadline_s
        answered = self._ask(inputs, (), time.monotonic() + seconds)
        # What was decoded is a view of the message; the caller gets arrays of their own.
        return {name: array.copy() for name, array in answered.items()}

    def close(self) -> None:
        """Ends the connection; calls under way and later ones keep the device's answer."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _renamed(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if self._input_names is None:
            return inputs
        if missing := self._input_names.keys() - inputs.keys():
            raise HybridgeError(
                ErrorCode.INPUT_MISSING,
                f"inputs for model '{self.model}' at {self.target}",
                received=", ".join(inputs) or "none",
                expected=", ".join(self._input_names),
                fix=f"give the stage {', '.join(sorted(missing))}, or change the fallback's inputs",
            )
        return {cloud: inputs[stage] for stage, cloud in self._input_names.items()}

    def _ask(
        self, inputs: Mapping[str, Array], outputs: tuple[str, ...], deadline: float
    ) -> dict[str, Array]:
        request = encode_request(self.model, inputs, version=self.model_version, outputs=outputs)
        if request.ByteSize() > self._max_message_bytes:
            raise HybridgeError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"request for model '{self.model}' at {self.target}",
                received=f"{request.ByteSize()} bytes",
                expected=f"at most {self._max_message_bytes}",
                fix="send less, or raise max_message_bytes here and at the endpoint",
            )
        response = self._connection.infer(request, deadline - time.monotonic())
        try:
            arrays = decode_response(response)
        except HybridgeError as error:
            raise self._refused(f"a malformed message: {error.message}") from error
        if missing := [name for name in outputs if name not in arrays]:
            raise self._refused(f"no output {', '.join(missing)}")
        return arrays

    def _checked(self, name: str, array: Array, own: Array) -> Array:
        """A copy of a cloud's output in the type of the device's own, refused where it cannot stand for that."""
        if array.shape != own.shape:
            raise self._refused(f"output '{name}' of shape {array.shape}", f"shape {own.shape}")
        if own.dtype.kind == "U":
            return self._text(name, array)
        if array.dtype == own.dtype:
            cast = array.copy()
        elif np.can_cast(array.dtype, own.dtype, "same_kind"):
            # What does not fit becomes infinite or another number, and is refused below.
            with np.errstate(over="ignore"):
                cast = array.astype(own.dtype)
            if cast.dtype.kind in "iu" and not np.array_equal(cast, array):
                raise self._refused(f"output '{name}' with values that do not fit", str(own.dtype))
        else:
            raise self._refused(f"output '{name}' of {array.dtype}", str(own.dtype))
        if cast.dtype.kind == "f" and not np.isfinite(cast).all():
            raise self._refused(f"output '{name}' with values that are not finite", f"finite {own.dtype}")
        return cast

    def _text(self, name: str, array: Array) -> Array:
        """Text of strings, which come as bytes."""
        if array.dtype.kind != "O":
            raise self._refused(f"output '{name}' of {array.dtype}", "strings")
        try:
            texts = [element.decode() for element in array.ravel().tolist()]
        except UnicodeDecodeError as error:
            raise self._refused(f"output '{name}': {error}", "strings in UTF-8") from error
        return np.array(texts, np.str_).reshape(array.shape)

    def _refused(self, received: str, expected: str = "") -> HybridgeError:
        return HybridgeError(
            ErrorCode.CLOUD_REFUSED,
            f"answer of model '{self.model}' at {self.target}",
            received=received,
            expected=expected,
        )


def _parsed(url: str) -> tuple[str, list[str], dict[str, float]]:
    """Target, model and version, and settings of a URL; a `ValueError` says what is wrong with it."""
    parts = urlsplit(url)
    if parts.scheme != "grpc" or parts.fragment or parts.username is not None:
        raise ValueError("the scheme is not grpc, or there is a user or a fragment")
    if not parts.hostname or not parts.port:
        raise ValueError("no host or no port")
    path = [unquote(part) for part in parts.path.split("/")[1:]]
    if len(path) not in (1, 2) or not all(path):
        raise ValueError("the path is not a model, or a model and a version")
    settings = {
        name: float(value) for name, value in parse_qsl(parts.query, strict_parsing=bool(parts.query))
    }
    if unknown := sorted(settings.keys() - set(_SETTINGS)):
        raise ValueError(f"unknown setting {', '.join(unknown)}")
    if not all(map(math.isfinite, settings.values())):
        raise ValueError("a setting is not finite")
    return parts.netloc, path, settings
