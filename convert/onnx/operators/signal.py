"""Fourier transforms, and the matrices and windows that go with them.

A transform of fixed length is a product with a matrix of cosines and sines, real and imaginary parts side by side: one
fully connected product, or for overlapping frames one convolution, instead of RFFT2D between complex tensors that no
other kernel takes. Its cost grows with the square of the length, and so does the file; long real signals take RFFT2D.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import element_type
from convert.onnx.node import Node
from convert.onnx.operators.gathering import known_sizes
from convert.onnx.operators.joining import padded, sliced
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value
from edge_runtime.tensor_spec import Array

__all__: list[str] = []

tf = load_library("tensorflow")

# Above this length the builtin transform is faster and smaller, where it can be used.
_MATRIX_LENGTH = 512
_MATRIX_ELEMENTS = 1 << 24


@operator("DFT")
def dft_by_attribute(node: Node, x: Value, length: Value | None = None) -> Value:
    """The discrete Fourier transform along an axis that the node has."""
    return _dft(node, x, length, node.attribute("axis", 1))


@operator("DFT", since=20)
def dft(node: Node, x: Value, length: Value | None = None, axis: Value | None = None) -> Value:
    """The discrete Fourier transform along an axis; the last one holds real and imaginary parts."""
    return _dft(node, x, length, -2 if axis is None else node.known(axis, "axis")[0])


def _dft(node: Node, x: Value, length: Value | None, axis: int) -> Value:
    axis %= x.rank
    inverse, onesided = bool(node.attribute("inverse", 0)), bool(node.attribute("onesided", 0))
    order = [*(each for each in range(x.rank - 1) if each != axis), axis, x.rank - 1]
    back = [order.index(each) for each in range(x.rank)]
    *batch, given, parts = (known_sizes(x)[each] for each in order)
    size = given if length is None else node.known(length, "length")[0]
    if length is None and inverse and onesided:
        size = 2 * (given - 1)
    used = size // 2 + 1 if inverse and onesided else size
    signal = sliced(x.transposed(order), [0], [min(given, used)], [-2], [1])
    if parts == 1 and not inverse and size > _MATRIX_LENGTH and size & (size - 1) == 0:
        signal = padded(signal, [(0, 0)] * (x.rank - 2) + [(0, size - min(given, used)), (0, 0)])
        result = _builtin(tf.reshape(signal.tensor, [*batch, size]), size, onesided)
        return Value.of(result, x.dtype).transposed(back)
    matrix = _matrix(size, min(given, used), parts, inverse=inverse, onesided=onesided)
    result = tf.matmul(tf.reshape(signal.tensor, [-1, min(given, used) * parts]), tf.constant(matrix))
    outputs = 1 if inverse and onesided else 2
    return Value.of(tf.reshape(result, [*batch, -1, outputs]), x.dtype).transposed(back)


def _builtin(signal: Any, size: int, onesided: bool) -> Any:
    spectrum = tf.signal.rfft(signal)
    parts = tf.stack([tf.math.real(spectrum), tf.math.imag(spectrum)], -1)
    if onesided:
        return parts
    # The other half is conjugate, backwards.
    mirrored = tf.reverse(parts[..., 1 : size // 2, :], [parts.shape.rank - 2])
    return tf.concat([parts, mirrored * tf.constant([1.0, -1.0])], -2)


def _matrix(size: int, given: int, parts: int, *, inverse: bool, onesided: bool) -> Array:
    """The factors of a signal, (given x parts, frequencies x 2), or (given x parts, size) for a real result."""
    if given * parts * size * 2 > _MATRIX_ELEMENTS:
        raise Unsupported(
            f"a Fourier transform of length {size:,}",
            "use a power of two, or transform before or after the model",
        )
    real = inverse and onesided
    outputs = size // 2 + 1 if onesided and not inverse else size
    turns = np.outer(np.arange(given, dtype=np.int64), np.arange(outputs, dtype=np.int64)) % size / size
    angle = 2 * np.pi * turns * (1 if inverse else -1)
    cosine, sine = np.cos(angle), np.sin(angle)
    if inverse:
        cosine, sine = cosine / size, sine / size
    if real:
        # Frequencies that the other half mirrors count twice.
        weight = np.full((given, 1), 2.0)
        weight[0] = 1.0
        if size % 2 == 0 and given == size // 2 + 1:
            weight[-1] = 1.0
        rows = [(cosine * weight)[:, None, :, None], (-sine * weight)[:, None, :, None]]
    else:
        rows = [np.stack([cosine, sine], -1)[:, None], np.stack([-sine, cosine], -1)[:, None]]
    matrix = np.concatenate(rows[:parts], 1)
    return matrix.reshape(given * parts, -1).astype(np.float32)


@operator("STFT")
def stft(
    node: Node, signal: Value, step: Value, window: Value | None = None, length: Value | None = None
) -> Value:
    """The Fourier transforms of overlapping frames; (batch, frames, frequencies, 2)."""
    # The specification has a last axis of one for real signals; exporters leave it out, and onnxruntime takes that.
    batch, samples, parts = known_sizes(signal) if signal.rank == 3 else (*known_sizes(signal), 1)
    if length is not None:
        size = node.known(length, "frame length")[0]
    elif window is not None:
        size = known_sizes(window)[0]
    else:
        size = samples
    onesided = bool(node.attribute("onesided", 1)) and parts == 1
    matrix = _matrix(size, size, parts, inverse=False, onesided=onesided)
    kernel = matrix.reshape(1, size, parts, -1)
    if window is not None and window.array is not None:
        kernel = kernel * window.array.astype(np.float32)[:, None, None]
    filters = tf.constant(kernel)
    if window is not None and window.array is None:
        filters = filters * tf.reshape(window.tensor, [1, size, 1, 1])
    # Each frequency is a filter of a convolution with the frame's step as its stride.
    frames = tf.nn.conv2d(
        tf.reshape(signal.tensor, [batch, 1, samples, parts]),
        filters,
        [1, 1, node.known(step, "frame step")[0], 1],
        "VALID",
    )
    return Value.of(tf.reshape(frames, [batch, frames.shape[2], -1, 2]), signal.dtype)


@operator("MelWeightMatrix")
def mel_weight_matrix(
    node: Node, bands: Value, length: Value, sample_rate: Value, low: Value, high: Value
) -> Value:
    """Triangles over the frequencies of a spectrum, evenly spaced on the mel scale; (frequencies, bands)."""
    names = ("number of bands", "length", "sample rate", "lowest frequency", "highest frequency")
    count, size, rate, lowest, highest = (
        node.constant(value, name).item()
        for value, name in zip((bands, length, sample_rate, low, high), names, strict=True)
    )

    def mel(hertz: float) -> float:
        return 2595.0 * float(np.log10(1.0 + hertz / 700.0))

    points = mel(lowest) + np.arange(count + 2) * (mel(highest) - mel(lowest)) / (count + 2)
    edges = np.floor((size + 1) * 700.0 * (10.0 ** (points / 2595.0) - 1.0) / rate).astype(np.int64)
    place = np.arange(size // 2 + 1)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        rising = np.where(place <= centre, (place - left) / (centre - left), 0.0)
        falling = np.where(place > centre, (right - place) / (right - centre), 0.0)
    weights = np.where((place >= left) & (place <= centre), rising, 0.0)
    weights = np.where((place > centre) & (place < right), falling, weights)
    # A triangle without a rising side still has its peak.
    weights = np.where((place == centre) & (left == centre), 1.0, weights)
    return Value.constant(weights, element_type(int(node.attribute("output_datatype", 1))))
