"""Sequences of maps, which no device can hold, as the tensors that they are made of.

Converters of scikit-learn put a `ZipMap` behind a classifier: for each sample a map from the labels to their scores. A
user of the converted model gets the scores as they were, (samples, labels), under the name that the maps had; the
labels are in the order of the attribute, which is that of the classifier.
"""

from __future__ import annotations

from typing import Any

from convert.libraries import load_library

__all__ = ["without_maps"]


def without_maps(model: Any) -> Any:
    """A copy of the model whose maps are tensors; the model itself where it has none."""
    maps = {
        node.output[0]: node
        for node in model.graph.node
        if (node.domain, node.op_type) == ("ai.onnx.ml", "ZipMap")
    }
    if not maps:
        return model
    onnx = load_library("onnx")
    result = type(model)()
    result.CopyFrom(model)
    if not any(each.domain in ("", "ai.onnx") for each in result.opset_import):
        result.opset_import.append(onnx.helper.make_opsetid("", 13))
    for node in result.graph.node:
        if node.output and node.output[0] in maps and node.op_type == "ZipMap":
            node.op_type, node.domain = "Identity", ""
            del node.attribute[:]
    for output in result.graph.output:
        if output.name in maps:
            labels = [len(each.ints) or len(each.strings) for each in maps[output.name].attribute]
            shape = [None, labels[0] if labels else None]
            scores = onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, shape)
            output.CopyFrom(scores)
    return result
