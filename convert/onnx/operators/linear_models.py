"""Linear models and support vector machines."""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.node import Node
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.scores import labels_of, transformed, transformed_pair
from convert.onnx.value import Value
from edge_runtime.tensor_spec import Array

__all__: list[str] = []

tf = load_library("tensorflow")

_ML = "ai.onnx.ml"

# Differences to all support vectors are exact; beyond so many of their elements, a product of matrices is used.
_MOST_DIFFERENCES = 1 << 16


@operator("LinearRegressor", domain=_ML)
def linear_regressor(node: Node, x: Value) -> Value:
    """``x @ coefficients + intercepts``, shape (samples, targets)."""
    targets = int(node.attribute("targets", 1))
    how = node.attribute("post_transform", "NONE")
    if targets == 1 and how not in ("NONE", "PROBIT"):
        raise Unsupported(
            f"{how} of a single target, which runtimes leave out", "export it without post_transform"
        )
    return Value.of(transformed(_linear(node, x, targets), how), np.float32)


@operator("LinearClassifier", domain=_ML)
def linear_classifier(node: Node, x: Value) -> list[Value | None]:
    """Labels and scores, shapes (samples,) and (samples, classes)."""
    how = node.attribute("post_transform", "NONE")
    labels = node.attribute("classlabels_ints") or node.attribute("classlabels_strings") or []
    count = len(node.attribute("coefficients")) // int(x.shape[-1] or 1)
    scores = _linear(node, x, count)
    if count > 1:
        index = tf.argmax(scores, -1, output_type=tf.int32)
        return [labels_of(node.attributes, index), Value.of(transformed(scores, how), np.float32)]
    index = tf.cast(scores[:, 0] > 0.0, tf.int32)
    if len(labels) == 2:
        if how == "PROBIT":
            raise Unsupported("PROBIT of a single score", "export it with a score for each class")
        # Not a probability, but what onnxruntime takes it for.
        scores = transformed_pair(scores, how, probability=True)
        return [labels_of(node.attributes, index), Value.of(scores, np.float32)]
    label = Value.of(tf.cast(index, tf.int64), np.int64)
    return [label, Value.of(transformed(scores, how), np.float32)]


def _linear(node: Node, x: Value, count: int) -> Any:
    coefficients = np.asarray(node.attribute("coefficients"), np.float32).reshape(count, -1)
    result = tf.matmul(_samples(x), coefficients.T)
    intercepts = node.attribute("intercepts") or []
    return result + np.asarray(intercepts, np.float32) if len(intercepts) else result


def _samples(x: Value) -> Any:
    tensor = tf.cast(x.tensor, tf.float32)
    return tensor[None, :] if x.rank == 1 else tensor


@operator("SVMRegressor", domain=_ML)
def svm_regressor(node: Node, x: Value) -> Value:
    """The weighted sum of kernels, shape (samples, 1); its sign with `one_class`."""
    coefficients = np.asarray(node.attribute("coefficients"), np.float32)
    supports = int(node.attribute("n_supports", 0))
    if supports:
        kernels = _kernels(node, _samples(x), _vectors(node, supports))
        result = tf.matmul(kernels, coefficients[:, None])
    else:
        result = tf.matmul(_samples(x), coefficients[:, None])
    result = result + np.float32(node.attribute("rho", [0.0])[0])
    if node.attribute("one_class", 0):
        result = tf.where(result > 0.0, 1.0, -1.0)
    return Value.of(transformed(result, node.attribute("post_transform", "NONE")), np.float32)


@operator("SVMClassifier", domain=_ML)
def svm_classifier(node: Node, x: Value) -> list[Value | None]:
    """Labels and scores: a score for each class, or for each pair of them where no probabilities are known."""
    labels = node.attribute("classlabels_ints") or node.attribute("classlabels_strings") or []
    classes = max(len(labels), 1)
    sizes = list(node.attribute("vectors_per_class") or [])
    rho = np.asarray(node.attribute("rho", [0.0]), np.float32)
    how = node.attribute("post_transform", "NONE")
    if not sizes:
        coefficients = np.asarray(node.attribute("coefficients"), np.float32).reshape(classes, -1)
        scores = tf.matmul(_samples(x), coefficients.T) + rho[0]
        votes, has_probabilities = None, False
    else:
        pairs = _pairs(node, x, sizes, rho)
        votes = _votes(pairs, classes)
        has_probabilities = bool(node.attribute("prob_a"))
        scores = _probabilities(node, pairs, classes) if has_probabilities else pairs
    chosen = scores if votes is None else votes
    index = tf.argmax(chosen, -1, output_type=tf.int32)
    if rho.size == 1 and classes <= 2:
        index = _binary_label(node, chosen, index, classes, has_votes=votes is not None)
    result = scores
    if scores.shape[-1] > 1:
        result = transformed(scores, how)
    elif classes == 2:
        if how.startswith("SOFTMAX"):
            raise Unsupported(f"{how} of a single score", "export it without post_transform")
        result = transformed_pair(scores, how, probability=False)
    elif how == "PROBIT":
        result = transformed(scores, how)
    label = labels_of(node.attributes, index) if classes > 1 else Value.of(tf.cast(index, tf.int64), np.int64)
    return [label, Value.of(result, np.float32)]


def _binary_label(node: Node, chosen: Any, index: Any, classes: int, *, has_votes: bool) -> Any:
    """Index of the label where there is one boundary only."""
    largest = tf.reduce_max(chosen, -1)
    if classes < 2:
        return tf.cast(largest > 0.0, tf.int32)
    if node.attribute("prob_a") or min(node.attribute("coefficients")) < 0:
        return index
    if has_votes:
        raise Unsupported(
            "two classes without a negative coefficient", "train it again: such a model has no boundary"
        )
    return tf.where(largest >= 0.5, 1, index)


def _vectors(node: Node, count: int) -> Array:
    return np.asarray(node.attribute("support_vectors"), np.float32).reshape(count, -1)


def _kernels(node: Node, x: Any, vectors: Array) -> Any:
    """The kernel of each sample with each support vector, shape (samples, vectors)."""
    kind = node.attribute("kernel_type", "LINEAR")
    gamma, constant, degree = (*node.attribute("kernel_params", []), 0.0, 0.0, 0.0)[:3]
    if kind == "RBF":
        return tf.exp(_squared_distances(x, vectors) * np.float32(-gamma))
    products = tf.matmul(x, vectors.T)
    if kind == "LINEAR":
        return products
    shifted = products * np.float32(gamma) + np.float32(constant)
    if kind == "SIGMOID":
        return tf.tanh(shifted)
    if kind == "POLY":
        return _power(shifted, int(degree))
    raise Unsupported(
        f"the kernel {kind}", "train the model with a linear, polynomial, rbf or sigmoid kernel"
    )


def _power(x: Any, exponent: int) -> Any:
    # POW of a device is undefined for negative numbers.
    if exponent == 0:
        return tf.ones_like(x)
    half = _power(x, exponent // 2) if exponent > 1 else None
    if half is None:
        return x
    return half * half * x if exponent % 2 else half * half


def _squared_distances(x: Any, vectors: Array) -> Any:
    if vectors.size <= _MOST_DIFFERENCES:
        return tf.reduce_sum(tf.square(x[:, None, :] - vectors[None]), -1)
    # Around their mean the norms are smallest, and so is what cancels.
    mean = vectors.mean(0)
    moved, centred = x - mean, vectors - mean
    norms = tf.reduce_sum(tf.square(moved), -1, keepdims=True)
    return tf.nn.relu(norms - 2.0 * tf.matmul(moved, centred.T) + np.square(centred).sum(1))


def _pairs(node: Node, x: Value, sizes: list[int], rho: Array) -> Any:
    """The decision of each pair of classes (LIBSVM's order), shape (samples, pairs): one product of all kernels."""
    count, classes = sum(sizes), len(sizes)
    kernels = _kernels(node, _samples(x), _vectors(node, count))
    coefficients = np.asarray(node.attribute("coefficients"), np.float32).reshape(classes - 1, count)
    starts = np.cumsum([0, *sizes])
    columns = []
    for i in range(classes):
        for j in range(i + 1, classes):
            column = np.zeros(count, np.float32)
            column[starts[i] : starts[i + 1]] = coefficients[j - 1, starts[i] : starts[i + 1]]
            column[starts[j] : starts[j + 1]] = coefficients[i, starts[j] : starts[j + 1]]
            columns.append(column)
    return tf.matmul(kernels, np.stack(columns, 1)) + rho


def _votes(pairs: Any, classes: int) -> Any:
    """How many pairs each class wins, shape (samples, classes)."""
    first, second = np.triu_indices(classes, 1)
    one = np.eye(classes, dtype=np.float32)
    won = tf.cast(pairs > 0.0, tf.float32)
    return tf.matmul(won, one[first] - one[second]) + one[second].sum(0)


def _probabilities(node: Node, pairs: Any, classes: int) -> Any:
    """Probabilities of classes from those of pairs, iterated and stopped as LIBSVM does (Wu, Lin and Weng 2004)."""
    a, b = (np.asarray(node.attribute(name), np.float32) for name in ("prob_a", "prob_b"))
    first = tf.clip_by_value(tf.sigmoid(-(pairs * a + b)), 1e-7, 1.0 - 1e-7)
    i, j = np.triu_indices(classes, 1)
    place = np.zeros((len(i), classes * classes), np.float32)
    back = place.copy()
    place[np.arange(len(i)), i * classes + j] = 1.0
    back[np.arange(len(i)), j * classes + i] = 1.0
    # r[s, i, j]: the probability of i where only i and j are possible.
    r = tf.reshape(tf.matmul(first, place) + tf.matmul(1.0 - first, back), [-1, classes, classes])
    diagonal = tf.reduce_sum(tf.square(r), 1)
    eye = np.eye(classes, dtype=np.float32)
    q = diagonal[:, :, None] * eye - r * tf.transpose(r, [0, 2, 1])
    start = tf.zeros_like(diagonal) + np.float32(1.0 / classes)
    tolerance = np.float32(0.005 / classes)

    def going(step: Any, p: Any) -> Any:
        return tf.logical_and(step < max(100, classes), tf.reduce_max(_error(q, p)) >= tolerance)

    def body(step: Any, p: Any) -> tuple[Any, Any]:
        better = _improved(q, diagonal, p, classes)
        return step + 1, tf.where(_error(q, p) >= tolerance, better, p)

    return tf.while_loop(going, body, [tf.constant(0), start])[1]


def _error(q: Any, p: Any) -> Any:
    product = tf.reduce_sum(q * p[:, None, :], -1)
    return tf.reduce_max(tf.abs(product - tf.reduce_sum(p * product, -1, keepdims=True)), -1, keepdims=True)


def _improved(q: Any, diagonal: Any, p: Any, classes: int) -> Any:
    product = tf.reduce_sum(q * p[:, None, :], -1)
    total = tf.reduce_sum(p * product, -1, keepdims=True)
    eye = np.eye(classes, dtype=np.float32)
    for t in range(classes):
        own, pivot = product[:, t : t + 1], diagonal[:, t : t + 1]
        change = (total - own) / pivot
        scale = 1.0 / (1.0 + change)
        p = (p + change * eye[t]) * scale
        total = (total + change * (change * pivot + 2.0 * own)) * scale * scale
        product = (product + change * q[:, t]) * scale
    return p
