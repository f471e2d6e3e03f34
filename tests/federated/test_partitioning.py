from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from federated.partitioning import partition


def _labels(samples: int, classes: int = 10) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.random.default_rng(samples).integers(0, classes, samples).astype(np.int32)


@pytest.mark.parametrize("alpha", [None, 1000.0, 1.0, 0.1, 1e-3, 1e-12])
@pytest.mark.parametrize(("samples", "clients"), [(1, 1), (7, 7), (100, 3), (1437, 10), (500, 200)])
def test_every_sample_goes_to_exactly_one_client_and_clients_get_equally_many(
    samples: int, clients: int, alpha: float | None
) -> None:
    for seed in range(3):
        shares = partition(_labels(samples), clients, alpha=alpha, seed=seed)
        assert len(shares) == clients
        assert sorted(np.concatenate(shares)) == list(range(samples))
        sizes = {len(share) for share in shares}
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_the_seed_chooses_the_partition(alpha: float | None) -> None:
    def flat(seed: int) -> list[int]:
        return [int(index) for share in partition(_labels(300), 5, alpha=alpha, seed=seed) for index in share]

    assert flat(1) == flat(1)
    assert flat(1) != flat(2)


def test_a_smaller_alpha_leaves_a_client_fewer_classes() -> None:
    labels = _labels(5000)

    def largest_share(alpha: float | None) -> float:
        shares = partition(labels, 20, alpha=alpha, seed=3)
        return float(np.mean([np.bincount(labels[share]).max() / len(share) for share in shares]))

    spread = [largest_share(alpha) for alpha in (None, 1000.0, 10.0, 1.0, 0.1)]
    assert spread[0] < 0.2
    assert abs(spread[1] - spread[0]) < 0.05
    assert spread[1] < spread[2] < spread[3] < spread[4]
    assert spread[4] > 0.7


def _refused(call: Callable[[], object]) -> HybridgeError:
    with pytest.raises(HybridgeError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("clients", [0, -1, 6])
def test_fewer_samples_than_clients_are_refused(clients: int) -> None:
    error = _refused(lambda: partition(_labels(5), clients))
    assert error.code is ErrorCode.DATA_INVALID
    assert "5 samples" in error.message


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_an_alpha_that_is_no_concentration_is_refused(alpha: float) -> None:
    assert _refused(lambda: partition(_labels(5), 2, alpha=alpha)).code is ErrorCode.DATA_INVALID
