"""What a request may be made of, looked at in its bytes before any message is made of them.

Within the size of a message much more memory can be asked for: an empty tensor takes two bytes on the wire and some
two hundred in memory, and a typed element that Python reads one by one takes one byte and a tenth of a microsecond
with everybody else standing still. A request is a short head and the contents of its tensors, so both are bounded.
The encoding is that of Protocol Buffers (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["check_bounds"]

# Everything but contents: names, shapes, parameters, and two bytes or more for each field that there is. A message that
# is no larger is not looked at: what it can ask for does no harm.
_MAX_HEAD_BYTES = 256 * 2**10
# Elements in typed fields take that many bytes or more.
_MAX_TYPED_BYTES = 4 * 2**20

# Field numbers: of ModelInferRequest, InferInputTensor, and InferTensorContents.
_INPUTS, _RAW_CONTENTS = 5, 7
_CONTENTS = 5
_BYTES_CONTENTS = 8
# Wire types; groups are not used any more.
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}


def check_bounds(content: bytes) -> None:
    """Checks a serialised `ModelInferRequest`; what is no message at all is left to the parser.

    Raises:
        HybridgeError: `input-invalid` for one that has more than its tensors' contents and a short head;
            `message-too-large` for more typed contents than are read.
    """
    if len(content) > _MAX_HEAD_BYTES:
        try:
            _Budget(content).spend_request()
        except _MalformedError:
            return


class _MalformedError(Exception):
    """It is no message, as the parser will say."""


class _Budget:
    """What is left of both bounds, while a request is walked through."""

    def __init__(self, content: bytes):
        self._content = content
        self._head, self._typed = _MAX_HEAD_BYTES, _MAX_TYPED_BYTES

    def spend_request(self) -> None:
        at = 0
        while at < len(self._content):
            number, start, end = self._field(at)
            if number == _INPUTS:
                self._spend_tensor(start, end)
            elif number != _RAW_CONTENTS:
                self._spend_head(end - start)
            at = end

    def _spend_tensor(self, at: int, stop: int) -> None:
        while at < stop:
            number, start, end = self._field(at)
            if number == _CONTENTS:
                self._spend_contents(start, end)
            else:
                self._spend_head(end - start)
            at = end

    def _spend_contents(self, at: int, stop: int) -> None:
        while at < stop:
            number, start, end = self._field(at)
            # Strings are not taken apart: of them the number counts, and the field of each has paid for that.
            if number != _BYTES_CONTENTS:
                self._spend_typed(end - start)
            at = end

    def _field(self, at: int) -> tuple[int, int, int]:
        """The number of the field at `at`, and where its content starts and ends."""
        start, tag = self._varint(at)
        kind = tag & 7
        if kind == _DELIMITED:
            start, size = self._varint(start)
            end = start + size
        elif kind == _VARINT:
            end, _ = self._varint(start)
        elif kind in _FIXED_SIZES:
            end = start + _FIXED_SIZES[kind]
        else:
            raise _MalformedError
        if end > len(self._content):
            raise _MalformedError
        self._spend_head(start - at)
        return tag >> 3, start, end

    def _varint(self, at: int) -> tuple[int, int]:
        """Where the number at `at` ends, and the number."""
        number = 0
        for shift in range(0, 64, 7):
            if at >= len(self._content):
                raise _MalformedError
            byte = self._content[at]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return at, number
        raise _MalformedError

    def _spend_head(self, size: int) -> None:
        self._head -= size
        if self._head < 0:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                "request",
                received=f"more than {_MAX_HEAD_BYTES} bytes beside the contents of its tensors",
                expected="names, shapes and parameters in fewer",
                fix="send many strings as raw contents",
            )

    def _spend_typed(self, size: int) -> None:
        self._typed -= size
        if self._typed < 0:
            raise HybridgeError(
                ErrorCode.MESSAGE_TOO_LARGE,
                "request",
                received=f"more than {_MAX_TYPED_BYTES} bytes of typed contents",
                fix="send raw contents, which are read at once",
            )
