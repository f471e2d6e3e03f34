"""Elements moved between axes: channels to space and back, pictures cropped, and put together from columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import is_float
from convert.onnx.node import Node
from convert.onnx.operators.convolution import transpose_convolve
from convert.onnx.operators.joining import padded
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value, channels_last

__all__: list[str] = []

tf = load_library("tensorflow")


@operator("DepthToSpace")
def depth_to_space(node: Node, x: Value) -> Value:
    """Blocks of channels laid out in space; `DCR` takes the position in the block first, `CRD` the channel."""
    block, order = int(node.attribute("blocksize")), channels_last(x.rank)
    tensor = x.stored_as(order)
    if block == 1:
        return Value.of(tensor, x.dtype, order)
    if node.attribute("mode", "DCR") == "CRD":
        channels = tensor.shape[-1] // block**2
        index = np.arange(tensor.shape[-1]).reshape(channels, block**2).T.reshape(-1)
        tensor = _channels_permuted(tensor, index)
    return Value.of(_moved(tf.nn.depth_to_space, tensor, block), x.dtype, order)


@operator("SpaceToDepth")
def space_to_depth(node: Node, x: Value) -> Value:
    """Blocks of space stacked in channels; `DCR` puts the position in the block first, `CRD` the channel."""
    block, order = int(node.attribute("blocksize")), channels_last(x.rank)
    tensor = x.stored_as(order)
    if block == 1:
        return Value.of(tensor, x.dtype, order)
    channels = tensor.shape[-1]
    result = _moved(tf.nn.space_to_depth, tensor, block)
    if node.attribute("mode", "DCR") == "CRD":
        index = np.arange(channels * block**2).reshape(block**2, channels).T.reshape(-1)
        result = tf.gather(result, index.astype(np.int32), axis=-1)
    return Value.of(result, x.dtype, order)


def _moved(function: Any, tensor: Any, block: int) -> Any:
    if tensor.dtype == tf.bool:
        return tf.cast(function(tf.cast(tensor, tf.int32), block), tf.bool)
    return function(tensor, block)


def _channels_permuted(tensor: Any, index: np.ndarray[Any, Any]) -> Any:
    """A channels-last tensor with its channels in another order: that of the weights, if a convolution makes it.

    Sub-pixel convolutions (Shi et al. 2016) end in a convolution whose channels PyTorch shuffles; to gather them as the
    model runs would cost more than the shuffle.
    """
    places = index.astype(np.int32)
    if not tf.executing_eagerly():
        made, bias = tensor.op, None
        if made.type == "AddV2":
            bias = tf.get_static_value(made.inputs[1])
            made = made.inputs[0].op if bias is not None else made
        kernels = tf.get_static_value(made.inputs[1]) if made.type == "Conv2D" else None
        if kernels is not None and kernels.shape[2] == made.inputs[0].shape[-1]:
            result = tf.nn.conv2d(
                made.inputs[0],
                kernels[..., index],
                made.get_attr("strides"),
                made.get_attr("padding").decode(),
                dilations=made.get_attr("dilations"),
            )
            if bias is None:
                return result
            return result + np.broadcast_to(bias, kernels.shape[-1:])[index]
    return tf.gather(tensor, places, axis=-1)


@operator("CenterCropPad")
def center_crop_pad(node: Node, x: Value, shape: Value) -> Value:
    """The middle of a tensor in another shape: cut out, or with zeros around it."""
    axes = [axis % x.rank for axis in node.attribute("axes") or range(x.rank)]
    widths = [(0, 0)] * x.rank
    for axis, wanted in zip(axes, node.known(shape, "shape"), strict=True):
        size = x.shape[axis]
        if size is None:
            raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
        less = abs(wanted - size)
        widths[axis] = (less // 2, less - less // 2) if wanted > size else (-(less // 2), -(less - less // 2))
    return padded(x, widths)


@operator("Col2Im")
def col2im(node: Node, x: Value, image: Value, block: Value) -> Value:
    """The sum of all blocks in their places: the transposed convolution with kernels of one one each."""
    sizes, taps = node.known(image, "image shape"), node.known(block, "block shape")
    spatial = len(sizes)
    strides = list(node.attribute("strides") or [1] * spatial)
    dilations = list(node.attribute("dilations") or [1] * spatial)
    flat = node.attribute("pads") or [0] * (2 * spatial)
    pads = list(zip(flat[:spatial], flat[spatial:], strict=True))
    if spatial > 3:
        raise Unsupported(
            f"a picture of {spatial} spatial axes", "split it in the model into ones of at most three"
        )
    batch, rows, _ = x.shape
    if batch is None or rows is None:
        raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
    reach = [(k - 1) * dilation + 1 for k, dilation in zip(taps, dilations, strict=True)]
    spans = [size + low + high - each for size, (low, high), each in zip(sizes, pads, reach, strict=True)]
    counts = [span // stride + 1 for span, stride in zip(spans, strides, strict=True)]
    # What the last block does not reach is empty.
    extra = [span % stride for span, stride in zip(spans, strides, strict=True)]
    kernel = int(np.prod(taps))
    columns = x.tensor if is_float(x.dtype) else tf.cast(x.tensor, tf.float32)
    stacked = tf.reshape(columns, [batch * (rows // kernel), kernel, *counts])
    laid = tf.transpose(stacked, channels_last(spatial + 2))
    ones = np.zeros((*reach, 1, kernel), np.float32)
    for index, place in enumerate(np.ndindex(*taps)):
        ones[(*(at * dilation for at, dilation in zip(place, dilations, strict=True)), 0, index)] = 1
    if spatial == 1:
        laid, ones, strides, pads, extra = (
            laid[:, None],
            ones[None],
            [1, *strides],
            [(0, 0), *pads],
            [0, *extra],
        )
    result = transpose_convolve(laid, tf.constant(ones), strides, pads, extra)
    result = tf.reshape(result, [batch, rows // kernel, *sizes])
    return Value.of(result if is_float(x.dtype) else tf.cast(result, x.tensor.dtype), x.dtype)
