from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.frame import Frame
from edge_runtime.sources import ArrayFiles


def _inputs(source: ArrayFiles) -> list[dict[str, list[float]]]:
    frames = [frame for frame in source if isinstance(frame, Frame)]
    return [{name: np.asarray(value).tolist() for name, value in frame.inputs.items()} for frame in frames]


def test_files_as_frames(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([1, 2], np.float32))
    np.savez(tmp_path / "b.npz", x=np.array([3], np.int8), y=np.array([[4]], np.float32))
    with ArrayFiles(tmp_path, name="x") as source:
        assert source.length == 2
        assert _inputs(source) == [{"x": [1, 2]}, {"x": [3], "y": [[4]]}]


@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_as_frames_in_either_order_with_and_without_their_axis(tmp_path: Path, order: str) -> None:
    rows = np.asarray(np.arange(24).reshape(4, 2, 3), dtype=np.float32, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "a.npy", rows)
    np.savez(tmp_path / "b.npz", x=rows, y=np.arange(4))
    got = [frame for frame in ArrayFiles(tmp_path / "a.npy", rows=True) if isinstance(frame, Frame)]
    np.testing.assert_array_equal([frame.inputs["array"] for frame in got], rows)
    assert [frame.name for frame in got] == ["a.npy[0]", "a.npy[1]", "a.npy[2]", "a.npy[3]"]
    array = np.asarray(got[0].inputs["array"])
    assert array.flags.writeable
    assert array.flags.c_contiguous
    assert array.dtype == np.float32
    kept = list(ArrayFiles(tmp_path / "b.npz", rows=True, keep_axis=True))
    assert isinstance(kept[2], Frame)
    np.testing.assert_array_equal(kept[2].inputs["x"], rows[2:3])
    np.testing.assert_array_equal(kept[2].inputs["y"], [2])


def _file(array: object) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)  # type: ignore[arg-type]
    return file.getvalue()


_ROWS = _file(np.zeros((10, 8)))


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", ErrorCode.INPUT_INVALID),
        (b"\x93NUMPY", ErrorCode.INPUT_INVALID),
        (b"\x93NUMPY\x07\x00" + _ROWS[8:], ErrorCode.INPUT_INVALID),
        (_ROWS[:40], ErrorCode.INPUT_INVALID),
        (_ROWS[:-1], ErrorCode.INPUT_INVALID),
        (_ROWS.replace(b"(10, 8)", b"(-1, 8)"), ErrorCode.INPUT_INVALID),
        (_ROWS.replace(b"'<f8'", b"'|O' "), ErrorCode.INPUT_INVALID),
        (_file([{"a": 1}]), ErrorCode.INPUT_INVALID),
        (b"PK\x03\x04 not an archive", ErrorCode.INPUT_INVALID),
        (b"some text\n", ErrorCode.INPUT_INVALID),
    ],
)
def test_damaged_arrays_are_one_error_each_and_the_rest_go_on(
    tmp_path: Path, content: bytes, code: ErrorCode, rows: bool
) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    np.save(tmp_path / "b.npy", np.zeros((1, 2)))
    got = list(ArrayFiles(tmp_path, rows=rows))
    errors = [item for item in got if isinstance(item, HybridgeError)]
    assert [error.code for error in errors] == [code]
    assert "a.npy" in errors[0].message
    assert isinstance(got[-1], Frame)


def test_a_header_that_promises_more_than_there_is_takes_no_memory(tmp_path: Path) -> None:
    huge = _ROWS.replace(b"(10, 8), }      ", b"(10, 8888888), }")
    assert huge != _ROWS
    (tmp_path / "a.npy").write_bytes(huge)
    (error,) = ArrayFiles(tmp_path, rows=True)
    assert isinstance(error, HybridgeError)


def test_archives_with_unequal_rows_and_single_numbers_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3), y=np.zeros(4))
    np.save(tmp_path / "b.npy", np.float32(1))
    np.savez(tmp_path / "c.npz")
    (tmp_path / "d.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:200])
    got = list(ArrayFiles(tmp_path, rows=True))
    assert [item.code for item in got if isinstance(item, HybridgeError)] == [
        ErrorCode.INPUT_SHAPE,
        ErrorCode.INPUT_SHAPE,
        ErrorCode.INPUT_SHAPE,
        ErrorCode.INPUT_INVALID,
    ]
    assert len(got) == 4


def test_a_row_does_not_keep_its_archive_in_memory(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((10, 1000)))
    first = next(iter(ArrayFiles(tmp_path / "a.npz", rows=True)))
    assert isinstance(first, Frame)
    assert np.asarray(first.inputs["x"]).base is None
