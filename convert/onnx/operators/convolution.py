"""Convolutions of every rank, and the fully connected products beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.node import Node
from convert.onnx.operators.elementwise import broadcast
from convert.onnx.padding import Pads, pads_of, same_pads
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value, channels_last

__all__ = ["convolve", "transpose_convolve"]

tf = load_library("tensorflow")


@operator("Conv")
def conv(node: Node, x: Value, weights: Value, bias: Value | None = None) -> Value:
    """A convolution of one to three spatial axes, in groups or not."""
    return convolve(node, x, weights, bias)


def convolve(node: Node, x: Value, weights: Value, bias: Value | None) -> Value:
    """What `Conv` computes; (batch, channels, space...) in and out, weights (out, in / groups, kernel...)."""
    x, weights, bias = _absorbed(node, x, weights, bias)
    spatial = x.rank - 2
    kernel = [int(size) for size in node.attribute("kernel_shape", weights.shape[2:])]
    strides = node.attribute("strides", [1] * spatial)
    dilations = node.attribute("dilations", [1] * spatial)
    groups = node.attribute("group", 1)
    order = channels_last(x.rank)
    spread = spatial > 2 or (max(strides) > 1 and max(dilations) > 1)
    tensor, kernels = x.stored_as(order), _kernels(weights.plain if spread else weights)
    sizes = tensor.shape.as_list()[1:-1]
    pads = pads_of(node, sizes, kernel, strides, dilations)
    if spatial == 1:
        # A device has no convolution of one axis: it is one of two, of which one has size one.
        tensor = tf.expand_dims(tensor, 1)
        sizes, kernel, pads = [1, *sizes], [1, *kernel], [(0, 0), *pads]
        strides, dilations = [1, *strides], [1, *dilations]
    if spatial > 3:
        raise Unsupported(
            f"a convolution of {spatial} spatial axes", "split it in the model into ones of at most three"
        )
    padding = "SAME" if pads == same_pads(sizes, kernel, strides, dilations) else "VALID"
    if padding == "VALID" and any(map(any, pads)):
        tensor = tf.pad(tensor, [(0, 0), *pads, (0, 0)])
    result = _convolved(tensor, kernels, groups, strides, dilations, padding)
    if bias is not None:
        result = result + bias.plain.tensor
    if spatial == 1:
        result = tf.squeeze(result, 1)
    return Value.of(result, x.dtype, order)


def _kernels(weights: Value) -> Any:
    """Weights (kernel..., in / groups, out), of at least two spatial axes."""
    order = (*range(2, weights.rank), 1, 0)
    if weights.rank == 3:
        return weights.weights_as(order, [1, *(weights.shape[axis] for axis in order)])
    return weights.weights_as(order)


def _absorbed(node: Node, x: Value, weights: Value, bias: Value | None) -> tuple[Value, Value, Value | None]:
    """The operands without a scale and shift of `x`, which go into weights and bias."""
    affine, kernels = x.affine, weights.array
    plain = x, weights, bias
    if (
        affine is None
        or kernels is None
        or weights.grid is not None
        or (bias is not None and bias.array is None)
    ):
        return plain
    groups = node.attribute("group", 1)
    if groups > 1 and (affine.scale.ndim or affine.shift.ndim):
        return plain
    padded = node.attribute("auto_pad", "NOTSET").startswith("SAME") or any(node.attribute("pads", [0]))
    spatial = (1,) * (x.rank - 2)
    base, shift = affine.base, affine.shift
    if padded and shift.any():
        if affine.term is None:
            return plain
        added = affine.term.reshape(1, -1, *spatial) if affine.term.ndim else affine.term
        base, shift = broadcast(tf.add, base, Value.constant(added, np.float32)), np.zeros(())
    scale, shift = (each.reshape(1, -1, *spatial) if each.ndim else each for each in (affine.scale, shift))
    term = (kernels.astype(np.float64) * shift).reshape(len(kernels), -1).sum(1)
    if bias is not None and bias.array is not None:
        term = term + bias.array
    return (
        base,
        Value.constant(kernels * scale, np.float32),
        Value.constant(term, np.float32) if bias is not None or term.any() else None,
    )


def _convolved(
    tensor: Any, kernels: Any, groups: int, strides: list[int], dilations: list[int], padding: str
) -> Any:
    spatial = tensor.shape.rank - 2
    channels = tensor.shape[-1]
    if spatial == 3:
        if max(dilations) > 1:
            # CONV_3D of a device ignores dilations: zeros between the taps do the same.
            kernels, dilations = _spread(kernels, dilations), [1, 1, 1]
        parts = zip(tf.split(tensor, groups, -1), tf.split(kernels, groups, -1), strict=True)
        return tf.concat(
            [tf.nn.conv3d(part, kernel, [1, *strides, 1], padding) for part, kernel in parts], -1
        )
    if groups > 1 and groups == channels:
        multiplier = kernels.shape[-1] // channels
        depthwise = tf.reshape(kernels, [*kernels.shape[:2], channels, multiplier])
        # TensorFlow's own kernel wants equal strides, a device's does not.
        equal = len(set(strides)) == 1 or not tf.executing_eagerly()
        if equal and (max(strides) == 1 or max(dilations) == 1):
            return tf.nn.depthwise_conv2d(tensor, depthwise, [1, *strides, 1], padding, dilations=dilations)
    if max(strides) > 1 and max(dilations) > 1:
        kernels, dilations = _spread(kernels, dilations), [1, 1]
    return tf.nn.conv2d(tensor, kernels, [1, *strides, 1], padding, dilations=dilations)


def _spread(kernels: Any, dilations: list[int]) -> Any:
    """Kernels with zeros between their taps, so that a plain convolution does what a dilated one would."""
    for axis, dilation in enumerate(dilations):
        size = kernels.shape[axis]
        if dilation > 1 and size > 1:
            index = np.zeros((size - 1) * dilation + 1, np.int32) + size
            index[::dilation] = np.arange(size)
            widths = [(0, 1) if each == axis else (0, 0) for each in range(kernels.shape.rank)]
            kernels = tf.gather(tf.pad(kernels, widths), index, axis=axis)
    return kernels


@operator("ConvTranspose")
def conv_transpose(node: Node, x: Value, weights: Value, bias: Value | None = None) -> Value:
    """The transposed convolution; weights (in, out / groups, kernel...)."""
    spatial = x.rank - 2
    if spatial > 3:
        raise Unsupported(f"{spatial} spatial axes", "split it in the model into ones of at most three")
    kernel = [int(size) for size in node.attribute("kernel_shape", weights.shape[2:])]
    strides = node.attribute("strides", [1] * spatial)
    dilations = node.attribute("dilations", [1] * spatial)
    groups = node.attribute("group", 1)
    order = channels_last(x.rank)
    tensor = x.stored_as(order)
    weights = weights.plain if groups > 1 or max(dilations) > 1 else weights
    kernels = weights.weights_as((*range(2, x.rank), 1, 0))
    if max(dilations) > 1:
        kernels = _spread(kernels, dilations)
        kernel = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    sizes = tensor.shape.as_list()[1:-1]
    if None in sizes and not (_keeps_its_pads(node) and kernel == strides and groups == 1):
        raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
    pads, extra = _transposed_pads(node, sizes, kernel, strides)
    if spatial == 1:
        tensor, kernels = tf.expand_dims(tensor, 1), tf.expand_dims(kernels, 0)
        sizes, kernel, strides = [1, *sizes], [1, *kernel], [1, *strides]
        pads, extra = [(0, 0), *pads], [0, *extra]
    if (
        groups == 1
        and kernel == strides
        and len(set(strides)) == 1
        and spatial == 2
        and not any(map(any, pads))
        and not any(extra)
    ):
        return Value.of(_blocks(tensor, kernels, bias), x.dtype, order)
    if None in sizes:
        raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
    if groups > 1 and len(sizes) == 2:
        result = _stuffed(tensor, kernels, groups, strides, pads, extra)
    else:
        pairs = [(tensor, kernels)]
        if groups > 1:
            pairs = list(zip(tf.split(tensor, groups, -1), tf.split(kernels, groups, -1), strict=True))
        parts = [transpose_convolve(*pair, strides, pads, extra) for pair in pairs]
        result = parts[0] if groups == 1 else tf.concat(parts, -1)
    if bias is not None:
        result = result + bias.plain.tensor
    if spatial == 1:
        result = tf.squeeze(result, 1)
    return Value.of(result, x.dtype, order)


def _keeps_its_pads(node: Node) -> bool:
    """Whether what is cut from its result does not depend on the size of its input."""
    return node.attribute("auto_pad", "NOTSET") == "NOTSET" and node.attribute("output_shape") is None


def _transposed_pads(
    node: Node, sizes: list[int | None], kernel: list[int], strides: list[int]
) -> tuple[Pads, list[int]]:
    """What is cut from each end of the full result, and what is added at its far end."""
    spatial = len(sizes)
    extra = list(node.attribute("output_padding", [0] * spatial))
    automatic = node.attribute("auto_pad", "NOTSET")
    shape = node.attribute("output_shape")
    if shape is None and not automatic.startswith("SAME"):
        flat = node.attribute("pads", [0] * (2 * spatial))
        return list(zip(flat[:spatial], flat[spatial:], strict=True)), extra
    known = [size or 0 for size in sizes]  # only without them do callers have none
    full = [(size - 1) * stride + k for size, stride, k in zip(known, strides, kernel, strict=True)]
    if shape is None:
        shape = [size * stride for size, stride in zip(known, strides, strict=True)]
    cut = [each + more - wanted for each, more, wanted in zip(full, extra, shape[-spatial:], strict=True)]
    pads = []
    for axis, total in enumerate(cut):
        if total < 0:  # larger than all that the kernel reaches: the rest is empty
            extra[axis] -= total
            total = 0
        half = total // 2
        pads.append((half, total - half) if automatic == "SAME_UPPER" else (total - half, half))
    return pads, extra


def transpose_convolve(tensor: Any, kernels: Any, strides: list[int], pads: Pads, extra: list[int]) -> Any:
    """A transposed convolution of two or three spatial axes.

    Args:
        tensor: (batch, space..., in), of known sizes.
        kernels: (kernel..., out, in).
        strides: How far apart the elements of the input are laid.
        pads: What is cut from each end of the full result.
        extra: What is added at its far end.
    """
    sizes, kernel = tensor.shape.as_list()[1:-1], kernels.shape.as_list()[:-2]
    full = [(size - 1) * stride + k for size, stride, k in zip(sizes, strides, kernel, strict=True)]
    wanted = [each - low - high + more for each, (low, high), more in zip(full, pads, extra, strict=True)]
    batch, channels = tensor.shape[0], kernels.shape[-2]
    batch = tf.shape(tensor)[0] if batch is None else batch
    transpose = tf.nn.conv2d_transpose if len(sizes) == 2 else tf.nn.conv3d_transpose
    same = [
        (max(k - stride, 0) // 2, max(k - stride, 0) - max(k - stride, 0) // 2)
        for k, stride in zip(kernel, strides, strict=True)
    ]
    if [tuple(pad) for pad in pads] == same and wanted == [
        size * stride for size, stride in zip(sizes, strides, strict=True)
    ]:
        return transpose(tensor, kernels, [batch, *wanted, channels], [1, *strides, 1], "SAME")
    grown = [max(each, each + more) for each, more in zip(full, extra, strict=True)]
    result = transpose(tensor, kernels, [batch, *full, channels], [1, *strides, 1], "VALID")
    if grown != full:
        result = tf.pad(result, [(0, 0), *((0, more) for more in extra), (0, 0)])
    begin = [0, *(low for low, _ in pads), 0]
    if any(begin) or wanted != grown:
        result = tf.slice(result, begin, [-1, *wanted, -1])
    return result


def _blocks(tensor: Any, kernels: Any, bias: Value | None) -> Any:
    """A transposed convolution whose kernels do not overlap, as a plain one and a rearrangement of its channels.

    TRANSPOSE_CONV of a device was measured to take two to nine times as long.
    """
    size, _, outputs, inputs = kernels.shape.as_list()
    single = tf.reshape(tf.transpose(kernels, [3, 0, 1, 2]), [1, 1, inputs, size * size * outputs])
    result = tf.nn.conv2d(tensor, single, 1, "VALID")
    if bias is not None:
        result = result + tf.tile(bias.plain.tensor, [size * size])
    return tf.nn.depth_to_space(result, size)


def _stuffed(tensor: Any, kernels: Any, groups: int, strides: list[int], pads: Pads, extra: list[int]) -> Any:
    """A transposed convolution in groups as a plain one over the input with zeros between its elements.

    A device transposes no convolution in groups, and one for each channel would be many operators.
    """
    _, height, width, channels = tensor.shape.as_list()
    if max(strides) > 1:
        tensor = tf.pad(tensor, [(0, 0), (0, 0), (0, 0), (0, (strides[1] - 1) * channels)])
        row = width * strides[1] * channels
        tensor = tf.pad(tf.reshape(tensor, [-1, height, row]), [(0, 0), (0, 0), (0, (strides[0] - 1) * row)])
        tensor = tf.reshape(tensor, [-1, height * strides[0], width * strides[1], channels])
    taps = kernels.shape.as_list()[:2]
    widths = [
        # Zeros were also put after the last element, where none are needed.
        (k - 1 - low, k - 1 - high + more - (stride - 1))
        for k, (low, high), more, stride in zip(taps, pads, extra, strides, strict=True)
    ]
    if any(min(each) < 0 for each in widths):
        ranges = (slice(max(-low, 0), -max(-high, 0) or None) for low, high in widths)
        tensor = tensor[(slice(None), *ranges, slice(None))]
    padded = [(max(low, 0), max(high, 0)) for low, high in widths]
    if any(map(any, padded)):
        tensor = tf.pad(tensor, [(0, 0), *padded, (0, 0)])
    # (kernel, out / groups, in) to (kernel, in / groups, out), turned round.
    outputs, inputs = kernels.shape.as_list()[2:]
    parts = tf.reshape(tf.reverse(kernels, [0, 1]), [*taps, outputs, groups, inputs // groups])
    plain = tf.reshape(tf.transpose(parts, [0, 1, 4, 3, 2]), [*taps, inputs // groups, groups * outputs])
    return _convolved(tensor, plain, groups, [1, 1], [1, 1], "VALID")
