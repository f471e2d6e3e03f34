"""The body of an inference request and of its answer: a JSON object, and behind it the tensors that are in binary.

By inference_rest.md of the Open Inference Protocol and the binary tensor data extension that Triton has added to it
(docs/protocol/extension_binary_data.md). Nothing that arrives is trusted, as in `open_inference.tensors`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
import numpy as np
from msgspec import Raw, Struct

# The rules of raw contents are those of gRPC.
from cloud_fallback.endpoint.request_parameters import refuse_extensions, timeout_s
from cloud_fallback.endpoint.rest.json_data import from_json, to_json
from cloud_fallback.open_inference.tensors import datatype, element_count, from_raw, raw_contents
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["InferenceBody", "decode_inference", "encode_inference"]

# Other values are refused rather than read: an empty list takes three bytes here, and twenty times that in memory.
_Parameters: TypeAlias = dict[str, bool | int | float | str | None]
# The largest JSON that is read. What it says may take ten times its size in memory, and a processor's whole attention.
_MAX_JSON_BYTES = 16 * 2**20


class _Input(Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: _Parameters | None = None
    data: Raw = Raw()


class _Output(Struct):
    name: str
    parameters: _Parameters | None = None


class _Request(Struct):
    inputs: list[_Input]
    id: str | None = None
    parameters: _Parameters | None = None
    outputs: list[_Output] | None = None


class _ResponseOutput(Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, int] | None = None
    data: Raw | None = None


class _Response(Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[_ResponseOutput]
    id: str = ""


_REQUEST = msgspec.json.Decoder(_Request)
_RESPONSE = msgspec.json.Encoder()


@dataclass(slots=True)
class InferenceBody:
    """What the body of a request says.

    Attributes:
        inputs: Its inputs; strings as object arrays of bytes.
        outputs: Names of the outputs wanted, or none for all.
        binary: Whether outputs go back as binary data: of each that says so, and of the others.
        id: What the caller calls the request.
        timeout_s: Seconds that the caller gives the request, or None.
    """

    inputs: dict[str, Array]
    outputs: list[str]
    binary: Callable[[str], bool]
    id: str = ""
    timeout_s: float | None = None


def decode_inference(
    body: bytes, json_size: int | None, describe: Callable[[], tuple[TensorSpec, ...]]
) -> InferenceBody:
    """What a request asks.

    Args:
        body: All of it, after content coding.
        json_size: Bytes of the JSON object, from the header Inference-Header-Content-Length; None for all of them, and
            0 for a body that is nothing but the one input's contents.
        describe: Tells what the model takes, which such a body does not say.

    Raises:
        HybridgeError: `input-invalid`, `input-dtype` or `input-shape` for what does not follow the specification;
            `message-too-large` for more JSON than is read.
    """
    if json_size == 0:
        return InferenceBody(_bare_input(body, describe()), [], lambda _: True)
    if json_size is not None and not 0 < json_size <= len(body):
        raise _invalid(
            "header Inference-Header-Content-Length",
            str(json_size),
            f"at most {len(body)}, the bytes that came",
        )
    request = _parsed(body if json_size is None else body[:json_size])
    tail = _Tail(body, len(body) if json_size is None else json_size)
    inputs: dict[str, Array] = {}
    for tensor in request.inputs:
        if tensor.name in inputs:
            raise _invalid(f"input '{tensor.name[:128]}'", "two tensors of this name", "one")
        inputs[tensor.name] = _decoded(tensor, tail)
    tail.refuse_rest()
    parameters = request.parameters or {}
    outputs = request.outputs or []
    for output in outputs:
        refuse_extensions(f"output '{output.name[:128]}'", output.parameters or {})
    by_default = _flag("request", parameters, "binary_data_output", default=False)
    binary = {
        output.name: _flag(
            f"output '{output.name[:128]}'", output.parameters or {}, "binary_data", default=by_default
        )
        for output in outputs
    }
    return InferenceBody(
        inputs,
        [output.name for output in outputs],
        lambda name: binary.get(name, by_default),
        request.id or "",
        timeout_s(parameters.get("timeout", 0)),
    )


def encode_inference(
    model: str,
    version: str,
    outputs: Mapping[str, Array],
    *,
    binary: Callable[[str], bool],
    request_id: str = "",
) -> tuple[bytes, int | None]:
    """An answer's body.

    Returns:
        The body, and the size of the JSON object in it, or None where it is all of it.

    Raises:
        HybridgeError: `input-invalid` for strings that JSON cannot hold, `input-dtype` for what cannot be sent.
    """
    tensors: list[_ResponseOutput] = []
    contents: list[Any] = []
    for name, array in outputs.items():
        tensor = _ResponseOutput(name, datatype(array.dtype), array.shape)
        if binary(name):
            content = raw_contents(name, array)
            contents.append(content)
            size = len(content) if isinstance(content, bytes) else content.nbytes
            tensor.parameters = {"binary_data_size": size}
        else:
            tensor.data = Raw(to_json(f"output '{name}'", array))
        tensors.append(tensor)
    head = _RESPONSE.encode(_Response(model, version, tensors, request_id))
    if not contents:
        return head, None
    return b"".join((head, *contents)), len(head)


class _Tail:
    """What follows the JSON object: the contents of the tensors in binary, in their order."""

    def __init__(self, body: bytes, start: int):
        self._body = body
        self._at = start

    def take(self, what: str, size: object) -> bytes:
        left = len(self._body) - self._at
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= left:
            raise _invalid(
                what,
                f"binary_data_size {str(size)[:32]}",
                f"at most {left}, the bytes left behind the JSON object of the size that "
                "Inference-Header-Content-Length says",
            )
        # A copy, which is aligned wherever it stood in the body.
        content = self._body[self._at : self._at + size]
        self._at += size
        return content

    def refuse_rest(self) -> None:
        if self._at != len(self._body):
            raise _invalid(
                "binary data",
                f"{len(self._body) - self._at} bytes more",
                "as many as the inputs' binary_data_size say",
            )


def _parsed(text: bytes) -> _Request:
    if len(text) > _MAX_JSON_BYTES:
        raise HybridgeError(
            ErrorCode.MESSAGE_TOO_LARGE,
            "JSON object in the body",
            received=f"{len(text)} bytes",
            expected=f"at most {_MAX_JSON_BYTES}",
            fix="send tensors as binary data",
        )
    try:
        return _REQUEST.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid("body", str(error), "the JSON object of an inference request") from error


def _decoded(tensor: _Input, tail: _Tail) -> Array:
    what = f"input '{tensor.name[:128]}'"
    parameters = tensor.parameters or {}
    refuse_extensions(what, parameters)
    shape = tuple(tensor.shape)
    count = element_count(what, tensor.datatype, shape)
    data = bytes(tensor.data)
    if ("binary_data_size" in parameters) == bool(data):
        raise _invalid(what, "both or neither", "either data, or the parameter binary_data_size and contents")
    if data:
        return from_json(what, tensor.datatype, shape, data)
    content = tail.take(what, parameters["binary_data_size"])
    return from_raw(what, tensor.datatype, count, content).reshape(shape)


def _bare_input(body: bytes, specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    """The one input that a body without JSON is the contents of, in the only shape that it can have."""
    if len(specs) != 1:
        raise _invalid("body without JSON", f"a model with {len(specs)} inputs", "a model with one")
    (spec,) = specs
    kind = datatype(spec.dtype)
    if kind == "BYTES":
        # One string, without its length.
        size = len(body).to_bytes(4, "little")
        return {spec.name: from_raw(spec.name, kind, 1, size + body).reshape([1] * len(spec.shape))}
    free = [axis for axis, size in enumerate(spec.shape) if isinstance(size, str)]
    # Of several, the first is the batch.
    ones = free[:1] if len(free) > 1 else []
    fixed = [1 if axis in ones else size for axis, size in enumerate(spec.shape)]
    known = math.prod(size for size in fixed if isinstance(size, int)) * np.dtype(spec.dtype).itemsize
    unknown = [size for size in fixed if isinstance(size, str)]
    if (
        len(unknown) > 1
        or (unknown and (not known or len(body) % known))
        or (not unknown and len(body) != known)
    ):
        raise _invalid(
            f"input '{spec.name}' as a body without JSON",
            f"{len(body)} bytes",
            f"what shape {spec.shape} holds",
        )
    shape = tuple(len(body) // known if isinstance(size, str) else size for size in fixed)
    return {spec.name: from_raw(spec.name, kind, math.prod(shape), body).reshape(shape)}


def _flag(what: str, parameters: Mapping[str, object], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise _invalid(f"parameter {name} of {what}", str(value)[:32], "true or false")
    return value


def _invalid(what: str, received: str, expected: str) -> HybridgeError:
    return HybridgeError(ErrorCode.INPUT_INVALID, what, received=received, expected=expected)
