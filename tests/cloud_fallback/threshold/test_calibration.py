"""The temperature is the likeliest one, and none where the examples do not say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
from scipy.special import log_softmax  # type: ignore[import-untyped]

from cloud_fallback.threshold.calibration import calibrate
from edge_runtime import ErrorCode, HybridgeError

Array = np.ndarray[Any, Any]


def _drawn(temperature: float) -> tuple[Array, Array]:
    """Logits of a model that is too sure by a factor, and classes drawn as it should have said."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (4000, 6))
    classes = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    return (logits * temperature).astype(np.float32), classes


@pytest.mark.parametrize("temperature", [0.2, 1.0, 8.0])
def test_the_temperature_is_the_likeliest(temperature: float) -> None:
    logits, classes = _drawn(temperature)

    def loss(logarithm: float) -> float:
        scaled = log_softmax(logits.astype(np.float64) / np.exp(logarithm), axis=1)
        return -float(scaled[np.arange(len(classes)), classes].mean())

    exact = np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-8}).x)
    assert calibrate(logits, classes) == pytest.approx(exact, rel=2e-3)
    assert exact == pytest.approx(temperature, rel=0.1)


def test_probabilities_are_calibrated_as_their_logits_are() -> None:
    logits, classes = _drawn(2.0)
    likely = np.exp(log_softmax(logits, axis=1))
    assert calibrate(likely, classes, activation="softmax") == pytest.approx(
        calibrate(logits, classes), rel=0.01
    )


def test_zeros_of_a_quantised_softmax_do_not_decide() -> None:
    logits, classes = _drawn(2.0)
    coarse = (np.round(np.exp(log_softmax(logits, axis=1)) * 256) / 256).astype(np.float32)
    assert (coarse[np.arange(len(classes)), classes] == 0).mean() > 0.02
    assert calibrate(coarse, classes, activation="softmax") == pytest.approx(2.0, rel=0.25)


def test_a_model_that_is_far_too_sure_is_not_taken_for_one_that_says_nothing() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 30, (200, 2))
    classes = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    # Most probabilities are 0 or 1, of mistakes too: between the likeliest temperature and the lowest all are worse.
    likely = np.exp(log_softmax(logits * 18, axis=1)).astype(np.float32)
    temperature = calibrate(likely, classes, activation="softmax")
    assert temperature is not None
    assert 10 < temperature < 25


@pytest.mark.parametrize(
    "scores",
    [np.eye(10), np.zeros((10, 10)), np.roll(np.eye(10), 1, axis=1)],
    ids=["all right", "no difference", "all wrong"],
)
def test_examples_that_do_not_say_give_no_temperature(scores: Array) -> None:
    assert calibrate(scores.astype(np.float32), np.arange(10)) is None


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        (np.zeros((3, 2)), np.array([0, 1, 2])),
        (np.zeros((3, 2)), np.array([0, 1, -1])),
        (np.zeros((3, 2)), np.array([0, 1])),
        (np.zeros((0, 2)), np.zeros(0, int)),
        (np.zeros(3), np.zeros(3, int)),
    ],
)
def test_data_that_fits_no_classes_is_refused(scores: Array, labels: Array) -> None:
    with pytest.raises(HybridgeError) as caught:
        calibrate(scores, labels)
    assert caught.value.code is ErrorCode.DATA_INVALID
