from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.sinks import JsonLinesFile
from tests.edge_runtime.sinks.results import answered, failed


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_a_line_for_each_result_as_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with JsonLinesFile(path) as sink:
        sink.write(
            answered(
                3,
                {"scores": np.array([0.5, np.nan, np.inf], np.float32)},
                name="a.jpg",
                time_s=1.5,
                label="cat",
            )
        )
        assert len(_read(path)) == 1  # before the sink is closed
        sink.write(failed(4))
    first, second = _read(path)
    assert first == {
        "index": 3, "name": "a.jpg", "time_s": 1.5, "label": "cat", "confidence": 0.5, "source": "device",
        "reason": "no-fallback", "detail": "", "elapsed_ms": 0.0, "outputs": {"scores": [0.5, None, None]},
    }  # fmt: skip
    assert second == {
        "index": 4,
        "name": "frame 4",
        "time_s": 0.0,
        "error": {"code": "operator-failed", "message": "operator 'x': received ValueError"},
    }


def test_every_kind_of_value(tmp_path: Path) -> None:
    outputs = {
        "text": np.array(["a", 'b"\n\u2028']),
        "one": np.array("ausgång"),
        "none": np.empty((0, 4), np.float32),
        "flag": np.array([True]),
        "large": np.zeros((10, 101), np.uint8),
        "items": [np.array([1], np.int64), np.zeros(2000), np.array("x")],
        "scalar": np.float32(2),
    }
    with JsonLinesFile(tmp_path / "a.jsonl") as sink:
        sink.write(answered(0, outputs))
    with JsonLinesFile(tmp_path / "b.jsonl", max_values=None, stages=True) as sink:
        sink.write(answered(0, outputs))
    (short,) = _read(tmp_path / "a.jsonl")
    (full,) = _read(tmp_path / "b.jsonl")
    assert short["outputs"] == {
        "text": ["a", 'b"\n\u2028'],
        "one": "ausgång",
        "none": [],
        "flag": [True],
        "large": {"dtype": "uint8", "shape": [10, 101]},
        "items": [[1], {"dtype": "float64", "shape": [2000]}, "x"],
        "scalar": 2.0,
    }
    assert np.shape(full["outputs"]["large"]) == (10, 101)
    assert full["stages"] == []


def test_a_file_that_exists_is_kept_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("mine")
    with pytest.raises(HybridgeError) as caught:
        JsonLinesFile(path)
    assert caught.value.code is ErrorCode.FILE_EXISTS
    assert path.read_text() == "mine"
    with JsonLinesFile(path, overwrite=True) as sink:
        sink.write(failed())
    assert len(_read(path)) == 1
    with pytest.raises(HybridgeError) as caught:
        JsonLinesFile(tmp_path / "none" / "out.jsonl")
    assert caught.value.code is ErrorCode.FILE_UNWRITABLE


def test_a_closed_sink_takes_nothing_and_closing_twice_is_fine(tmp_path: Path) -> None:
    sink = JsonLinesFile(tmp_path / "out.jsonl")
    sink.close()
    sink.close()
    with pytest.raises(HybridgeError) as caught:
        sink.write(failed())
    assert caught.value.code is ErrorCode.INPUT_INVALID


_FULL = """
import resource, sys
import numpy as np
from edge_runtime import HybridgeError
from edge_runtime.sinks import JsonLinesFile
from tests.edge_runtime.sinks.results import answered
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
errors = []
with JsonLinesFile(sys.argv[1]) as sink:
    for index in range(100):
        try:
            sink.write(answered(index, {"x": np.arange(100)}))
        except HybridgeError as error:
            errors.append(error)
print([str(error.code) for error in errors])
"""


def test_a_full_disk_is_told_once_and_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    told = subprocess.run([sys.executable, "-c", _FULL, path], capture_output=True, text=True, check=True)
    assert told.stdout == "['file-unwritable']\n"
    records = _read(path)
    assert 5 < len(records) < 100
    assert [record["index"] for record in records] == list(range(len(records)))


_TO_STANDARD_OUTPUT = """
import sys
from edge_runtime import HybridgeError
from edge_runtime.sinks import JsonLinesFile
from tests.edge_runtime.sinks.results import failed
with JsonLinesFile("-") as sink:
    for index in range(100_000):
        try:
            sink.write(failed(index))
        except HybridgeError as error:
            print(error.code, file=sys.stderr)
"""


def test_a_reader_of_standard_output_that_goes_away_is_told_once() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _TO_STANDARD_OUTPUT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert [json.loads(process.stdout.readline())["index"] for _ in range(3)] == [0, 1, 2]
        process.stdout.close()
        assert process.stderr.read() == "file-unwritable\n"
        assert process.wait(10) == 0
