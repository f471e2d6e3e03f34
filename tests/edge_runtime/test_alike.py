"""What counts as the same output, alone and in a batch."""

from __future__ import annotations

import numpy as np

from edge_runtime.alike import alike


def test_floats_may_differ_by_a_share_of_the_largest() -> None:
    alone = {"y": np.array([[10.0, 0.0]], np.float32)}
    for second, same in ((0.1, True), (0.3, False)):
        assert alike(alone, {"y": np.array([[10.0, second]], np.float32)}) is same
    assert not alike(alone, {"y": np.array([[10.0, 0.1]], np.float32)}, tolerance=1e-5)
    assert not alike(alone, {"y": np.array([10.0, 0.0], np.float32)})


def test_a_value_without_bounds_hides_no_difference_of_the_others() -> None:
    alone = {"y": np.array([[-np.inf, 1.0]], np.float32)}
    for second, same in ((1.0, True), (1.1, False), (np.nan, False)):
        assert alike(alone, {"y": np.array([[-np.inf, second]], np.float32)}) is same


def test_what_is_no_float_is_the_same_where_that_is_asked_for() -> None:
    for one, other in ((np.array([3]), np.array([4])), (np.array([b"a"], object), np.array([b"b"], object))):
        assert alike({"y": one}, {"y": other})
        assert not alike({"y": one}, {"y": other}, others_equal=True)
        assert alike({"y": one}, {"y": one.copy()}, others_equal=True)
