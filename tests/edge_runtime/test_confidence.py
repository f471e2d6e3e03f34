from __future__ import annotations

import numpy as np
import pytest

from edge_runtime import SCORES, Confidence, ErrorCode, HybridgeError, Scorer
from edge_runtime.confidence import probabilities


def test_scores_are_what_their_names_say() -> None:
    chances = np.array([[0.7, 0.2, 0.1]], np.float32)
    expected = {
        "max-softmax": 0.7,
        "margin": 0.5,
        "entropy": 1 + float(np.sum(chances * np.log(chances))) / np.log(3),
        "sequence-mean": 0.7,
        "ctc": 0.0,  # the best class is the blank: nothing was read
    }
    assert set(expected) == set(SCORES)
    for score, value in expected.items():
        scorer = Scorer(Confidence("p", score=score, activation="softmax"), ("p",))
        assert scorer.confidence({"p": chances}) == pytest.approx(value, rel=1e-5), score


def test_ctc_is_the_mean_of_the_steps_that_gave_a_character() -> None:
    steps = np.array([[[0.1, 0.8, 0.1], [0.1, 0.7, 0.2], [0.9, 0.1, 0.0], [0.2, 0.2, 0.6]]], np.float32)
    scorer = Scorer(Confidence("p", score="ctc", activation="softmax"), ("p",))
    # The second step repeats the first, the third is blank.
    assert scorer.confidence({"p": steps}) == pytest.approx((0.8 + 0.6) / 2)


def test_logits_and_their_probabilities_score_the_same_at_any_temperature() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (1, 12)).astype(np.float32)
    chances = probabilities(logits)
    for temperature in (0.5, 1.0, 2.5):
        from_logits = Scorer(Confidence("y", temperature=temperature), ("y",)).confidence({"y": logits})
        from_chances = Scorer(
            Confidence("y", temperature=temperature, activation="softmax"), ("y",)
        ).confidence({"y": chances})
        assert from_logits == pytest.approx(from_chances, rel=1e-4)


def test_a_higher_temperature_is_less_sure() -> None:
    logits = np.array([[3.0, 1.0, 0.0]], np.float32)
    sure = [Scorer(Confidence("y", temperature=t), ("y",)).confidence({"y": logits}) for t in (0.5, 1, 2, 8)]
    assert sure == sorted(sure, reverse=True)


@pytest.mark.parametrize("score", SCORES)
def test_every_score_stays_between_zero_and_one(score: str) -> None:
    scorer = Scorer(Confidence("y", score=score), ("y",))
    rng = np.random.default_rng(1)
    shape = (1, 5, 7) if score == "sequence-mean" else (1, 7)
    for spread in (0.0, 1.0, 1e4, 1e30):
        assert 0.0 <= scorer.confidence({"y": (rng.normal(0, 1, shape) * spread).astype(np.float32)}) <= 1.0
    for value in (np.nan, np.inf, -np.inf):
        assert scorer.confidence({"y": np.full(shape, value, np.float32)}) == 0.0


def test_a_batch_is_as_sure_as_its_least_sure_row_and_has_no_one_class() -> None:
    scorer = Scorer(Confidence("y", activation="softmax"), ("y",))
    rows = np.array([[0.9, 0.1], [0.4, 0.6]], np.float32)
    assert scorer.confidence({"y": rows}) == pytest.approx(0.6)
    assert scorer.top({"y": rows}) is None
    assert scorer.top({"y": rows[1:]}) == 1


@pytest.mark.parametrize(
    "spec", [Confidence("z"), Confidence("y", score="vibes"), Confidence("y", activation="sigmoid")]
)
def test_what_cannot_be_scored_is_refused_when_loaded(spec: Confidence) -> None:
    with pytest.raises(HybridgeError) as caught:
        Scorer(spec, ("y",))
    assert caught.value.code is ErrorCode.CONFIDENCE_INVALID
