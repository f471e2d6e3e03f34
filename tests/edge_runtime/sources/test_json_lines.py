from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError, TensorSpec
from edge_runtime.frame import Frame
from edge_runtime.sources import JsonLines
from edge_runtime.tensor_spec import Array


def _lines(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _value(path: Path, value: str, spec: TensorSpec | None = None) -> Array:
    (item,) = JsonLines(_lines(path, f'{{"x": {value}}}'), specs=[spec] if spec else [])
    if isinstance(item, HybridgeError):
        raise item
    return np.asarray(item.inputs["x"])


@pytest.mark.parametrize(
    ("text", "dtype", "values"),
    [
        ("[1.5, 2]", "float32", [1.5, 2]),
        ("[[1, 2], [3, 4]]", "int64", [[1, 2], [3, 4]]),
        ("true", "bool", True),
        ("[]", "float32", []),
        ('"exit"', "<U4", "exit"),
        ('["a", "lång"]', "<U4", ["a", "lång"]),
    ],
)
def test_values_without_a_type(tmp_path: Path, text: str, dtype: str, values: object) -> None:
    array = _value(tmp_path / "a.jsonl", text)
    assert array.dtype == dtype
    assert array.tolist() == values


@pytest.mark.parametrize(
    ("text", "dtype", "values"),
    [
        ("[1, 2]", "float32", [1, 2]),
        ("[1.0, 255]", "uint8", [1, 255]),
        ("[0, 1]", "bool", [False, True]),
        ("[true]", "int8", [1]),
        ("[]", "text", []),
        ("3", "float16", 3),
    ],
)
def test_values_are_cast_to_the_inputs_type_when_nothing_is_lost(
    tmp_path: Path, text: str, dtype: str, values: object
) -> None:
    array = _value(tmp_path / "a.jsonl", text, TensorSpec("x", ("n",), dtype))
    assert array.tolist() == values
    assert array.dtype == (np.dtype("<U1") if dtype == "text" else dtype)


def test_null_among_numbers_is_nan_as_the_writer_writes_it(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        _value(tmp_path / "a.jsonl", "[1, null]"), np.array([1, np.nan], np.float32)
    )


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("[1.5]", "uint8"),
        ("[256]", "uint8"),
        ("[-1]", "uint8"),
        ("[null]", "int8"),
        ("[1e300]", "float32"),
        ("[2]", "bool"),
        ("[1]", "text"),
        ('["a"]', "float32"),
        ('["a", 1]', None),
        ("[[1], [1, 2]]", None),
        ("[1, [2]]", None),
        (f"[{2**70}]", None),
        ("[" * 70 + "1" + "]" * 70, None),
        ('[{"path": "a.jpg"}]', None),
        ('{"file": "a.jpg"}', None),
        ('{"path": 3}', None),
        ('{"path": "passwords.txt"}', None),
        ("NaN", None),
    ],
)
def test_values_that_do_not_fit_are_one_error_with_their_line(
    tmp_path: Path, text: str, dtype: str | None
) -> None:
    spec = TensorSpec("x", ("n",), dtype) if dtype else None
    with pytest.raises(HybridgeError) as caught:
        _value(tmp_path / "a.jsonl", text, spec)
    assert caught.value.code is ErrorCode.INPUT_INVALID
    assert caught.value.message.startswith(f"line 1 of file '{tmp_path / 'a.jsonl'}': received ")


def test_a_bad_line_is_one_error_and_the_rest_go_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"x": 1}\r\n\n{"x": \n[1]\n{"x": 1}{\n\xff\xfe\n'
        + b"[" * 100_000
        + b'\n{"x": 2, "y": "a"}'
    )
    got = list(JsonLines(path))
    assert [item.name if isinstance(item, Frame) else item.what.split(" of ")[0] for item in got] == [
        "line 1", "line 3", "line 4", "line 5", "line 6", "line 7", "line 8",
    ]  # fmt: skip
    assert [isinstance(item, Frame) for item in got] == [True, *[False] * 5, True]
    assert isinstance(got[-1], Frame)
    assert set(got[-1].inputs) == {"x", "y"}


def test_a_line_that_is_too_long_is_one_error_and_not_held(tmp_path: Path) -> None:
    path = _lines(
        tmp_path / "a.jsonl", json.dumps({"x": [1] * 300_000}), '{"x": 1}', json.dumps({"x": "a" * 2000})
    )
    got = list(JsonLines(path, max_line_bytes=1000))
    assert [type(item).__name__ for item in got] == ["HybridgeError", "Frame", "HybridgeError"]
    assert isinstance(got[0], HybridgeError)
    assert "more than 1000 bytes" in got[0].message


def test_files_are_found_beside_the_lines(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="images need the 'vision' extra")
    from tests.edge_runtime.sources.media import jpeg, photograph

    content = jpeg(photograph())
    (tmp_path / "a.jpg").write_bytes(content)
    (tmp_path / "cut.jpg").write_bytes(content[:300])
    np.save(tmp_path / "a.npy", np.array([7], np.int16))
    lines = [
        '{"x": {"path": "a.jpg"}}',
        '{"x": {"path": "cut.jpg"}}',
        '{"x": {"path": "no.jpg"}}',
        '{"y": {"path": "a.npy"}}',
    ]
    path = _lines(tmp_path / "a.jsonl", *lines)
    spec = TensorSpec("x", (1, "h", "w", 1), "uint8")
    image, cut, missing, array = JsonLines(path, specs=[spec])
    assert isinstance(image, Frame)
    assert np.shape(image.inputs["x"]) == (1, 48, 64, 1)
    assert isinstance(array, Frame)
    assert np.asarray(array.inputs["y"]).tolist() == [7]
    assert isinstance(cut, HybridgeError)
    assert cut.code is ErrorCode.INPUT_INVALID
    assert "line 2" in cut.message
    assert "cut.jpg" in cut.message
    assert isinstance(missing, HybridgeError)
    assert missing.code is ErrorCode.FILE_NOT_FOUND
    (raw, *_) = JsonLines(path, specs=[spec], decode=False)
    assert isinstance(raw, Frame)
    assert bytes(np.asarray(raw.inputs["x"])) == content


def test_a_file_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(HybridgeError) as caught:
            JsonLines(path)
        assert caught.value.code is ErrorCode.FILE_NOT_FOUND


_READER = """
import sys
from edge_runtime.frame import Frame
from edge_runtime.sources import JsonLines
for item in JsonLines("-"):
    print(item.name if isinstance(item, Frame) else item.message, flush=True)
"""


def test_standard_input_line_by_line_as_they_come() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write('{"x": 1}\n{"x": ')
        process.stdin.flush()
        assert process.stdout.readline() == "line 1\n"  # before the second is whole
        process.stdin.write("2}\nno\n")
        process.stdin.flush()
        assert process.stdout.readline() == "line 2\n"
        assert process.stdout.readline().startswith("line 3 of standard input: received ")
        process.stdin.write('{"x": 4}')
        process.stdin.close()
        assert process.stdout.readline() == "line 4\n"
        assert process.wait(5) == 0


def test_closing_from_another_thread_ends_a_wait_for_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as silent, os.fdopen(writing, "w"):
        monkeypatch.setattr(sys, "stdin", silent)
        source = JsonLines("-")
        thread = threading.Thread(target=lambda: list(source))
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        source.close()
        thread.join(2)
        assert not thread.is_alive()
        assert not silent.closed
