"""Ensembles of decision trees, all of them walked at once, one level after the other.

A step gathers the condition of the node that each tree is at, compares, and takes the branch: some small operators on
(samples, trees) for each level. The products of matrices that GPUs prefer (Nakandala et al. 2020, "A Tensor Compiler
for Unified Machine Learning Prediction Serving") grow with the square of a tree's leaves, in time and in the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.forest import Forest, forest_of_nodes, forest_of_tables
from convert.onnx.node import Node
from convert.onnx.problems import Unsupported
from convert.onnx.registry import operator
from convert.onnx.scores import labels_of, transformed, transformed_pair
from convert.onnx.value import Value

__all__: list[str] = []

tf = load_library("tensorflow")

_ML = "ai.onnx.ml"


@operator("TreeEnsembleRegressor", domain=_ML)
def tree_ensemble_regressor(node: Node, x: Value) -> Value:
    """Sums, means or extremes over trees, shape (samples, targets)."""
    targets = int(node.attribute("n_targets", 1))
    forest = forest_of_nodes(node.attributes, "target", targets)
    result = _aggregated(forest, _leaves(forest, x), node.attribute("aggregate_function", "SUM"))
    bases = _base_values(node)
    result = result + bases if bases.size else result
    return Value.of(transformed(result, node.attribute("post_transform", "NONE")), np.float32)


@operator("TreeEnsemble", domain=_ML)
def tree_ensemble(node: Node, x: Value) -> Value:
    """Sums, means or extremes over trees, shape (samples, targets)."""
    forest = forest_of_tables(node.attributes, int(node.attribute("n_targets", 1)))
    how = ("AVERAGE", "SUM", "MIN", "MAX")[node.attribute("aggregate_function", 1)]
    result = _aggregated(forest, _leaves(forest, x), how)
    after = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")[node.attribute("post_transform", 0)]
    return Value.of(transformed(result, after), x.dtype)


@operator("TreeEnsembleClassifier", domain=_ML)
def tree_ensemble_classifier(node: Node, x: Value) -> list[Value | None]:
    """Labels and scores, shapes (samples,) and (samples, classes)."""
    labels = node.attribute("classlabels_int64s") or node.attribute("classlabels_strings")
    count = len(labels)
    how = node.attribute("post_transform", "NONE")
    forest = forest_of_nodes(node.attributes, "class", max(count, max(node.attributes["class_ids"]) + 1))
    sums = _aggregated(forest, _leaves(forest, x), "SUM")
    bases = _base_values(node)
    if count <= 2 and len(set(node.attributes["class_ids"])) == 1:
        label, scores = _binary(node, sums, bases, how)
        return [labels_of(node.attributes, label), Value.of(scores, np.float32)]
    if bases.size not in (0, count):
        raise Unsupported(
            f"{bases.size} base values for {count} classes", "export it with one for each, or none"
        )
    ranked = sums
    if bases.size:
        ranked = sums = sums + bases
    elif not forest.touched.any(0).all():
        # A class that no tree knows is never chosen.
        ranked = tf.where(forest.touched.any(0), sums, -np.inf)
    label = labels_of(node.attributes, tf.argmax(ranked, -1, output_type=tf.int32))
    return [label, Value.of(transformed(sums, how), np.float32)]


def _binary(node: Node, sums: Any, bases: Any, how: str) -> tuple[Any, Any]:
    """Index of the label and scores of two classes where the trees know only one of them, as onnxruntime has it."""
    only = int(node.attributes["class_ids"][0])
    if bases.size > (only == 0) or how == "PROBIT":
        raise Unsupported(
            "trees of one of two classes with scores on which the specification is silent",
            "export it with at most one base value, for the first class, and without PROBIT",
        )
    weights = np.asarray(node.attribute("class_weights_as_tensor", node.attribute("class_weights", [])))
    score = sums[:, only : only + 1]
    score = score + bases if bases.size else score
    positive = bool((weights >= 0).all())
    label = tf.cast(score[:, 0] > (0.5 if positive else 0.0), tf.int32)
    if only == 1:
        return label, transformed(tf.concat([tf.zeros_like(score), score], 1), how)
    return label, transformed_pair(score, how, probability=positive)


def _leaves(forest: Forest, x: Value) -> Any:
    """Which leaf each tree ends in, counted from the first, shape (samples, trees)."""
    tensor = x.tensor[None, :] if x.rank == 1 else x.tensor
    tensor = tf.cast(tensor, tf.float32)
    here = tf.constant(forest.roots[None, :])
    for _ in range(forest.depth):
        here = _step(forest, tensor, here)
    here = here - forest.first_leaf
    if here.shape[0] != 1 or tensor.shape[0] == 1:
        return here
    return here + tf.zeros_like(tf.cast(tensor[:, :1], tf.int32))


def _step(forest: Forest, x: Any, here: Any) -> Any:
    features = _looked_up(forest.features, here)
    values = _features(x, features)
    low, high = _looked_up(forest.below, here), _looked_up(forest.above, here)
    following = tf.where(values <= _looked_up(forest.thresholds, here), low, high)
    if forest.notices_missing:
        following = tf.where(tf.not_equal(values, values), _looked_up(forest.missing, here), following)
    return following


def _looked_up(table: Any, index: Any) -> Any:
    known = tf.get_static_value(index)
    return tf.constant(table[known]) if known is not None else tf.gather(tf.constant(table), index)


def _features(x: Any, features: Any) -> Any:
    """Features (samples, trees) of samples (samples, features); the indices may be the same for all."""
    if features.shape[0] == 1:
        return tf.gather(x, features[0], axis=1)
    return tf.gather(x, features, axis=1, batch_dims=1)


def _aggregated(forest: Forest, leaves: Any, how: str) -> Any:
    """The weights of leaves over all trees, shape (samples, targets)."""
    weights = forest.weights.astype(np.float32)
    if how in ("MIN", "MAX"):
        worst = np.inf if how == "MIN" else -np.inf
        reduce = tf.reduce_min if how == "MIN" else tf.reduce_max
        chosen = tf.gather(tf.constant(np.where(forest.touched, weights, np.float32(worst))), leaves)
        result = reduce(chosen, 1)
        return tf.where(tf.equal(result, worst), 0.0, result)
    total = _total(forest, weights, leaves)
    return total * np.float32(1.0 / len(forest.roots)) if how == "AVERAGE" else total


def _total(forest: Forest, weights: Any, leaves: Any) -> Any:
    targets = _targets(forest)
    if targets is None:
        return tf.reduce_sum(tf.gather(tf.constant(weights), leaves), 1)
    # A tree of boosting has one class: its leaves are numbers, and a product sums those of each class.
    chosen = tf.gather(tf.constant(weights.sum(1)), leaves)
    if weights.shape[1] == 1:
        return tf.reduce_sum(chosen, 1, keepdims=True)
    return tf.matmul(chosen, np.eye(weights.shape[1], dtype=np.float32)[targets])


def _targets(forest: Forest) -> Any:
    """The only target of each tree; None where a tree has several."""
    ways = (forest.below, forest.above, forest.missing)
    targets = []
    for root in forest.roots:
        current = np.array([root])
        while (current < forest.first_leaf).any():
            current = np.unique(np.concatenate([way[current] for way in ways]))
        touched = np.flatnonzero(forest.touched[current - forest.first_leaf].any(0))
        if touched.size > 1:
            return None
        targets.append(touched[0] if touched.size else 0)
    return np.array(targets)


def _base_values(node: Node) -> Any:
    values = node.attribute("base_values_as_tensor", node.attribute("base_values", []))
    return np.asarray(values, np.float32).reshape(-1)
