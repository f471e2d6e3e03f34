"""How labelled samples are spread over clients: evenly at random, or with skewed labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ErrorCode, HybridgeError
from federated.samples import Labels

__all__ = ["partition"]

_Indices = npt.NDArray[np.int64]


def partition(labels: Labels, clients: int, *, alpha: float | None = None, seed: int = 0) -> list[_Indices]:
    """Deals every sample to exactly one client; clients get equally many, to within one sample.

    Without `alpha` each client's share is drawn at random from all samples (iid). With it, each client draws a
    class distribution from a Dirichlet distribution around that of all samples, and takes samples accordingly, as
    long as they last: 100 is close to iid, 1 leaves a client a few classes, 0.1 little more than one. (Where a
    concentration is given per class, as some libraries do, it is this one divided by the number of classes.)

    Args:
        labels: Class labels of shape (samples,).
        clients: How many clients share them.
        alpha: Concentration of the Dirichlet distribution, above 0.
        seed: The same seed gives the same partition.

    Returns:
        For each client the indices of its samples, in random order.

    Raises:
        HybridgeError: `data-invalid` for fewer samples than clients, or an `alpha` that is not above 0.

    Source:
        Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
        Classification", 2019, https://arxiv.org/abs/1909.06335, section 3.
    """
    if not 1 <= clients <= len(labels):
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            f"training samples for {clients} clients",
            received=f"{len(labels)} samples",
            expected="one client or more, and at least one sample for each",
            fix="use fewer clients or more data",
        )
    if alpha is not None and not 0 < alpha < np.inf:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            "Dirichlet concentration",
            received=f"alpha={alpha}",
            expected="a number above 0",
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    if alpha is None:
        return np.array_split(order, clients)
    sizes = [len(share) for share in np.array_split(order, clients)]
    return _skewed(labels[order], order, sizes, alpha, rng)


def _skewed(
    labels: npt.NDArray[Any], order: _Indices, sizes: list[int], alpha: float, rng: np.random.Generator
) -> list[_Indices]:
    """Deals the samples `order`, whose labels are `labels`, in shares of `sizes`."""
    stocks = [order[labels == label] for label in np.unique(labels)]
    prior = np.array([len(stock) for stock in stocks]) / len(order)
    shares = []
    for size in sizes:
        distribution = rng.dirichlet(alpha * prior)
        taken: list[_Indices] = []
        missing = size
        while missing:
            left = np.array([len(stock) for stock in stocks])
            wanted = distribution * (left > 0)
            # A small alpha puts all weight on few classes; once they are used up, what is left is dealt evenly.
            if not (total := wanted.sum()) > 0:
                wanted, total = left, left.sum()
            counts = np.minimum(rng.multinomial(missing, wanted / total), left)
            for place, count in enumerate(counts):
                taken.append(stocks[place][:count])
                stocks[place] = stocks[place][count:]
            missing -= int(counts.sum())
        shares.append(rng.permutation(np.concatenate(taken)))
    return shares
