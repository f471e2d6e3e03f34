from __future__ import annotations

import numpy as np
import pytest

from convert.recipes import ParityBounds
from convert.verification import (
    check_informative,
    check_parity,
    measure_accuracy,
    measure_confusion,
    measure_drop,
    measure_outputs,
    measure_parity,
)
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


def test_each_output_is_compared_by_itself() -> None:
    outputs = {"same": SCORES, "off": SCORES * 100}
    same, off = measure_outputs(outputs, {"same": SCORES, "off": SCORES * 100 + np.float32(1)})
    assert (same.name, same.max_abs_error, same.snr_db, same.relative_error) == ("same", 0.0, None, 0.0)
    assert off.max_abs_error == pytest.approx(1)
    assert off.mean_abs_error == pytest.approx(1)
    assert off.relative_error == pytest.approx(0.01)
    assert off.snr_db == pytest.approx(10 * np.log10((2e4 + 625 + 5625) / 6))


def test_accuracy_is_broken_down_by_sorted_groups() -> None:
    labels = np.array([1, 0, 0])
    slices = {"size": np.array([10, 9, 10]), "writer": np.array(["bob", "ann", "ann"])}
    accuracy = measure_accuracy(SCORES, SCORES[:, ::-1], labels, slices=slices)
    found = [(each.name, each.value, each.source, each.converted, each.samples) for each in accuracy.slices]
    assert found == [
        ("size", "9", 1.0, 0.0, 1),
        ("size", "10", 0.5, 0.5, 2),
        ("writer", "ann", 0.5, 0.5, 2),
        ("writer", "bob", 1.0, 0.0, 1),
    ]
    assert accuracy.slices[0].drop == 1.0


def test_a_column_of_identifiers_is_no_slice() -> None:
    scores, labels = np.zeros((101, 2)), np.zeros(101, int)
    with pytest.raises(HybridgeError, match="slice 'id': received 101 different values") as caught:
        measure_accuracy(scores, scores, labels, slices={"id": np.arange(101)})
    assert caught.value.code is ErrorCode.DATA_INVALID


def one_hot(*classes: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.eye(3)[list(classes)]


def test_confusion_counts_what_is_taken_for_what_and_names_what_got_worse() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    confusion = measure_confusion(one_hot(0, 0, 1, 1, 0, 2), one_hot(1, 1, 1, 1, 1, 0), labels)
    assert confusion.source.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert confusion.converted.tolist() == [[0, 3, 0], [0, 2, 0], [1, 0, 0]]
    assert confusion.lost.tolist() == [0, 1, 5]
    assert confusion.won.tolist() == [4]
    worst, next_worst = confusion.worsened()
    assert (worst.true, worst.predicted, worst.before, worst.after, worst.examples) == (0, 1, 1, 3, (0, 1))
    assert (next_worst.true, next_worst.predicted, next_worst.before, next_worst.after) == (2, 0, 0, 1)
    assert confusion.worsened(1, examples=1)[0].examples == (0,)
    # Looking changes nothing.
    assert confusion.converted.tolist() == [[0, 3, 0], [0, 2, 0], [1, 0, 0]]


def test_models_that_agree_make_no_confusion_worse() -> None:
    same = one_hot(0, 1, 1)
    assert measure_confusion(same, same, np.array([0, 1, 2])).worsened() == ()
    with pytest.raises(HybridgeError, match="class 3"):
        measure_confusion(same, same, np.array([0, 1, 3]))


def test_a_drop_has_the_interval_of_paired_proportions() -> None:
    labels = np.zeros(100, int)
    source, converted = np.tile(one_hot(0), (100, 1)), np.tile(one_hot(0), (100, 1))
    converted[:12] = one_hot(1)
    source[12:14] = one_hot(1)
    drop = measure_drop(source, converted, labels)
    assert (drop.lost, drop.won, drop.samples) == (12, 2, 100)
    assert drop.value == pytest.approx(0.10)
    # (13 - 3) / 102 -+ 1.96 sqrt((16 / 102 - (10 / 102)^2) / 102)
    assert drop.low == pytest.approx(0.023570, abs=1e-5)
    assert drop.high == pytest.approx(0.172509, abs=1e-5)
    assert drop.is_certain
    wider = measure_drop(source, converted, labels, confidence=0.99)
    assert wider.low < drop.low < drop.high < wider.high


def test_identical_models_leave_a_drop_uncertain() -> None:
    scores = one_hot(0, 1, 2)
    drop = measure_drop(scores, scores, np.array([0, 1, 1]))
    assert drop.value == 0.0
    assert drop.low < 0 < drop.high
    assert not drop.is_certain


def test_the_interval_holds_the_true_drop_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    held, labels = 0, np.zeros(400, int)
    for _ in range(500):
        lost, won = random.random(400) < 0.03, random.random(400) < 0.01
        source, converted = one_hot(0).repeat(400, 0), one_hot(0).repeat(400, 0)
        converted[lost] = one_hot(1)
        source[won & ~lost] = one_hot(1)
        drop = measure_drop(source, converted, labels)
        held += drop.low <= 0.03 - 0.01 * 0.97 <= drop.high
    assert 0.92 < held / 500 < 0.99
