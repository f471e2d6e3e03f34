"""Decision trees as tables of nodes, in the form in which a device walks them.

All trees of an ensemble are one table. Every kind of condition is brought to ``x <= threshold``: a strict comparison
has the next smaller float as its threshold, a reversed one its branches exchanged, an equality is two nodes. A leaf
leads to itself, so that all trees can be walked for as many steps as the deepest has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from convert.onnx.problems import Unsupported
from edge_runtime.tensor_spec import Array

__all__ = ["Forest", "forest_of_nodes", "forest_of_tables"]

_MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")

# A node before it has its place: feature, threshold, and the places of the nodes for "at most", "above" and "missing".
_Node: TypeAlias = tuple[int, np.float32, int, int, int]


@dataclass(frozen=True)
class Forest:
    """Tables with one entry for each node; the leaves come last.

    Attributes:
        features: Which feature a node compares.
        thresholds: With what, in float32.
        below: Where to go from it if the feature is at most that.
        above: Where to go otherwise.
        missing: Where to go if the feature is not a number.
        roots: First node of each tree.
        depth: Most nodes before a leaf.
        first_leaf: Place of the first leaf.
        weights: What a leaf adds to each target, shape (leaves, targets).
        touched: Which of them it has, the same shape.
    """

    features: Array
    thresholds: Array
    below: Array
    above: Array
    missing: Array
    roots: Array
    depth: int
    first_leaf: int
    weights: Array
    touched: Array

    @property
    def notices_missing(self) -> bool:
        """Whether a missing feature leads anywhere else than a large one."""
        return bool((self.missing != self.above).any())


class _Builder:
    """Collects nodes and leaves; a leaf has a negative place until the number of nodes is known."""

    def __init__(self, targets: int):
        self.nodes: list[_Node | None] = []
        self.weights: list[Array] = []
        self.touched: list[Array] = []
        self._targets = targets

    def leaf(self, weights: Sequence[tuple[int, float]]) -> int:
        row = np.zeros(self._targets, np.float64)
        touched = np.zeros(self._targets, np.bool_)
        for target, weight in weights:
            row[target] += weight
            touched[target] = True
        self.weights.append(row)
        self.touched.append(touched)
        return -len(self.weights)

    def reserve(self) -> int:
        self.nodes.append(None)
        return len(self.nodes) - 1

    def branch(
        self, place: int, mode: str, feature: int, values: Sequence[Any], yes: int, no: int, missing: int
    ) -> None:
        """Fills a reserved place."""
        if mode == "BRANCH_MEMBER":
            self._member(place, feature, values, yes, no, missing)
            return
        value = values[0]
        # Thresholds of float64 are rounded as the features are, so that equal ones stay equal.
        at_most = np.float32(value)
        less = np.nextafter(at_most, np.float32(-np.inf))
        if mode == "BRANCH_LEQ":
            self.nodes[place] = (feature, at_most, yes, no, missing)
        elif mode == "BRANCH_LT":
            self.nodes[place] = (feature, less, yes, no, missing)
        elif mode == "BRANCH_GT":
            self.nodes[place] = (feature, at_most, no, yes, missing)
        elif mode == "BRANCH_GTE":
            self.nodes[place] = (feature, less, no, yes, missing)
        elif mode in ("BRANCH_EQ", "BRANCH_NEQ"):
            equal, other = (yes, no) if mode == "BRANCH_EQ" else (no, yes)
            # Not a number is unequal to anything, as onnxruntime compares; the specification does not say.
            missing = other if mode == "BRANCH_NEQ" else missing
            second = self.reserve()
            self.nodes[place] = (feature, at_most, second, other, missing)
            self.nodes[second] = (feature, less, other, equal, missing)
        else:
            raise Unsupported(f"a tree with the condition {mode}", "train the model with plain comparisons")

    def _member(
        self, place: int, feature: int, values: Sequence[Any], yes: int, no: int, missing: int
    ) -> None:
        members = sorted(set(values))
        for index, member in enumerate(members):
            following = no if index == len(members) - 1 else self.reserve()
            self.branch(place, "BRANCH_EQ", feature, [member], yes, following, missing)
            place = following

    def forest(self, roots: Sequence[int]) -> Forest:
        count = len(self.nodes)

        def place(index: int) -> int:
            return index if index >= 0 else count - 1 - index

        leaves = range(count, count + len(self.weights))
        nodes = [node for node in self.nodes if node is not None]
        columns = list(zip(*nodes, strict=True)) if nodes else [(), (), (), (), ()]
        below, above, missing = (
            np.array([*(place(each) for each in column), *leaves], np.int32) for column in columns[2:]
        )
        filler = [0] * len(leaves)
        starts = np.array([place(each) for each in roots], np.int32)
        return Forest(
            features=np.array([*columns[0], *filler], np.int32),
            thresholds=np.array([*columns[1], *filler], np.float32),
            below=below,
            above=above,
            missing=missing,
            roots=starts,
            depth=_depth(starts, (below, above, missing), count),
            first_leaf=count,
            weights=np.array(self.weights),
            touched=np.array(self.touched),
        )


def _depth(roots: Array, ways: tuple[Array, ...], count: int) -> int:
    current, depth = np.unique(roots), 0
    while (current < count).any():
        current = np.unique(np.concatenate([way[current] for way in ways]))
        depth += 1
        if depth > count:
            raise Unsupported("a tree whose nodes lead back to one another", "export the model again")
    return depth


def forest_of_nodes(attributes: Mapping[str, Any], prefix: str, targets: int) -> Forest:
    """The trees of a `TreeEnsembleClassifier` or `TreeEnsembleRegressor`.

    Args:
        attributes: Of the node.
        prefix: `class` or `target`, before the names of the attributes of leaves.
        targets: How many results there are.
    """

    def either(name: str) -> Any:
        return attributes.get(f"{name}_as_tensor", attributes.get(name, []))

    builder = _Builder(targets)
    leaves: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for tree, node, target, weight in zip(
        *(attributes.get(f"{prefix}_{name}", []) for name in ("treeids", "nodeids", "ids")),
        either(f"{prefix}_weights"),
        strict=True,
    ):
        leaves.setdefault((tree, node), []).append((target, float(weight)))
    keys = list(zip(attributes["nodes_treeids"], attributes["nodes_nodeids"], strict=True))
    modes = attributes["nodes_modes"]
    places = {
        key: builder.leaf(leaves.get(key, [])) if mode == "LEAF" else builder.reserve()
        for key, mode in zip(keys, modes, strict=True)
    }
    yes, no = attributes["nodes_truenodeids"], attributes["nodes_falsenodeids"]
    features, values = attributes["nodes_featureids"], either("nodes_values")
    tracks = attributes.get("nodes_missing_value_tracks_true") or [0] * len(keys)
    for index, ((tree, node), mode) in enumerate(zip(keys, modes, strict=True)):
        if mode != "LEAF":
            true, false = places[tree, yes[index]], places[tree, no[index]]
            missing = true if tracks[index] else false
            place = places[tree, node]
            builder.branch(place, mode, int(features[index]), [values[index]], true, false, missing)
    # The root of a tree is the first of its nodes.
    roots: dict[int, int] = {}
    for key in keys:
        roots.setdefault(key[0], places[key])
    return builder.forest(list(roots.values()))


def forest_of_tables(attributes: Mapping[str, Any], targets: int) -> Forest:
    """The trees of a `TreeEnsemble`, which names nodes and leaves by their places in two lists."""
    builder = _Builder(targets)
    leaves = [
        builder.leaf([(int(target), float(weight))])
        for target, weight in zip(
            attributes["leaf_targetids"], np.asarray(attributes["leaf_weights"]).reshape(-1), strict=True
        )
    ]
    modes = [_MODES[int(mode)] for mode in np.asarray(attributes["nodes_modes"]).reshape(-1)]
    splits = np.asarray(attributes["nodes_splits"]).reshape(-1)
    members = iter(np.asarray(attributes.get("membership_values", [])).reshape(-1))
    values = [
        _until_nan(members) if mode == "BRANCH_MEMBER" else [split]
        for mode, split in zip(modes, splits, strict=True)
    ]
    places = [builder.reserve() for _ in modes]
    sides = [
        [leaves[node] if leaf else places[node] for node, leaf in zip(*pair, strict=True)]
        for pair in (
            (attributes["nodes_truenodeids"], attributes["nodes_trueleafs"]),
            (attributes["nodes_falsenodeids"], attributes["nodes_falseleafs"]),
        )
    ]
    tracks = attributes.get("nodes_missing_value_tracks_true") or [0] * len(modes)
    for index, mode in enumerate(modes):
        true, false = sides[0][index], sides[1][index]
        missing = true if tracks[index] else false
        feature = int(attributes["nodes_featureids"][index])
        builder.branch(places[index], mode, feature, values[index], true, false, missing)
    return builder.forest([places[root] for root in attributes["tree_roots"]])


def _until_nan(values: Any) -> list[Any]:
    taken = []
    for value in values:
        if np.isnan(value):
            break
        taken.append(value)
    return taken
