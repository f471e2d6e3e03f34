"""Small ONNX models, made by script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

__all__ = ["convnet", "model", "saved", "tensor"]


def tensor(name: str, *shape: int, seed: int = 0) -> TensorProto:
    """Weights of a fixed seed."""
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32) / max(1, shape[-1]) ** 0.5
    return numpy_helper.from_array(values, name)


def model(
    nodes: Sequence[Any],
    inputs: dict[str, Sequence[Any]],
    outputs: dict[str, Sequence[Any]],
    weights: Sequence[TensorProto] = (),
    *,
    opset: int = 17,
    types: dict[str, int] | None = None,
    domains: Sequence[str] = (),
) -> Any:
    """A model of nodes, with named dimensions where a shape says one."""
    kinds = types or {}
    described = [
        [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)
            for name, shape in each.items()
        ]
        for each in (inputs, outputs)
    ]
    graph = helper.make_graph(list(nodes), "graph", *described, list(weights))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def convnet(*, opset: int = 17) -> Any:
    """Two convolutions with all that may lie between them, a residual sum, pooling, and classes."""
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c1"], ["r1"]),
        node("BatchNormalization", ["r1", "scale", "shift", "mean", "var"], ["n1"]),
        node("Conv", ["n1", "w2"], ["c2"], name="depthwise", group=8, pads=[1, 1, 1, 1]),
        node("Sigmoid", ["c2"], ["s2"]),
        node("Mul", ["c2", "s2"], ["m2"]),
        node("Add", ["m2", "n1"], ["sum"]),
        node("Concat", ["sum", "n1"], ["both"], axis=1),
        node("MaxPool", ["both"], ["p"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", ["p", "w3"], ["features"], name="last"),
        node("GlobalAveragePool", ["features"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Gemm", ["flat", "w4", "b4"], ["logits"], transB=1),
        node("Softmax", ["logits"], ["classes"]),
    ]
    weights = [
        tensor("w1", 8, 3, 3, 3), tensor("b1", 8), tensor("w2", 8, 1, 3, 3), tensor("w3", 6, 16, 1, 1),
        tensor("w4", 5, 6), tensor("b4", 5), tensor("scale", 8), tensor("shift", 8), tensor("mean", 8),
        numpy_helper.from_array(np.linspace(0.5, 1.5, 8, dtype=np.float32), "var"),
    ]  # fmt: skip
    return model(
        nodes,
        {"image": ("N", 3, "height", "width")},
        {"features": ("N", 6, "h", "w"), "classes": ("N", 5)},
        weights,
        opset=opset,
    )


def saved(made: Any, path: Path) -> Path:
    """The model as a file."""
    path.write_bytes(made.SerializeToString())
    return path
