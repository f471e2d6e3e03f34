"""Times that vary: their distribution, held against closed forms of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cloud_fallback.capacity import GammaTime
from edge_runtime import ErrorCode, HybridgeError


@pytest.mark.parametrize("shape", [1, 2, 9, 100, 2500])
def test_the_distribution_is_erlang_s_for_a_whole_shape(shape: int) -> None:
    # The sum of so many exponential times: still busy while fewer than that have ended.
    means = [0.0, 0.01, 0.5, 0.97, 1.0, 1.03, 1.5, 3.0, 30.0]
    expected = [
        math.fsum(
            math.exp(k * math.log(x) - x - math.lgamma(k + 1)) if x else float(k == 0) for k in range(shape)
        )
        for x in (shape * mean for mean in means)
    ]
    time = GammaTime(2.0, shape**-0.5)
    assert time.above([2 * mean for mean in means]) == pytest.approx(expected, abs=1e-10)


def test_the_distribution_is_that_of_a_squared_normal_for_half_a_shape() -> None:
    times = [1e-6, 0.1, 2.0, 30.0]
    expected = [math.erfc(math.sqrt(time / 4)) for time in times]
    assert GammaTime(2.0, math.sqrt(2)).above(times) == pytest.approx(expected, abs=1e-10)


def test_no_variation_is_a_constant() -> None:
    assert GammaTime(2.0, 0.0).above([-1, 0, 1.99, 2.0, 3]).tolist() == [1, 1, 1, 0, 0]


@pytest.mark.parametrize("cv", [0.0, 0.05, 0.4, 1.0, 3.0])
@pytest.mark.parametrize("limit", [0.5, 2.0, 20.0])
def test_its_pieces_hold_all_of_it(cv: float, limit: float) -> None:
    time = GammaTime(2.0, cv)
    cells = time.cells(limit)
    assert cells.masses.sum() + cells.beyond == pytest.approx(1)
    assert np.all(cells.masses >= -1e-12)
    assert cells.beyond == pytest.approx(float(time.above(limit)), abs=1e-12)


@pytest.mark.parametrize(
    ("mean", "cv"), [(0.0, 1.0), (-1.0, 1.0), (1.0, -0.1), (1.0, 11.0), (float("nan"), 1.0)]
)
def test_other_numbers_are_refused(mean: float, cv: float) -> None:
    with pytest.raises(HybridgeError) as caught:
        GammaTime(mean, cv)
    assert caught.value.code is ErrorCode.USAGE
