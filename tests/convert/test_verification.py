from __future__ import annotations

import numpy as np
import pytest

from convert.recipes import ParityBounds
from convert.verification import check_informative, check_parity, measure_accuracy, measure_parity
from edge_runtime import ErrorCode, HybridgeError

SCORES = np.array([[0.0, 1.0], [1.0, 0.0], [0.25, 0.75]], np.float32)
ANYTHING = ParityBounds()


def test_identical_outputs_have_no_error_and_no_snr() -> None:
    parity = measure_parity({"y": SCORES}, {"y": SCORES.copy()}, generated=True, scores="y")
    assert parity.max_abs_error == parity.mean_abs_error == 0.0
    assert parity.snr_db is None
    assert parity.cosine == pytest.approx(1.0)
    assert (parity.label_agreement, parity.samples, parity.data) == (1.0, 3, "generated")


def test_parity_follows_its_formulas() -> None:
    converted = SCORES + np.float32(0.5) * np.array([[1, 0], [0, 0], [0, -1]], np.float32)
    parity = measure_parity({"y": SCORES}, {"y": converted}, generated=False, scores="y")
    assert parity.max_abs_error == 0.5
    assert parity.mean_abs_error == pytest.approx(1 / 6)
    assert parity.snr_db == pytest.approx(10 * np.log10((2 + 0.0625 + 0.5625) / 0.5))
    assert parity.label_agreement == pytest.approx(2 / 3)  # the last row is a tie, of which the first counts
    assert parity.data == "user"


def test_the_worst_output_is_reported_not_hidden_by_a_large_one() -> None:
    large = np.full((3, 2), 1e6, np.float32)
    parity = measure_parity(
        {"large": large, "small": SCORES}, {"large": large, "small": -SCORES}, generated=True, scores=None
    )
    assert parity.snr_db == pytest.approx(10 * np.log10(1 / 4))
    assert parity.cosine == pytest.approx(-1.0)
    with pytest.raises(HybridgeError, match="output 'small'"):
        check_parity(
            {"large": large, "small": SCORES},
            {"large": large, "small": -SCORES},
            ParityBounds(min_snr_db=10),
            "m",
        )


@pytest.mark.parametrize(
    ("converted", "bounds", "said"),
    [
        (SCORES * np.float32(1.01), ParityBounds(max_relative_error=1e-3), "0.01 of the output's range"),
        (SCORES * np.float32(1.2), ParityBounds(min_snr_db=20), "14.0 dB"),
        (np.where(SCORES == 1, np.nan, SCORES), ANYTHING, "converted model that are not finite"),
        (SCORES[:, :1], ANYTHING, "shape (1,)"),
    ],
)
def test_outputs_out_of_bounds_fail(
    converted: np.ndarray[tuple[int, ...], np.dtype[np.float32]], bounds: ParityBounds, said: str
) -> None:
    with pytest.raises(HybridgeError) as caught:
        check_parity({"y": SCORES}, {"y": converted}, bounds, "digits")
    assert caught.value.code is ErrorCode.PARITY_FAILED
    assert said in caught.value.message


def test_a_source_that_is_not_finite_fails_too() -> None:
    with pytest.raises(HybridgeError, match="from the source") as caught:
        check_parity({"y": np.where(SCORES == 1, np.inf, SCORES)}, {"y": SCORES}, ANYTHING, "digits")
    assert caught.value.code is ErrorCode.PARITY_FAILED


def test_an_all_zero_output_must_stay_zero() -> None:
    zero = np.zeros((2, 2), np.float32)
    check_parity({"y": zero}, {"y": zero}, ParityBounds(min_snr_db=10, max_relative_error=1e-3), "m")
    with pytest.raises(HybridgeError):
        check_parity({"y": zero}, {"y": zero + 1}, ParityBounds(min_snr_db=10), "m")


def test_accuracy_counts_both_models_on_the_same_labels() -> None:
    accuracy = measure_accuracy(SCORES, SCORES[:, ::-1], np.array([1, 0, 0]))
    assert accuracy.source == pytest.approx(2 / 3)
    assert accuracy.converted == pytest.approx(1 / 3)
    assert accuracy.samples == 3
    assert accuracy.drop == pytest.approx(1 / 3)


def test_a_label_beyond_the_classes_is_refused() -> None:
    with pytest.raises(HybridgeError, match="class 2") as caught:
        measure_accuracy(SCORES, SCORES, np.array([0, 1, 2]))
    assert caught.value.code is ErrorCode.DATA_INVALID


def test_agreement_on_outputs_that_ignore_the_input_is_no_evidence() -> None:
    constant = np.full((4, 3), 1 / 3, np.float32)
    for outputs in ({"y": constant}, {"y": constant, "z": np.zeros((4, 1), np.float32)}):
        with pytest.raises(HybridgeError, match="same values for all 4 samples") as caught:
            check_informative(outputs, "digits")
        assert caught.value.code is ErrorCode.PARITY_FAILED
    rounding = constant * (1 + np.float32(1e-7) * np.arange(4, dtype=np.float32)[:, np.newaxis])
    with pytest.raises(HybridgeError):
        check_informative({"y": rounding}, "digits")
    check_informative({"constant": constant, "y": np.arange(4, dtype=np.float32)[:, np.newaxis]}, "digits")
    check_informative({"y": constant[:1]}, "digits")
