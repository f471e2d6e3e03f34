"""How many weights of each layer are pruned."""

from __future__ import annotations

import numpy as np
import pytest

from convert.recipes import Pruning
from convert.training.pruning import allocate, is_sparse
from edge_runtime.tensor_spec import Array

random = np.random.default_rng(0)
# A large layer of which most weights hardly matter, and a small one of weights that all do.
_LARGE = (random.normal(size=20_000) ** 3).astype(np.float32)
_SMALL = random.choice([-1.0, 1.0], 2_000).astype(np.float32) * random.uniform(0.9, 1.1, 2_000).astype(
    np.float32
)


def _zeros(shares: list[float], layers: list[Array]) -> float:
    return sum(share * layer.size for share, layer in zip(shares, layers, strict=True)) / sum(
        layer.size for layer in layers
    )


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.8, 0.95])
def test_more_is_pruned_where_weights_matter_less_and_the_whole_is_as_asked(sparsity: float) -> None:
    layers = [_LARGE, _SMALL]
    shares = allocate(Pruning(sparsity=sparsity), layers)
    assert _zeros(shares, layers) == pytest.approx(sparsity, abs=0.001)
    assert shares[0] > shares[1]
    assert all(0 <= share < 1 for share in shares)


def test_the_scale_of_a_layer_does_not_matter() -> None:
    one, other = (allocate(Pruning(), [_LARGE * factor, _SMALL]) for factor in (1.0, 1000.0))
    assert one == pytest.approx(other, abs=0.001)


def test_uniform_and_two_of_four_are_the_same_everywhere() -> None:
    assert allocate(Pruning(sparsity=0.7, allocation="uniform"), [_LARGE, _SMALL]) == [0.7, 0.7]
    assert allocate(Pruning(pattern="2:4"), [_LARGE, _SMALL]) == [0.5, 0.5]


def test_no_layer_is_pruned_away_and_zeros_go_first() -> None:
    dead = np.zeros(1000, np.float32)
    dead[0] = 1e-20
    shares = allocate(Pruning(sparsity=0.99), [dead, _SMALL])
    assert shares[0] == pytest.approx(0.999)
    assert shares[1] < 1


def test_zeros_are_counted_over_all_layers() -> None:
    mostly, hardly = np.zeros(900, np.float32), np.ones(100, np.float32)
    assert is_sparse(Pruning(sparsity=0.9), [mostly, hardly])
    assert not is_sparse(Pruning(sparsity=0.95), [mostly, hardly])
