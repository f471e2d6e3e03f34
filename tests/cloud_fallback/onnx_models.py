"""The small ONNX models that these tests serve, each written with fixed weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

__all__ = ["LINEAR_WEIGHTS", "write_linear", "write_models"]

LINEAR_WEIGHTS = np.arange(6, dtype=np.float32).reshape(3, 2)
# 33 million multiplications and additions a step.
_BUSY_SIZE = 256


def write_linear(path: Path, *, gain: float = 1.0) -> None:
    """Writes a model that multiplies `x` by `LINEAR_WEIGHTS`, and by `gain`."""
    _write(
        path,
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        {"x": (TensorProto.FLOAT, ["batch", 3])},
        {"y": (TensorProto.FLOAT, ["batch", 2])},
        {"weights": np.float32(gain) * LINEAR_WEIGHTS},
    )


def write_models(folder: Path) -> None:
    """Writes `linear`, `classifier`, `strings`, `logarithm`, `ones`, `doubles` and `busy`, each a `.onnx`."""
    write_linear(folder / "linear.onnx")
    _write(
        folder / "classifier.onnx",
        [
            helper.make_node("Reshape", ["image", "flat_shape"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        {"image": (TensorProto.FLOAT, [1, 8, 8, 1])},
        {"logits": (TensorProto.FLOAT, [1, 10])},
        {
            "flat_shape": np.array([1, 64], np.int64),
            "weights": np.random.default_rng(5).normal(size=(64, 10)).astype(np.float32),
        },
    )
    _write(
        folder / "strings.onnx",
        [helper.make_node("Identity", ["text"], ["same"])],
        {"text": (TensorProto.STRING, ["count"])},
        {"same": (TensorProto.STRING, ["count"])},
    )
    _write(
        folder / "logarithm.onnx",
        [helper.make_node("Log", ["x"], ["y"])],
        {"x": (TensorProto.FLOAT, ["n"])},
        {"y": (TensorProto.FLOAT, ["n"])},
    )
    _write(
        folder / "ones.onnx",
        [
            helper.make_node(
                "ConstantOfShape",
                ["shape"],
                ["ones"],
                value=helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
            )
        ],
        {"shape": (TensorProto.INT64, [1])},
        {"ones": (TensorProto.FLOAT, ["n"])},
    )
    _write(
        folder / "doubles.onnx",
        [
            helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE),
            helper.make_node("Cast", ["x"], ["rounded"], to=TensorProto.INT64),
        ],
        {"x": (TensorProto.FLOAT, ["n"])},
        {"y": (TensorProto.DOUBLE, ["n"]), "rounded": (TensorProto.INT64, ["n"])},
    )
    _write_busy(folder / "busy.onnx")


def _write_busy(path: Path) -> None:
    """A loop of matrix products, as many as the input `steps` says, that hands `x` through to `y`."""
    size = _BUSY_SIZE
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["before", "rotation"], ["after"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, [size, size]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, [size, size]),
        ],
    )
    _write(
        path,
        [
            helper.make_node("Loop", ["steps", "", "identity"], ["product"], body=body),
            # The product of permutations is one: its mean is 1/size however long the loop was.
            helper.make_node("ReduceMean", ["product"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "size"], ["one"]),
            helper.make_node("Mul", ["x", "one"], ["y"]),
        ],
        {"x": (TensorProto.FLOAT, [1]), "steps": (TensorProto.INT64, [])},
        {"y": (TensorProto.FLOAT, [1])},
        {
            "identity": np.eye(size, dtype=np.float32),
            "rotation": np.roll(np.eye(size, dtype=np.float32), 1, axis=0),
            "size": np.array([size], np.float32),
        },
    )


def _write(
    path: Path,
    nodes: list[Any],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, tuple[int, list[Any]]],
    constants: dict[str, np.ndarray[Any, Any]] | None = None,
) -> None:
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(name, *typed) for name, typed in inputs.items()],
        [helper.make_tensor_value_info(name, *typed) for name, typed in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    # Versions that every ONNX Runtime of the supported range reads.
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
