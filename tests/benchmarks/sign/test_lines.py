from __future__ import annotations

import numpy as np

from benchmarks.sign.lines import keep_lines, pick_translated, upright_quads
from edge_runtime.tensor_spec import Array


def _quads(count: int) -> Array:
    one = np.array([[0, 0], [40, 0], [40, 10], [0, 10]], np.float32)
    return (
        np.stack([one + 20 * index for index in range(count)]) if count else np.empty((0, 4, 2), np.float32)
    )


def test_lines_that_were_not_read_go_with_all_that_belongs_to_them() -> None:
    crops = [np.full((48, 10 * (index + 1), 3), index, np.uint8) for index in range(3)]
    kept = keep_lines(
        _quads(3),
        crops,
        [np.array("Exit"), np.array("  "), np.array("?")],
        [np.array(0.9, np.float32), np.array(0.9, np.float32), np.array(0.2, np.float32)],
        np.array(["device", "cloud", "device"]),
    )
    assert kept["texts"].tolist() == ["Exit"]
    assert len(kept["crops"]) == len(kept["quads"]) == len(kept["confidences"]) == 1
    assert kept["crops"][0] is crops[0]


def test_no_lines_stay_no_lines() -> None:
    kept = keep_lines(_quads(0), [], [], [], np.empty(0, "<U1"))
    assert kept["quads"].shape == (0, 4, 2)
    assert kept["texts"].shape == (0,)


def test_only_lines_with_another_translation_are_drawn_anew() -> None:
    count = 3
    picked = pick_translated(
        _quads(count),
        np.array(["EXIT", "BAR", "XQZ"]),
        np.array(["SALIDA", "BAR", "XQZ"]),
        np.array([True, True, False]),
        np.array(["sans"] * count),
        *(np.zeros((count, 3), np.uint8) for _ in range(2)),
        np.zeros((count, 4), np.float32),
        *(np.zeros(count, np.float32) for _ in range(2)),
    )
    assert picked["translations"].tolist() == ["SALIDA"]
    np.testing.assert_array_equal(picked["others"], _quads(count)[2:])


def test_corners_turn_with_the_crops_that_are_read() -> None:
    flat, down = _quads(1)[0], np.array([[0, 0], [10, 0], [10, 40], [0, 40]], np.float32)
    sure, upside_down = [0.99, 0.01], [0.01, 0.99]
    turned = upright_quads(
        np.stack([flat, flat, down, down]), np.array([sure, upside_down, sure, upside_down], np.float32)
    )
    np.testing.assert_array_equal(turned[0], flat)
    np.testing.assert_array_equal(turned[1], flat[[2, 3, 0, 1]])
    np.testing.assert_array_equal(turned[2], down[[1, 2, 3, 0]])
    np.testing.assert_array_equal(turned[3], down[[3, 0, 1, 2]])
