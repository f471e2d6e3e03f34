from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array
from tests.edge_runtime.operators.running import run

cv2: Any = pytest.importorskip("cv2", reason="these operators need the 'vision' extra")

_SAME = np.eye(3, dtype=np.float32)


def _map(*lines: tuple[float, float, float, float, float], chance: float = 0.9) -> Array:
    """A map with bars, each (x, y, width, height, degrees) in points counted from the first pixel's corner."""
    fine = np.zeros((960, 1600), np.float32)
    for x, y, width, height, degrees in lines:
        corners = cv2.boxPoints(((x * 8, y * 8), (width * 8, height * 8), degrees)) - 0.5
        cv2.fillConvexPoly(fine, corners.round().astype(np.int32), chance)
    area: Array = cv2.resize(fine, (200, 120), interpolation=cv2.INTER_AREA)
    return area


def test_a_line_is_grown_by_its_area_over_its_perimeter() -> None:
    found = run("text-boxes", _map((100, 60, 80, 16, 0)), _SAME, unclip_ratio=1.5)
    # Contours run through the middles of pixels, so a bar is a pixel shorter than it is drawn.
    grow = 79 * 15 * 1.5 / (2 * (79 + 15))
    left, top, right, bottom = 60.5 - grow, 52.5 - grow, 139.5 + grow, 67.5 + grow
    np.testing.assert_allclose(
        found["quads"], [[[left, top], [right, top], [right, bottom], [left, bottom]]], atol=0.05
    )
    np.testing.assert_allclose(found["scores"], [0.9], atol=0.01)


@pytest.mark.parametrize("degrees", [-40, -20, -5, 10, 30, 42])
def test_a_turned_line_gets_a_turned_rectangle_from_its_top_left(degrees: float) -> None:
    quad = run("text-boxes", _map((100, 60, 90, 14, degrees)), _SAME, unclip_ratio=0)["quads"][0]
    across, down = quad[1] - quad[0], quad[3] - quad[0]
    assert math.degrees(math.atan2(across[1], across[0])) == pytest.approx(degrees, abs=1.5)
    assert np.hypot(*across) == pytest.approx(90, abs=2.5)
    assert np.hypot(*down) == pytest.approx(14, abs=2.5)
    assert across[0] * down[1] - across[1] * down[0] > 0
    np.testing.assert_allclose(quad.mean(axis=0), [100, 60], atol=0.6)


def test_rectangles_are_taken_back_to_the_image_and_clipped_to_it() -> None:
    matrix = np.array([[2, 0, -10], [0, 3, 5], [0, 0, 1]], np.float32)
    chances = _map((100, 60, 80, 16, 0))
    np.testing.assert_allclose(
        run("text-boxes", chances, matrix)["quads"],
        run("text-boxes", chances, _SAME)["quads"] * [2, 3] + [-10, 5],
        atol=1e-3,
    )
    edge = run("text-boxes", _map((10, 3, 60, 10, 0)), _SAME, unclip_ratio=3)["quads"]
    assert edge.min() == 0


def test_lines_are_given_in_the_order_of_reading() -> None:
    places = [(150, 32, 60, 12, 0), (40, 30, 50, 12, 0), (100, 90, 80, 12, 0), (60, 60, 30, 10, 0)]
    quads = run("text-boxes", _map(*places), _SAME)["quads"]
    middles = quads.mean(axis=1).round().astype(int).tolist()
    assert [round(x, -1) for x, _ in middles] == [40, 150, 60, 100]


def test_what_is_faint_small_or_hollow_is_no_line() -> None:
    chances = _map((100, 60, 80, 16, 0))
    faint = _map((50, 20, 60, 10, 0), chance=0.45)
    both = np.maximum(chances, faint)
    assert len(run("text-boxes", both, _SAME)["quads"]) == 1
    assert len(run("text-boxes", both, _SAME, box_threshold=0.4)["quads"]) == 2
    both[2:4, 2:40] = 0.99
    assert len(run("text-boxes", both, _SAME)["quads"]) == 1
    ring = np.ones((60, 100), np.float32)
    ring[10:50, 10:90] = 0
    hollow = run("text-boxes", ring, _SAME, box_threshold=0.0)
    assert len(hollow["quads"]) == 1
    assert hollow["scores"][0] == pytest.approx(1 - 3200 / 6000, abs=0.05)


def test_thickening_joins_a_broken_line_and_does_not_move_it() -> None:
    broken = np.zeros((40, 100), np.float32)
    broken[10:20, 20:79:2] = 0.9
    assert len(run("text-boxes", broken, _SAME)["quads"]) == 0
    joined = run("text-boxes", broken, _SAME, dilation=2, box_threshold=0.3)["quads"]
    assert len(joined) == 1
    np.testing.assert_allclose(joined.mean(axis=1), [[49.5, 15]], atol=0.05)
    odd = run("text-boxes", broken, _SAME, dilation=3, box_threshold=0.3)["quads"]
    np.testing.assert_allclose(odd.mean(axis=1), [[49.5, 15]], atol=0.05)


@pytest.mark.parametrize("shape", [(120, 200), (1, 120, 200), (1, 1, 120, 200), (1, 120, 200, 1)])
def test_a_map_may_have_a_batch_and_a_channel_of_one(shape: tuple[int, ...]) -> None:
    chances = _map((100, 60, 80, 16, 0)).reshape(shape)
    assert run("text-boxes", chances, _SAME)["quads"].shape == (1, 4, 2)


def test_maps_without_text_and_with_nan_are_read() -> None:
    for empty in (np.zeros((32, 32)), np.full((32, 32), np.nan), np.ones((1, 1))):
        found = run("text-boxes", empty.astype(np.float32), _SAME)
        assert (found["quads"].shape, found["scores"].shape) == ((0, 4, 2), (0,))
    spotted = _map((100, 60, 80, 16, 0))
    spotted[60, 100] = np.nan
    assert run("text-boxes", spotted, _SAME)["scores"][0] == pytest.approx(0.9, abs=0.02)


def test_noise_costs_no_more_than_its_largest_spots() -> None:
    noise = np.random.default_rng(0).random((400, 400)).astype(np.float32)
    found = run("text-boxes", noise, _SAME, threshold=0.7, box_threshold=0.0, max_boxes=20)
    assert len(found["quads"]) <= 20


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (32,), (0, 32)])
def test_what_is_no_map_is_one_clear_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(HybridgeError) as caught:
        run("text-boxes", np.zeros(shape, np.float32), _SAME)
    assert caught.value.code is ErrorCode.INPUT_SHAPE
