"""Preparation of features for the models of `ai.onnx.ml`."""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import carry
from convert.onnx.node import Node
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.value import Value, identity

__all__: list[str] = []

tf = load_library("tensorflow")

_ML = "ai.onnx.ml"


@operator("Scaler", domain=_ML)
def scaler(node: Node, x: Value) -> Value:
    """``(x - offset) * scale`` for each feature."""
    offset, scale = (np.asarray(node.attribute(name), np.float32) for name in ("offset", "scale"))
    return Value.of((tf.cast(x.tensor, tf.float32) - offset) * scale, np.float32)


@operator("Normalizer", domain=_ML)
def normalizer(node: Node, x: Value) -> Value:
    """Each sample divided by its largest value, sum of magnitudes, or Euclidean norm, unless that is zero."""
    tensor = tf.cast(x.tensor, tf.float32)
    kind = node.attribute("norm", "MAX")
    if kind == "MAX":
        norm = tf.reduce_max(tensor, -1, keepdims=True)
    elif kind == "L1":
        norm = tf.reduce_sum(tf.abs(tensor), -1, keepdims=True)
    else:
        norm = tf.sqrt(tf.reduce_sum(tf.square(tensor), -1, keepdims=True))
    return Value.of(tensor / tf.where(tf.equal(norm, 0.0), 1.0, norm), np.float32)


@operator("Binarizer", domain=_ML)
def binarizer(node: Node, x: Value) -> Value:
    """One where an element is above the threshold, else zero."""
    tensor = x.flat
    threshold = tf.cast(node.attribute("threshold", 0.0), tensor.dtype)
    return x.like(tf.cast(tensor > threshold, tensor.dtype))


@operator("Imputer", domain=_ML)
def imputer(node: Node, x: Value) -> Value:
    """Elements that stand for a missing one replaced, by one value or one for each feature."""
    tensor = x.tensor
    kind = "float" if tensor.dtype.is_floating else "int64"
    values = node.attribute(f"imputed_value_{kind}s")
    if not values:
        raise Unsupported("it has no values of its input's type", "check the imputed_value attributes")
    replaced = node.attribute(f"replaced_value_{kind}", 0)
    filler = np.asarray(values, tensor.dtype.as_numpy_dtype)
    filler = filler.reshape(()) if filler.size == 1 else filler
    missing = tf.not_equal(tensor, tensor) if np.isnan(replaced) else tf.equal(tensor, replaced)
    return Value.of(tf.where(missing, filler, tensor), x.dtype)


@operator("ArrayFeatureExtractor", domain=_ML)
def array_feature_extractor(_node: Node, x: Value, indices: Value) -> Value:
    """Elements along the last axis; of one axis, as one sample."""
    index = tf.reshape(tf.cast(indices.tensor, tf.int32), [-1])
    result = tf.gather(x.tensor, index, axis=x.rank - 1)
    return Value.of(result[None, :] if x.rank == 1 else result, x.dtype)


@operator("FeatureVectorizer", domain=_ML)
def feature_vectorizer(node: Node, *values: Value) -> Value:
    """Features side by side, each input cut off or filled up with zeros to a width."""
    widths = node.attribute("inputdimensions") or [value.shape[-1] for value in values]
    parts = []
    for value, width in zip(values, widths, strict=True):
        tensor = tf.cast(value.tensor, tf.float32)
        tensor = tensor[:, None] if value.rank == 1 else tensor
        size = tensor.shape[1]
        if size is None:
            raise Unsupported("the size of its input is not known", "fix it with --input NAME:SHAPE")
        parts.append(tensor[:, :width] if size >= width else tf.pad(tensor, [(0, 0), (0, width - size)]))
    return Value.of(tf.concat(parts, 1), np.float32)


@operator("OneHotEncoder", domain=_ML)
def one_hot_encoder(node: Node, x: Value) -> Value:
    """A last axis with a one for the category that each element is, or zeros only where it is none."""
    categories = node.attribute("cats_int64s")
    if not categories:
        raise Unsupported("categories of text", "encode text as integers before the model")
    if not node.attribute("zeros", 1):
        raise Unsupported(
            "it stops at a category that it does not know, which no device can do", "export it with zeros=1"
        )
    tensor = tf.cast(x.tensor, tf.int64 if x.dtype in (np.int64, np.uint32) else tf.int32)
    known = tf.constant(categories, tensor.dtype)
    return Value.of(tf.cast(tf.equal(tensor[..., None], known), tf.float32), np.float32)


@operator("LabelEncoder", domain=_ML)
def old_label_encoder(_node: Node, _x: Value) -> Value:
    """Between text and its indices."""
    raise Unsupported("labels of text", "leave text to what runs before and after the model")


@operator("LabelEncoder", domain=_ML, since=2)
def label_encoder(node: Node, x: Value) -> Value:
    """The value of the key that each element is, or a default."""
    keys, values = _mapping(node, "keys"), _mapping(node, "values")
    default = _default(node, values.dtype)
    _, first = np.unique(keys, return_index=True)
    keys, values = keys[np.sort(first)], values[np.sort(first)]
    if x.array is not None:
        found = dict(zip(keys.tolist(), values, strict=True))
        flat = [found.get(each, default) for each in x.array.reshape(-1).tolist()]
        return Value.constant(np.array(flat, values.dtype).reshape(x.array.shape))
    tensor = x.flat
    wanted = carry(keys.astype(x.dtype))
    equal = tf.equal(tensor[..., None], tf.constant(wanted))
    if node.version >= 4 and keys.dtype.kind == "f" and np.isnan(keys).any():
        equal = tf.logical_or(equal, tf.logical_and(tf.not_equal(tensor, tensor)[..., None], np.isnan(keys)))
    # Zero is nowhere; the places of keys count from one.
    place = tf.reduce_max(tf.where(equal, np.arange(1, len(keys) + 1, dtype=np.int32), 0), -1)
    table = carry(np.concatenate([[default], values]).astype(values.dtype))
    return Value.of(tf.gather(tf.constant(table), place), values.dtype, x.order)


def _mapping(node: Node, side: str) -> Any:
    for kind, dtype in (("floats", np.float32), ("int64s", np.int64), ("tensor", None)):
        given = node.attribute(f"{side}_{kind}")
        if given is not None and len(given):
            array = np.asarray(given) if dtype is None else np.asarray(given, dtype)
            if array.dtype.kind not in "OUS":
                return array.reshape(-1)
    raise Unsupported("labels of text", "leave text to what runs before and after the model")


def _default(node: Node, dtype: np.dtype[Any]) -> Any:
    given = node.attribute("default_tensor")
    if given is not None:
        return np.asarray(given).reshape(-1)[0]
    if dtype.kind == "f":
        return node.attribute("default_float", -0.0)
    return node.attribute("default_int64", -1)


@operator("CDist", domain="com.microsoft")
def pairwise_distances(node: Node, a: Value, b: Value) -> Value:
    """Distances of the rows of two matrices, shape (rows of a, rows of b)."""
    squares = tf.reduce_sum(tf.square(a.tensor[:, None, :] - b.tensor[None]), -1)
    result = squares if node.attribute("metric", "sqeuclidean") == "sqeuclidean" else tf.sqrt(squares)
    return Value.of(result, a.dtype, identity(2))
