"""One question to the cloud: the inputs by the endpoint's names, and the request, which is made when it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from cloud_fallback.client.payload import Declared, Payload
from cloud_fallback.open_inference.tensors import serialize_request
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["Question", "QuestionForm", "digest"]

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class QuestionForm:
    """What is the same in all questions of a fallback.

    Attributes:
        model: The model's name.
        version: Its version, or empty.
        payload: In which form inputs are sent.
        max_bytes: Size of the largest request.
    """

    model: str
    version: str
    payload: Payload
    max_bytes: int


class Question:
    """What is asked of a model.

    Args:
        form: What other questions have in common with it.
        inputs: Arrays by the endpoint's names.
        outputs: Names of the outputs that are wanted, or none for all.
        declared: What the model says that it takes.
    """

    __slots__ = ("_declared", "_form", "_inputs", "_request", "bytes_saved", "outputs")

    def __init__(
        self, form: QuestionForm, inputs: Mapping[str, Array], outputs: tuple[str, ...], declared: Declared
    ):
        self.outputs = outputs
        self._form = form
        self._inputs = inputs
        self._declared = declared
        self._request: bytes | None = None
        self.bytes_saved = 0

    def request(self) -> bytes:
        """The serialised `ModelInferRequest`, made once.

        Raises:
            HybridgeError: `message-too-large`; `input-dtype` and others for inputs that cannot be sent.
        """
        if self._request is None:
            form = self._form
            sent = form.payload.shrink(self._inputs, self._declared)
            request = serialize_request(form.model, sent, version=form.version, outputs=self.outputs)
            if len(request) > form.max_bytes:
                raise HybridgeError(
                    ErrorCode.MESSAGE_TOO_LARGE,
                    f"request for model '{form.model}'",
                    received=f"{len(request)} bytes",
                    expected=f"at most {form.max_bytes}",
                    fix="send less, or raise max_message_bytes here and at the endpoint",
                )
            if sent is not self._inputs:
                self.bytes_saved = sum(
                    array.nbytes - _size(sent[name])
                    for name, array in self._inputs.items()
                    if sent[name] is not array
                )
            self._request = request
        return self._request

    def size(self) -> int:
        """Bytes of the request."""
        return len(self.request())

    def digest(self) -> bytes:
        """Tells it from questions with other inputs."""
        return digest(self._inputs)


def digest(inputs: Mapping[str, Array]) -> bytes:
    """What tells inputs from others: 16 bytes of BLAKE2b over their names, types, shapes and contents.

    Raises:
        HybridgeError: `input-dtype` for an array of objects other than strings and bytes.
    """
    content = blake2b(digest_size=_DIGEST_BYTES)
    for name in sorted(inputs):
        array = inputs[name]
        if array.dtype.kind in "OSU":
            # Strings are the same when they are sent as the same.
            content.update(serialize_request("", {name: array}))
            continue
        # Lengths first: nothing that is put together differently reads the same.
        head = repr((name, array.dtype.str, array.shape)).encode()
        content.update(len(head).to_bytes(4, "little") + head)
        content.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return content.digest()


def _size(array: Array) -> int:
    return array.nbytes if array.dtype.kind != "O" else sum(map(len, array.ravel().tolist()))
