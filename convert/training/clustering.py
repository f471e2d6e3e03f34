"""Clustering: the weights of a layer come to share few values, which are trained in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convert.recipes import Clustering
from convert.training.fitting import Fitting
from convert.training.kernels import Treated
from convert.training.pruning import keep_zeros, share_of_zeros
from convert.training.rebuilding import Copy, rewired

__all__ = ["cluster"]


def cluster(
    copy: Copy, treated: Treated, clustering: Clustering, fitting: Fitting, *, pruned: Mapping[int, str]
) -> None:
    """Trains the copy in place; its kernels end with as few values as were asked for.

    Args:
        copy: The model.
        treated: What of it.
        clustering: How many values.
        fitting: How to train.
        pruned: Places of kernels whose zeros stay, as one of the values.
    """
    import tensorflow_model_optimization as tfmot
    from tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster import (
        cluster_weights,
    )

    sparse = bool(pruned)
    wrappers: list[Any] = []

    def wrapped(layer: Any) -> Any:
        if id(layer) not in treated.attributes:
            return layer
        # tfmot wants one value more than the zero.
        wrappers.append(
            cluster_weights(
                layer,
                number_of_clusters=max(clustering.clusters, 3 if sparse else 2),
                cluster_centroids_init=tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
                preserve_sparsity=sparse,
            )
        )
        return wrappers[-1]

    kernels = [copy.variables[place] for place in pruned]

    def settle() -> None:
        # Between steps the kernel itself lags behind the values it is to share.
        for wrapper in wrappers:
            wrapper.update_clustered_weights_associations()
            for name, variable in wrapper.original_clusterable_weights.items():
                variable.assign(wrapper.get_weight_from_layer(name))

    fitting.fit(
        rewired(copy.model, wrapped),
        "cluster",
        sparsity=lambda: share_of_zeros([kernel.numpy() for kernel in kernels]),
        callbacks=keep_zeros(copy, [place for place in pruned if place not in treated.places]),
        later=sparse,
    )
    settle()
