"""Tiers of models on the device, the cloud behind them, and what a deadline makes of both."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import (
    Answer,
    Chain,
    Confidence,
    ErrorCode,
    HybridgeError,
    Model,
    Query,
    Reason,
    Source,
    Stage,
    Tier,
)
from edge_runtime.tensor_spec import Array
from tests.conftest import LABELS, count_invocations
from tests.edge_runtime.chain.conftest import pass_on

Calling = Callable[..., Stage]


def _tier(models: Path, name: str, threshold: float | None = None, **options: Any) -> Tier:
    confidence = Confidence("logits", threshold=threshold)
    return Tier(Model(models / f"{name}.tflite"), confidence=confidence, labels=LABELS, **options)


def _chain(models: Path, *thresholds: float | None, fallback: Any = None, **options: Any) -> Chain:
    names = ("classifier", "classifier-newer", "classifier-contrary")
    tiers = [_tier(models, name, threshold) for name, threshold in zip(names, thresholds, strict=False)]
    return Chain([Stage.from_tiers("read", tiers, fallback=fallback, **options)])


def _logits(models: Path, name: str, image: Array) -> Array:
    return Model(models / f"{name}.tflite").run(image)["logits"]


class Cloud:
    """Answers with ones whatever it is asked, and keeps the questions."""

    def __init__(self) -> None:
        self.asked: list[Query] = []

    def resolve(self, query: Query) -> Answer:
        self.asked.append(query)
        if (
            query.confidence is not None
            and query.threshold is not None
            and query.confidence >= query.threshold
        ):
            return Answer.keep(Reason.CONFIDENT)
        return Answer({"logits": np.ones((1, 10), np.float32)}, Source.CLOUD, Reason.UNSURE)

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("thresholds", "tier"),
    [((0.0, 0.0, None), 0), ((1.0, 0.0, None), 1), ((1.0, 1.0, None), 2), ((1.0, None), 1)],
)
def test_the_next_tier_is_asked_only_when_the_last_was_unsure(
    models: Path, image: Array, thresholds: tuple[float | None, ...], tier: int
) -> None:
    chain = _chain(models, *thresholds)
    name = ("classifier", "classifier-newer", "classifier-contrary")[tier]
    for slot in chain.model_slots().values():
        slot.tier.model.run(image)
    loaded = [slot.tier.model for slot in chain.model_slots().values()]
    invoked = count_invocations(*loaded)
    prediction = chain.run(image)
    assert invoked == loaded[: tier + 1]
    expected = _logits(models, name, image)
    np.testing.assert_array_equal(prediction.outputs["logits"], expected)
    assert prediction.label == LABELS[expected.argmax()]
    assert prediction.stages[0].tier == tier
    assert prediction.source is Source.DEVICE
    if tier:
        assert (prediction.reason, prediction.detail) == (Reason.UNSURE, f"answered by tier {tier + 1}")


def test_the_cloud_comes_last_and_is_told_of_the_tier_that_answered(models: Path, image: Array) -> None:
    cloud = Cloud()
    prediction = _chain(models, 1.0, 1.0, fallback=cloud).run(image)
    assert (prediction.source, prediction.reason) == (Source.CLOUD, Reason.UNSURE)
    assert (prediction.outputs["logits"] == 1).all()
    (query,) = cloud.asked
    np.testing.assert_array_equal(query.outputs["logits"], _logits(models, "classifier-newer", image))
    assert query.threshold == 1.0
    kept = _chain(models, 1.0, 0.0, fallback=cloud).run(image)
    assert (kept.source, kept.reason, kept.stages[0].tier) == (Source.DEVICE, Reason.CONFIDENT, 1)


def test_further_tiers_are_asked_for_unsure_items_only(models: Path) -> None:
    images = np.random.default_rng(1).random((9, 8, 8, 1), dtype=np.float32)
    first, second = (Model(models / f"{name}.tflite") for name in ("classifier", "classifier-newer"))
    scored = _chain(models, 0.0, None)
    sure = [scored.run(image[np.newaxis]).confidence or 0 for image in images]
    threshold = float(np.median(sure)) + 1e-6
    chain = _chain(models, threshold, None, foreach="image", report={"confidence": "sure"})
    prediction = chain.run({"image": images})
    for index, image in enumerate(images):
        asked = sure[index] < threshold
        model = second if asked else first
        np.testing.assert_array_equal(
            prediction.outputs["logits"][index], model.run(image[np.newaxis])["logits"][0]
        )
        assert prediction.stages[0].parts[index].tier == int(asked)
    assert sum(part.tier for part in prediction.stages[0].parts) == 5


def test_tiers_with_other_names_are_mapped(models: Path) -> None:
    first = Tier(Model(models / "any-batch.tflite"), confidence=Confidence("y", threshold=1.0))
    renamed = Tier(
        Model(models / "any-batch.tflite"), confidence=Confidence("y"), inputs={"x": "x"}, outputs={"y": "y"}
    )
    chain = Chain([Stage.from_tiers("s", [first, renamed])])
    x = np.ones((1, 3), np.float32)
    assert chain.run(x).outputs["y"].tolist() == [[6, 9]]
    with pytest.raises(HybridgeError, match=r"inputs = \{image = 'x'\}") as caught:
        Stage.from_tiers("s", [first, _tier(models, "classifier")])
    assert caught.value.code is ErrorCode.CHAIN_INVALID


def test_a_tier_whose_names_are_mapped_answers_under_the_first_ones_names(models: Path) -> None:
    first = _tier(models, "classifier", 1.0, inputs={"image": "photo"}, outputs={"logits": "scores"})
    second = _tier(
        models, "classifier-contrary", None, inputs={"image": "photo"}, outputs={"logits": "scores"}
    )
    image = np.random.default_rng(0).random((1, 8, 8, 1), dtype=np.float32)
    chain = Chain([Stage.from_tiers("s", [first, second])])
    prediction = chain.run({"photo": image})
    expected = _logits(models, "classifier-contrary", image)
    np.testing.assert_array_equal(prediction.outputs["scores"], expected)
    assert prediction.label == LABELS[expected.argmax()]


def test_tiers_that_cannot_decide_or_stand_in_for_each_other_are_refused(models: Path) -> None:
    for tiers, said in (
        ([_tier(models, "classifier"), _tier(models, "classifier-newer")], "threshold"),
        ([Tier(Model(models / "classifier.tflite")), _tier(models, "classifier-newer")], "threshold"),
        ([_tier(models, "classifier", 0.5), Tier(Model(models / "arithmetic.tflite"))], "inputs"),
        (
            [
                Tier(Model(models / "any-batch.tflite"), confidence=Confidence("y", threshold=0.5),
                     inputs={"x": "image"}, outputs={"y": "logits"}),
                _tier(models, "classifier"),
            ],
            r"input 'image' float32\[1, 8, 8, 1\], expected float32\[batch, 3\]",
        ),
        ([], "none"),
    ):  # fmt: skip
        with pytest.raises(HybridgeError, match=said) as caught:
            Stage.from_tiers("read", tiers)
        assert caught.value.code is ErrorCode.CHAIN_INVALID
    with pytest.raises(HybridgeError, match="inputs of model") as caught:
        _tier(models, "classifier", inputs={"imgae": "x"})
    assert caught.value.code is ErrorCode.CHAIN_INVALID


def test_a_tier_that_is_busy_is_not_waited_for_beyond_the_deadline(models: Path, image: Array) -> None:
    chain = _chain(models, 1.0, None)
    second = chain.model_slots()["read:2"].tier.model
    expected = _logits(models, "classifier", image)
    with second.borrow():
        start = time.monotonic()
        prediction = chain.run(image, deadline_s=0.1)
        elapsed = time.monotonic() - start
        assert 0.09 < elapsed < 1.0
        np.testing.assert_array_equal(prediction.outputs["logits"], expected)
        assert (prediction.source, prediction.reason) == (Source.DEVICE, Reason.DEVICE_DEADLINE)
        assert "tier 2" in prediction.detail
        assert prediction.stages[0].tier == 0
        # It is known by now that there is no time for it: the next call does not even wait.
        start = time.monotonic()
        assert chain.run(image, deadline_s=0.05).reason is Reason.DEVICE_DEADLINE
        assert time.monotonic() - start < 0.05
    assert chain.run(image).stages[0].tier == 1
    # A tier that was slow for once is not forgotten for ever.
    for _ in range(100):
        if chain.run(image, deadline_s=0.05).stages[0].tier == 1:
            break
    else:
        pytest.fail("the second tier is never asked again")
    chain.close()


def test_a_deadline_that_suffices_changes_nothing(models: Path, image: Array) -> None:
    chain = _chain(models, 1.0, None)
    without, within = chain.run(image), chain.run(image, deadline_s=10)
    np.testing.assert_array_equal(without.outputs["logits"], within.outputs["logits"])
    assert within.stages[0].tier == 1
    chain.close()


def test_what_a_tier_still_does_after_the_deadline_is_thrown_away(models: Path, image: Array) -> None:
    chain = _chain(models, 1.0, None)
    second = chain.model_slots()["read:2"].tier.model
    other = np.zeros_like(image)
    for _ in range(5):
        with second.borrow():
            chain.run(image, deadline_s=0.02)
        prediction = chain.run(other, deadline_s=30)
        expected = _logits(models, "classifier-newer" if prediction.stages[0].tier else "classifier", other)
        np.testing.assert_array_equal(prediction.outputs["logits"], expected)
    chain.close()


def test_a_deadline_leaves_later_stages_their_usual_time(models: Path, image: Array) -> None:
    cloud = Cloud()
    read = Stage.from_tiers("read", [_tier(models, "classifier", 1.0)], fallback=cloud)
    after = Stage.from_operator(
        "after", "wait", inputs={"array": "logits"}, outputs={"array": "y"}, params={"seconds": 0.05}
    )
    chain = Chain([read, after])
    for _ in range(3):
        chain.run(image)
    assert all(query.deadline is None for query in cloud.asked)
    start = time.monotonic()
    chain.run(image, deadline_s=1.0)
    deadline = cloud.asked[-1].deadline
    assert deadline is not None
    assert 0.7 < deadline - start < 0.955


def test_a_chain_that_drops_what_is_late_fails_before_the_next_stage(calling: Calling) -> None:
    ran: list[str] = []

    def chain(late: Any) -> Chain:
        return Chain(
            [
                calling("slow", pass_on("slow", ran, seconds=0.05), "x", "y"),
                calling("next", pass_on("next", ran), "y", "z"),
            ],
            name="both",
            late=late,
            deadline_s=0.02,
        )

    dropping = chain("drop")
    with pytest.raises(
        HybridgeError, match=r"chain 'both': received its deadline \d+ ms ago, before stage 'next'"
    ) as caught:
        dropping.run(np.ones(1))
    assert caught.value.code is ErrorCode.CHAIN_LATE
    assert ran == ["slow"]
    assert dropping.metrics.figures().errors == {ErrorCode.CHAIN_LATE: 1}
    assert dropping.run(np.ones(1), deadline_s=10).outputs["z"] == 1
    assert chain("finish").run(np.ones(1)).outputs["z"] == 1


def test_a_chain_whose_time_is_over_before_it_begins(calling: Calling) -> None:
    for late, outcome in (("drop", None), ("finish", 1)):
        chain = Chain([calling("a", lambda array: array, "x", "y")], late=late)  # type: ignore[arg-type]
        for seconds in (0.0, -1.0):
            if outcome is None:
                with pytest.raises(HybridgeError) as caught:
                    chain.run(np.ones(1), deadline_s=seconds)
                assert caught.value.code is ErrorCode.CHAIN_LATE
            else:
                assert chain.run(np.ones(1), deadline_s=seconds).outputs["y"] == 1


def test_a_nested_chain_has_the_time_that_is_left(models: Path, image: Array) -> None:
    cloud = Cloud()
    inner = Chain([Stage.from_tiers("read", [_tier(models, "classifier", 1.0)], fallback=cloud)])
    chain = Chain([Stage.from_chain("inner", inner)])
    start = time.monotonic()
    chain.run(image, deadline_s=2.0)
    assert cloud.asked[0].deadline is not None
    assert 1.5 < cloud.asked[0].deadline - start < 2.1


class Odd:
    """A cloud whose answers have the right names and the wrong contents."""

    def __init__(self, logits: Any):
        self.logits, self.asked = logits, 0

    def resolve(self, query: Query) -> Answer:
        self.asked += query.confidence is not None
        return Answer({"logits": self.logits}, Source.CLOUD, Reason.UNSURE)

    def close(self) -> None: ...


@pytest.mark.parametrize(
    "logits", [np.float32(3), np.empty((1, 0), np.float32), np.array(["a"]), "abc", None]
)
def test_an_answer_that_cannot_be_scored_leaves_the_device_s_own(
    models: Path, image: Array, logits: Any
) -> None:
    prediction = _chain(models, 1.0, fallback=Odd(logits)).run(image)
    np.testing.assert_array_equal(prediction.outputs["logits"], _logits(models, "classifier", image))
    assert (prediction.source, prediction.reason) == (Source.DEVICE, Reason.CLOUD_REFUSED)
    assert "cannot be scored" in prediction.detail


def test_a_nested_chain_has_no_label_or_confidence_of_its_own_when_the_cloud_answered_in_its_place(
    models: Path, image: Array
) -> None:
    inner = _chain(models, None)
    for cloud, source, has_label in ((Cloud(), Source.CLOUD, False), (None, Source.DEVICE, True)):
        chain = Chain([Stage.from_chain("inner", inner, fallback=cloud, threshold=1.0)])
        prediction = chain.run(image)
        assert prediction.source is source
        assert (prediction.label is not None) is has_label
        assert (prediction.confidence is not None) is has_label
        assert chain.metrics.figures().stages[0].sources == {source: 1}


def test_a_tier_that_fails_leaves_the_answer_of_the_one_before(models: Path, image: Array) -> None:
    chain = _chain(models, 1.0, None)
    chain.model_slots()["read:2"].tier.model.close()
    prediction = chain.run(image)
    np.testing.assert_array_equal(prediction.outputs["logits"], _logits(models, "classifier", image))
    assert (prediction.source, prediction.reason) == (Source.DEVICE, Reason.TIER_FAILED)
    assert "tier 2" in prediction.detail


def test_a_query_can_tell_whether_another_answer_says_the_same(models: Path, image: Array) -> None:
    queries: list[Query] = []

    class Asking:
        def resolve(self, query: Query) -> Answer:
            queries.append(query)
            return Answer.keep(Reason.CONFIDENT)

        def close(self) -> None:
            """Holds nothing."""

    model = Model(models / "classifier.tflite")
    chain = Chain([Stage.from_model("read", model, confidence=Confidence("logits"), fallback=Asking())])
    logits = chain.run(image).outputs["logits"]
    assert queries[0].agrees is not None
    assert isinstance(logits, np.ndarray)
    assert queries[0].agrees({"logits": 2 * logits})
    assert not queries[0].agrees({"logits": -logits})
