"""Messages that differ from an earlier one in their tensors' contents only, read without parsing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from google.protobuf.message import DecodeError

from cloud_fallback.open_inference.tensors import encode_size
from edge_runtime.tensor_spec import Array

__all__ = ["KnownHeads"]

_Facts = TypeVar("_Facts")

# Heads that are known at once, how long one may be, and how many with as many bytes in all.
_MAX_HEADS, _MAX_HEAD_BYTES, _MAX_ALIKE = 1024, 1024, 4


class _Tensor(NamedTuple):
    """Where the contents of a tensor are in a message, and what is before them: their tag and size."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    start: int
    end: int
    mark: bytes


class _Head(NamedTuple, Generic[_Facts]):
    """What is the same in all messages of one head."""

    size: int
    tensors: tuple[_Tensor, ...]
    facts: _Facts


class KnownHeads(Generic[_Facts]):
    """The heads of messages that were parsed; safe from many threads.

    A device asks about the same shapes again and again. Of a message whose raw contents come last, what is before them
    is kept. The next message that begins so and is as long has contents of the same sizes in the same places, as
    fields that follow each other are read one after the other (https://protobuf.dev/programming-guides/encoding).

    Args:
        message: Their type, of the protocol's two that have tensors.
        tag: The tag of its raw contents.
    """

    def __init__(self, message: Any, tag: bytes):
        self._message, self._tag = message, tag
        self._heads: dict[bytes, _Head[_Facts]] = {}
        # Where heads end in messages of so many bytes.
        self._ends: dict[int, tuple[int, ...]] = {}

    def read(self, content: bytes) -> tuple[_Facts, dict[str, Array]] | None:
        """What was kept of a message's head, and its tensors, which cannot be written to; or None.

        They are views of the message where their elements are in their places there, as not everything that runs models
        takes others.
        """
        for end in self._ends.get(len(content), ()):
            head = self._heads.get(content[:end])
            if head is not None and head.size == len(content):
                arrays = _arrays(head.tensors, content)
                if arrays is not None:
                    return head.facts, arrays
        return None

    def keep(self, content: bytes, arrays: Mapping[str, Array], raw: Sequence[bytes], facts: _Facts) -> None:
        """Keeps the head of a message, if others can be read by it.

        Args:
            content: The message.
            arrays: Its tensors, in order.
            raw: Its raw contents.
            facts: What is to be known of all messages with this head.
        """
        if not raw or any(array.dtype == object for array in arrays.values()):
            return
        tensors, end = [], len(content)
        for (name, array), entry in reversed(list(zip(arrays.items(), raw, strict=True))):
            mark = self._tag + encode_size(len(entry))
            start = end - len(entry)
            tensors.append(_Tensor(name, array.dtype, array.shape, start, end, mark))
            end = start - len(mark)
        if not 0 < end <= _MAX_HEAD_BYTES:
            return
        tensors.reverse()
        # What comes last must be the contents, and what is before must be whole fields without any.
        if _arrays(tensors, content) is None or not self._is_without_contents(content[:end]):
            return
        ends = self._ends.get(len(content), ())
        if end not in ends:
            if len(ends) >= _MAX_ALIKE:
                return
            ends = (*ends, end)
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
            self._ends.clear()
        self._heads[content[:end]] = _Head(len(content), tuple(tensors), facts)
        self._ends[len(content)] = ends

    def _is_without_contents(self, head: bytes) -> bool:
        try:
            message = self._message.FromString(head)
        except DecodeError:
            return False
        return not any(field.name.startswith("raw_") for field, _ in message.ListFields())


def _arrays(tensors: Sequence[_Tensor], content: bytes) -> dict[str, Array] | None:
    """The tensors of a message; None where other fields are between them."""
    arrays: dict[str, Array] = {}
    for name, dtype, shape, start, end, mark in tensors:
        if not content.startswith(mark, start - len(mark)):
            return None
        # An object of bytes begins where any element may.
        if start % dtype.itemsize:
            arrays[name] = np.ndarray(shape, dtype, content[start:end])
        else:
            arrays[name] = np.ndarray(shape, dtype, content, start)
    return arrays
