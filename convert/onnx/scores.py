"""What classifiers and regressors of `ai.onnx.ml` make of their raw scores, and the labels they choose.

The specification leaves out what a single score of two classes becomes; here it is what onnxruntime does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.problems import Unsupported
from convert.onnx.value import Value

__all__ = ["labels_of", "mirrored", "transformed", "transformed_pair"]


def transformed(scores: Any, how: str) -> Any:
    """Scores of shape (samples, classes) after a `post_transform`."""
    tensorflow = load_library("tensorflow")
    if how in ("", "NONE"):
        return scores
    if how == "LOGISTIC":
        return tensorflow.sigmoid(scores)
    if how == "SOFTMAX":
        return tensorflow.nn.softmax(scores)
    if how == "SOFTMAX_ZERO":
        return _softmax_zero(scores)
    if how == "PROBIT":
        return _probit(scores)
    raise Unsupported(f"the transformation {how} of its scores", "export the model without a post_transform")


def mirrored(score: Any, *, probability: bool) -> Any:
    """Scores (samples, 2) of two classes from the one of the second, which may be a probability."""
    tensorflow = load_library("tensorflow")
    return tensorflow.concat([1.0 - score if probability else -score, score], 1)


def transformed_pair(score: Any, how: str, *, probability: bool) -> Any:
    """What becomes of a single score of two classes; nothing but LOGISTIC changes it further."""
    if how == "LOGISTIC":
        return transformed(mirrored(score, probability=False), how)
    return mirrored(score, probability=probability)


def labels_of(
    attributes: Mapping[str, Any], index: Any, *, names: tuple[str, ...] = ("int64s", "ints")
) -> Value | None:
    """The labels at indices of classes, shape (samples,); None for labels that are text.

    Args:
        attributes: Of the node.
        index: int32 indices.
        names: How the attribute that has them may end.
    """
    tensorflow = load_library("tensorflow")
    labels: list[int] = next(
        (attributes[f"classlabels_{name}"] for name in names if f"classlabels_{name}" in attributes), []
    )
    if not len(labels):
        if attributes.get("classlabels_strings"):
            return None
        return Value.of(tensorflow.cast(index, tensorflow.int64), np.int64)
    if list(labels) == list(range(len(labels))):
        return Value.of(tensorflow.cast(index, tensorflow.int64), np.int64)
    return Value.of(tensorflow.gather(tensorflow.constant(labels, tensorflow.int64), index), np.int64)


def _softmax_zero(scores: Any) -> Any:
    # Scores of zero stay zero beside the exponentials of the others.
    tensorflow = load_library("tensorflow")
    largest = tensorflow.reduce_max(scores, -1, keepdims=True)
    counted = tensorflow.abs(scores) > 1e-7
    exponentials = tensorflow.where(
        counted, tensorflow.exp(scores - largest), scores * tensorflow.exp(-largest)
    )
    total = tensorflow.reduce_sum(tensorflow.where(counted, exponentials, 0.0), -1, keepdims=True)
    return tensorflow.where(tensorflow.equal(total, 0.0), exponentials, exponentials / total)


def _probit(scores: Any) -> Any:
    """The inverse of the normal distribution, by an approximation of the inverse error function (Winitzki 2008)."""
    tensorflow = load_library("tensorflow")
    x = 2.0 * scores - 1.0
    a = 0.147
    log = tensorflow.math.log((1.0 - x) * (1.0 + x))
    half = 2.0 / (np.pi * a) + 0.5 * log
    inverse = tensorflow.sqrt(tensorflow.sqrt(half * half - log / a) - half)
    return np.sqrt(2.0).astype(np.float32) * tensorflow.where(x < 0.0, -inverse, inverse)
