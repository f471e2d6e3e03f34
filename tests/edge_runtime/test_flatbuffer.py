from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime import flatbuffer
from edge_runtime.flatbuffer import find_damage


def _files(models: Path) -> Iterator[bytes]:
    for path in sorted(models.glob("*.tflite")):
        yield path.read_bytes()


def test_whole_files_are_sound(models: Path) -> None:
    assert [find_damage(content) for content in _files(models)] == [None] * len(list(_files(models)))


def test_a_file_cut_anywhere_is_damaged(models: Path) -> None:
    # The last bytes may be padding, which nothing refers to.
    for content in _files(models):
        for length in (*range(8), *range(8, len(content) - 16, max(7, len(content) // 99))):
            assert find_damage(content[:length]) is not None, length


def test_any_bytes_end_in_an_answer(models: Path) -> None:
    chance = random.Random(0)
    for content in _files(models):
        for _ in range(200):
            damaged = bytearray(content)
            for _ in range(chance.choice((1, 4, 64))):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            answer = find_damage(bytes(damaged))
            assert answer is None or re.fullmatch(r"a \w+ .*", answer)


def test_the_tables_are_those_of_the_schema() -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="tflite-runtime has no schema")
    source = Path(schema.__file__).read_text()
    later = {("Model", 8), ("Model", 9), ("Operator", 12)}  # fields that tflite-runtime 2.14 does not read
    for kind in set(flatbuffer._SCHEMA) - {"Shape", "ConcatEmbeddings", "VarHandle", "Bucketize"}:
        added = re.findall(
            rf"def {kind}Add\w+\(builder, \w+\):\n\s+builder.PrependUOffsetTRelativeSlot\((\d+)", source
        )
        assert {int(field) for field in added} - {field for name, field in later if name == kind} == set(
            flatbuffer._SCHEMA[kind]
        ), kind
