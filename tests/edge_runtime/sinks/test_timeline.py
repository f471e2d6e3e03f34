from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.sinks.timeline import Timeline, frame_rate


@pytest.mark.parametrize("fps", [5.0, 24.0, 29.97, 60.0])
def test_a_video_is_as_long_as_its_stream_however_uneven_that_is(fps: float) -> None:
    random = np.random.default_rng(0)
    times = np.cumsum(random.exponential(1 / 20, 2000)).tolist()
    timeline = Timeline(fps, hold_s=10)
    shown = sum(sum(timeline.advance(time_s)) for time_s in times)
    assert shown == pytest.approx((times[-1] - times[0]) * fps + 1, abs=1)


def test_a_time_that_stands_or_goes_back_moves_by_one_frame() -> None:
    timeline = Timeline(10, hold_s=1)
    assert [timeline.advance(time_s) for time_s in (5.0, 5.0, 5.0, 1.0, 1.1)] == [(0, True)] * 5


def test_the_rate_is_that_of_most_gaps() -> None:
    assert frame_rate([0, 0.5, 0.54, 0.58, 0.62], default=10) == 25
    assert frame_rate([0, 1001 / 30000, 2002 / 30000], default=10) == 29.97
    assert frame_rate([0, 0, 0], default=10) == 10
    assert frame_rate([3], default=10) == 10
    assert frame_rate([0, 100], default=10) == 1
    assert frame_rate([0, 1e-9], default=10) == 120
