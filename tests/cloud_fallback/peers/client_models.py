"""Models for the tests with clients of others, each with an answer that shows what came in, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from tests.cloud_fallback.endpoint.rest_models import DTYPES

__all__ = ["ROWS", "TOTALS", "assert_total", "sum_request", "write_client_models"]

ROWS = [[1, 2, 3], [-4, 0, 9], [7, 7, 7], [2**31 - 1, 2**31 - 1, 1], [0, 0, 0], [-(2**31), -1, 0], [5, 6, 8]]
TOTALS = [6, 5, 21, 2**32 - 1, 0, -(2**31) - 1, 19]


def write_client_models(folder: Path) -> None:
    """Writes models with a free number of rows.

    - `sums`: `row`, three INT32, to `total`, an INT64; and `spare`, the same.
    - `area`: `width` and `height`, an FP64 each, to `area`.
    - `twice-FP32` and so on for each type: two `items` to four, `doubled`, which are the two and the two again.
    - `label`: a BYTES `text` to the two BYTES `labelled`, which are itself and `!`.
    - `first`: `input-1`, two FP32, to the first of them, `output-1`.
    """
    for name in ("sums", "spare"):
        _write(
            folder / f"{name}.onnx",
            [
                helper.make_node("Cast", ["row"], ["long"], to=TensorProto.INT64),
                helper.make_node("ReduceSum", ["long", "axis"], ["total"], keepdims=1),
            ],
            {"row": (TensorProto.INT32, 3)},
            {"total": (TensorProto.INT64, 1)},
            {"axis": np.array([1], np.int64)},
        )
    _write(
        folder / "area.onnx",
        [helper.make_node("Mul", ["width", "height"], ["area"])],
        {"width": (TensorProto.DOUBLE, 1), "height": (TensorProto.DOUBLE, 1)},
        {"area": (TensorProto.DOUBLE, 1)},
    )
    for datatype, dtype in DTYPES.items():
        kind = TensorProto.STRING if dtype == "string" else helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        _write(
            folder / f"twice-{datatype}.onnx",
            [helper.make_node("Concat", ["items", "items"], ["doubled"], axis=1)],
            {"items": (kind, 2)},
            {"doubled": (kind, 4)},
        )
    _write(
        folder / "label.onnx",
        [
            helper.make_node("Shape", ["text"], ["shape"]),
            helper.make_node("Expand", ["mark", "shape"], ["marks"]),
            helper.make_node("Concat", ["text", "marks"], ["labelled"], axis=1),
        ],
        {"text": (TensorProto.STRING, 1)},
        {"labelled": (TensorProto.STRING, 2)},
        {"mark": np.array([["!"]], object)},
    )
    _write(
        folder / "first.onnx",
        [helper.make_node("Gather", ["input-1", "index"], ["output-1"], axis=1)],
        {"input-1": (TensorProto.FLOAT, 2)},
        {"output-1": (TensorProto.FLOAT, 1)},
        {"index": np.array([0], np.int64)},
    )


def sum_request(row: list[int], *, request_id: str = "", named: bool = False) -> dict[str, Any]:
    """A request to `sums` for the sum of a row, which may name the output that it wants."""
    tensor = {"name": "row", "shape": [1, len(row)], "datatype": "INT32", "data": row}
    return (
        {"inputs": [tensor]}
        | ({"id": request_id} if request_id else {})
        | ({"outputs": [{"name": "total"}]} if named else {})
    )


def assert_total(answer: dict[str, Any], total: int) -> None:
    """Holds that an answer is that of `sums`, and the sum this one."""
    assert (answer["model_name"], answer["model_version"]) == ("sums", "1")
    (output,) = answer["outputs"]
    said = {key: output[key] for key in ("name", "datatype", "shape", "data")}
    assert said == {"name": "total", "datatype": "INT64", "shape": [1, 1], "data": [total]}


def _write(
    path: Path,
    nodes: list[object],
    inputs: dict[str, tuple[int, int]],
    outputs: dict[str, tuple[int, int]],
    constants: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] | None = None,
) -> None:
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(name, kind, ["rows", size]) for name, (kind, size) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, ["rows", size]) for name, (kind, size) in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    # Versions that every ONNX Runtime of the supported range reads.
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
