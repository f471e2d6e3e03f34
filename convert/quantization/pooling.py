"""Global average pooling as a mean, whose integer kernel may change the scale."""

from __future__ import annotations

import numpy as np

from convert.quantization.flatbuffer import builtin_names, schema
from convert.quantization.packing import pack, unpack

__all__ = ["with_means"]


def with_means(content: bytes) -> bytes:
    """The float model with ``MEAN`` in place of each ``AVERAGE_POOL_2D`` over a whole picture.

    A pooling kernel gives its output the scale of its input. A mean is far smaller than the largest value it is of,
    so that it keeps few of the 256 steps: in a small residual network that cost more than all other layers together.
    """
    types, model, found = schema(), unpack(content), 0
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            if builtin_names()[max(code.builtinCode, code.deprecatedBuiltinCode)] != "AVERAGE_POOL_2D":
                continue
            options, shape = operator.builtinOptions, graph.tensors[operator.inputs[0]].shape
            whole = (options.filterHeight, options.filterWidth) == (int(shape[1]), int(shape[2]))
            output = graph.tensors[operator.outputs[0]].shape
            if not whole or int(output[1]) * int(output[2]) != 1 or options.fusedActivationFunction:
                continue
            mean, axes, buffer = types.OperatorCodeT(), types.TensorT(), types.BufferT()
            mean.builtinCode = mean.deprecatedBuiltinCode = types.BuiltinOperator.MEAN
            mean.version = 2
            buffer.data = np.array([1, 2], np.int32).view(np.uint8)
            model.operatorCodes.append(mean)
            model.buffers.append(buffer)
            axes.name = graph.tensors[operator.outputs[0]].name + b"/axes"
            axes.shape, axes.type, axes.buffer = [2], types.TensorType.INT32, len(model.buffers) - 1
            graph.tensors.append(axes)
            operator.opcodeIndex = len(model.operatorCodes) - 1
            operator.inputs = [operator.inputs[0], len(graph.tensors) - 1]
            operator.builtinOptionsType = types.BuiltinOptions.ReducerOptions
            operator.builtinOptions = types.ReducerOptionsT()
            operator.builtinOptions.keepDims = True
            found += 1
    return pack(model) if found else content
