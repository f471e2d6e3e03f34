from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import Bundle, Chain, ErrorCode
from edge_runtime.bundle_watch import BundleWatch
from edge_runtime.tensor_spec import Array

MakeBundle = Callable[..., Bundle]


def _wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit, "nothing happened"
        time.sleep(0.01)


def test_a_bundle_that_is_replaced_is_swapped_in_while_calls_go_on(
    make_bundle: MakeBundle, tmp_path: Path, image: Array
) -> None:
    path = make_bundle().save(tmp_path)
    other = make_bundle(model="classifier-int8")
    with Chain.from_bundle(path) as chain, BundleWatch(chain, interval_s=0.02, trial_calls=1) as watch:
        before = chain.run(image).outputs["logits"]
        (tmp_path / "new").write_bytes(other.to_bytes())
        (tmp_path / "new").replace(path)
        _wait_for(lambda: bool(watch.events))
        after = chain.run(image).outputs["logits"]
        assert watch.events[0].error is None, watch.events[0].error
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, Chain.from_bundle(other).run(image).outputs["logits"])


def test_a_damaged_bundle_is_kept_out_and_tried_once(
    make_bundle: MakeBundle, tmp_path: Path, image: Array, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_bundle().save(tmp_path)
    with Chain.from_bundle(path) as chain, BundleWatch(chain, interval_s=0.02) as watch:
        before = chain.run(image).outputs["logits"]
        path.write_bytes(path.read_bytes()[:-100])
        _wait_for(lambda: bool(watch.events))
        time.sleep(0.2)
        np.testing.assert_array_equal(chain.run(image).outputs["logits"], before)
    (event,) = watch.events
    assert event.error is not None
    assert event.error.code is ErrorCode.BUNDLE_DAMAGED
    assert "was not swapped in" in caplog.text


def test_a_bundle_that_is_taken_away_changes_nothing(
    make_bundle: MakeBundle, tmp_path: Path, image: Array
) -> None:
    path = make_bundle().save(tmp_path)
    with Chain.from_bundle(path) as chain, BundleWatch(chain, interval_s=0.02) as watch:
        path.unlink()
        time.sleep(0.2)
        assert chain.run(image).label is not None
    assert watch.events == []
