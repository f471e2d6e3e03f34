"""Whether a `.tflite` file is a sound flatbuffer, for an interpreter that does not look before it reads.

LiteRT verifies a file before it builds a model from it. tflite-runtime does not: of the lengths that a file can be
truncated to, most end the process with a segmentation fault, and some first take all memory that there is.

Sources: the FlatBuffers format (https://flatbuffers.dev/internals/), and the field numbers of the TFLite schema.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["find_damage"]


class _Vector(NamedTuple):
    """A vector of scalars so many bytes wide; a string is one of bytes."""

    width: int


class _Tables(NamedTuple):
    """A vector of tables of one kind."""

    kind: str


class _Union(NamedTuple):
    """A table whose kind is the number in the field before it; kinds that hold scalars alone are not listed."""

    kinds: Mapping[int, str]


_TEXT, _BYTES, _INTS, _FLOATS, _LONGS = _Vector(1), _Vector(1), _Vector(4), _Vector(4), _Vector(8)
_INDICES = _Union({1: "Int32Vector", 2: "Uint16Vector", 3: "Uint8Vector"})

# By table and field number, what is not a scalar: a vector, a table (its kind), tables, or a union.
_SCHEMA: dict[str, dict[int, _Vector | _Tables | _Union | str]] = {
    "Model": {
        1: _Tables("OperatorCode"), 2: _Tables("SubGraph"), 3: _TEXT, 4: _Tables("Buffer"), 5: _INTS,
        6: _Tables("Metadata"), 7: _Tables("SignatureDef"),
    },
    "OperatorCode": {1: _TEXT},
    "SubGraph": {0: _Tables("Tensor"), 1: _INTS, 2: _INTS, 3: _Tables("Operator"), 4: _TEXT},
    "Tensor": {
        0: _INTS, 3: _TEXT, 4: "QuantizationParameters", 6: "SparsityParameters", 7: _INTS,
        9: _Tables("VariantSubType"),
    },
    "VariantSubType": {0: _INTS},
    "QuantizationParameters": {
        0: _FLOATS, 1: _FLOATS, 2: _FLOATS, 3: _LONGS, 5: _Union({1: "CustomQuantization"}),
    },
    "CustomQuantization": {0: _BYTES},
    "SparsityParameters": {0: _INTS, 1: _INTS, 2: _Tables("DimensionMetadata")},
    "DimensionMetadata": {3: _INDICES, 5: _INDICES},
    "Int32Vector": {0: _INTS},
    "Uint16Vector": {0: _Vector(2)},
    "Uint8Vector": {0: _BYTES},
    "Operator": {
        1: _INTS, 2: _INTS, 5: _BYTES, 7: _Vector(1), 8: _INTS,
        4: _Union({3: "ConcatEmbeddings", 17: "Shape", 30: "Shape", 111: "VarHandle", 115: "Bucketize"}),
    },
    "ConcatEmbeddings": {1: _INTS, 2: _INTS},
    "Shape": {0: _INTS},
    "VarHandle": {0: _TEXT, 1: _TEXT},
    "Bucketize": {0: _FLOATS},
    "Buffer": {0: _BYTES},
    "Metadata": {0: _TEXT},
    "SignatureDef": {0: _Tables("TensorMap"), 1: _Tables("TensorMap"), 2: _TEXT},
    "TensorMap": {0: _TEXT},
}  # fmt: skip

_U8, _U16, _U32, _I32 = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<i")


class _Damage(Exception):  # noqa: N818 - never leaves this module
    pass


def find_damage(content: bytes) -> str | None:
    """What makes `content` no sound `.tflite` file, such as ``"a SubGraph outside the file"``; None where nothing does.

    It is sound when every table, vector and string that the interpreter follows lies inside the file. What the model
    computes is the interpreter's to check.
    """
    try:
        _Walk(content).table("Model", 0)
    except _Damage as damage:
        return str(damage)
    return None


class _Walk:
    def __init__(self, content: bytes):
        self._content = content
        # Tables may be shared; each is followed once, so that a hostile file takes no more time than its size.
        self._seen: set[tuple[str, int]] = set()

    def table(self, kind: str, place: int) -> None:
        """Follows the table whose offset is stored at `place`."""
        start = self._target(kind, place)
        if (kind, start) in self._seen:
            return
        self._seen.add((kind, start))
        self._inside(kind, start, 4)
        fields = start - self._read(_I32, start)
        self._inside(kind, fields, 4)
        fields_size, size = self._read(_U16, fields), self._read(_U16, fields + 2)
        self._inside(kind, fields, fields_size)
        self._inside(kind, start, size)
        if fields % 2 or fields_size % 2 or fields_size < 4 or size < 4:
            raise _Damage(f"a {kind} of fields that cannot be")
        places = [self._read(_U16, fields + 4 + 2 * field) for field in range(fields_size // 2 - 2)]
        if any(offset >= size for offset in places):
            raise _Damage(f"a {kind} with a field outside it")
        for field, refers_to in _SCHEMA.get(kind, {}).items():
            if field >= len(places) or not places[field]:
                continue  # absent: its default
            if places[field] + 4 > size:
                raise _Damage(f"a {kind} with a field outside it")
            place = start + places[field]
            if isinstance(refers_to, _Vector):
                self._vector(kind, place, refers_to.width)
            elif isinstance(refers_to, _Tables):
                for item in self._vector(refers_to.kind, place, 4):
                    self.table(refers_to.kind, item)
            elif isinstance(refers_to, str):
                self.table(refers_to, place)
            elif places[field - 1]:
                chosen = self._read(_U8, start + places[field - 1])
                self.table(refers_to.kinds.get(chosen, "table"), place)

    def _vector(self, kind: str, place: int, width: int) -> range:
        """Where the items of the vector are whose offset is stored at `place`."""
        start = self._target(kind, place)
        self._inside(kind, start, 4)
        size = self._read(_U32, start) * width
        self._inside(kind, start + 4, size)
        return range(start + 4, start + 4 + size, width)

    def _target(self, kind: str, place: int) -> int:
        self._inside(kind, place, 4)
        target = place + self._read(_U32, place)
        if target % 4 or target == place:
            raise _Damage(f"a {kind} at a place that cannot be")
        return target

    def _inside(self, kind: str, start: int, size: int) -> None:
        if start < 0 or start + size > len(self._content):
            raise _Damage(f"a {kind} outside the file")

    def _read(self, form: struct.Struct, place: int) -> int:
        value: int = form.unpack_from(self._content, place)[0]
        return value
