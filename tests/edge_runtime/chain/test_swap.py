from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import (
    Bundle,
    Canary,
    Chain,
    Confidence,
    ErrorCode,
    HybridgeError,
    MemoryBudget,
    Model,
    Stage,
)
from edge_runtime.chain.swap import SwapState, TierSlot
from edge_runtime.tensor_spec import Array

MakeBundle = Callable[..., Bundle]


@pytest.fixture
def chain(make_bundle: MakeBundle) -> Chain:
    return Chain([Stage.from_model("read", Model(make_bundle()))])


@pytest.fixture
def versions(make_bundle: MakeBundle, tmp_path: Path) -> Callable[[str], Path]:
    """The path of a bundle of a version of the classifier."""

    def save(model: str, **options: Any) -> Path:
        return make_bundle(model=model, name=f"digits-{model}", **options).save(tmp_path, overwrite=True)

    return save


def _slot(chain: Chain) -> TierSlot:
    return chain.model_slots()["read"]


def _logits(models: Path, name: str, image: Array) -> Array:
    return Model(models / f"{name}.tflite").run(image)["logits"]


def test_a_swap_answers_with_the_new_model_and_frees_the_old_after_the_trial(
    chain: Chain, models: Path, image: Array, versions: Callable[[str], Path]
) -> None:
    old, new = (_logits(models, name, image) for name in ("classifier", "classifier-newer"))
    np.testing.assert_array_equal(chain.run(image).outputs["logits"], old)
    model = _slot(chain).tier.model
    freed, instance = weakref.ref(model), weakref.ref(model._idle[0])
    del model
    chain.swap("read", versions("classifier-newer"), canary=Canary({"image": image}), trial_calls=5)
    for call in range(5):
        assert _slot(chain).state is SwapState.TRIAL
        assert instance() is not None, call
        np.testing.assert_array_equal(chain.run(image).outputs["logits"], new)
    assert _slot(chain).state is SwapState.KEPT
    gc.collect()
    assert freed() is None
    assert instance() is None
    np.testing.assert_array_equal(chain.run(image).outputs["logits"], new)
    assert chain.run(image).label == f"class-{new.argmax()}"


def test_without_a_trial_the_old_model_is_freed_at_once(
    chain: Chain, image: Array, versions: Callable[[str], Path]
) -> None:
    freed = weakref.ref(_slot(chain).tier.model)
    chain.swap("read", versions("classifier-newer"), trial_calls=0)
    gc.collect()
    assert freed() is None
    assert _slot(chain).state is SwapState.KEPT
    assert chain.run(image).outputs["logits"].shape == (1, 10)


@pytest.mark.parametrize("trial_calls", [0, 3, 10_000])
def test_no_call_is_dropped_or_mixed_up_while_models_are_swapped(
    chain: Chain, models: Path, versions: Callable[[str], Path], trial_calls: int
) -> None:
    images = np.random.default_rng(0).random((16, 1, 8, 8, 1), dtype=np.float32)
    allowed = [
        [_logits(models, name, image) for name in ("classifier", "classifier-newer")] for image in images
    ]
    bundles = [versions("classifier-newer"), versions("classifier")]
    done = threading.Event()
    counts = [0] * 4

    def call(number: int) -> None:
        while not done.is_set():
            index = counts[number] % len(images)
            logits = chain.run(images[index]).outputs["logits"]
            assert any(np.array_equal(logits, each) for each in allowed[index])
            counts[number] += 1

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(call, number) for number in range(4)]
        try:
            for number in range(50):
                chain.swap("read", bundles[number % 2], trial_calls=trial_calls)
        finally:
            done.set()
        for future in futures:
            future.result(timeout=30)
    assert sum(counts) > 50
    figures = chain.metrics.figures()
    assert (figures.runs, figures.errors) == (sum(counts), {})
    assert _slot(chain).state in (SwapState.TRIAL, SwapState.KEPT)
    # Of all those that were loaded, two at most are still there.
    gc.collect()
    loaded = [
        each
        for each in gc.get_objects()
        if type(each) is Model and each.name.startswith("digits") and each._made
    ]
    assert len(loaded) <= 2


def test_frames_of_a_stream_are_all_answered_while_models_are_swapped(
    chain: Chain, image: Array, versions: Callable[[str], Path]
) -> None:
    bundles = [versions("classifier-newer"), versions("classifier")]
    with chain.stream([image] * 600, workers=2) as stream:
        results = []
        for result in stream:
            results.append(result)
            if result.index % 100 == 0:
                chain.swap("read", bundles[result.index // 100 % 2], trial_calls=20)
    assert [result.index for result in results] == list(range(600))
    assert all(result.error is None for result in results)


def _refused(chain: Chain, source: Any, code: ErrorCode, said: str, **options: Any) -> None:
    slot = _slot(chain)
    holder, state = slot.tier, slot.state
    with pytest.raises(HybridgeError, match=said) as caught:
        chain.swap("read", source, **options)
    assert caught.value.code is code
    assert slot.tier is holder
    assert slot.state is state


def test_what_cannot_take_over_leaves_the_model_in_use_answering(
    chain: Chain,
    models: Path,
    make_bundle: MakeBundle,
    image: Array,
    tmp_path: Path,
    versions: Callable[..., Path],
) -> None:
    expected = chain.run(image).outputs["logits"]
    canary = Canary({"image": image})
    _refused(chain, models / "arithmetic.tflite", ErrorCode.SWAP_REFUSED, "inputs of arithmetic")
    _refused(chain, models / "classifier-any-batch.tflite", ErrorCode.SWAP_REFUSED, "another signature")
    _refused(chain, versions("classifier-nan"), ErrorCode.SWAP_REFUSED, "not finite")
    _refused(chain, versions("classifier-nan"), ErrorCode.SWAP_REFUSED, "not finite", canary=canary)
    _refused(
        chain, versions("classifier-contrary"), ErrorCode.SWAP_REFUSED, "for the canary input", canary=canary
    )
    # A bare model has no confidence for the stage to decide by.
    _refused(
        chain, models / "classifier-newer.tflite", ErrorCode.SWAP_REFUSED, "confidence of classifier-newer"
    )
    _refused(chain, versions("classifier-newer", threshold=None), ErrorCode.SWAP_REFUSED, "no threshold")
    _refused(chain, tmp_path / "none.edge", ErrorCode.FILE_NOT_FOUND, "none.edge")
    whole = versions("classifier-newer").read_bytes()
    for number, damaged in enumerate((whole[:-300], whole[:1000], b"", whole.replace(b"TFL3", b"TFL4"))):
        path = tmp_path / f"damaged-{number}.edge"
        path.write_bytes(damaged)
        with pytest.raises(HybridgeError) as caught:
            chain.swap("read", path)
        assert caught.value.code.value.startswith("bundle-")
    _refused(
        chain,
        versions("classifier-newer"),
        ErrorCode.SWAP_REFUSED,
        r"'logits' 0\.1 away.*0\.05 at most",
        canary=Canary({"image": image}, max_difference=0.05),
    )
    assert _slot(chain).state is None
    np.testing.assert_array_equal(chain.run(image).outputs["logits"], expected)
    chain.swap("read", versions("classifier-newer"), canary=Canary({"image": image}, max_difference=0.2))
    assert not np.array_equal(chain.run(image).outputs["logits"], expected)


def test_the_class_is_compared_where_there_are_no_labels_too(models: Path, image: Array) -> None:
    model = Model(models / "classifier.tflite")
    chain = Chain([Stage.from_model("read", model, confidence=Confidence("logits"))])
    canary = Canary({"image": image})
    _refused(
        chain, models / "classifier-contrary.tflite", ErrorCode.SWAP_REFUSED, "for the canary", canary=canary
    )
    chain.swap("read", models / "classifier-newer.tflite", canary=canary)


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({}, ErrorCode.INPUT_MISSING),
        ({"photo": np.zeros((1, 8, 8, 1), np.float32)}, ErrorCode.INPUT_MISSING),
        ({"image": np.zeros((1, 8, 8, 1), np.float32), "more": np.zeros(1)}, ErrorCode.INPUT_UNKNOWN),
        ({"image": np.zeros((1, 8, 8, 1))}, ErrorCode.INPUT_DTYPE),
        ({"image": np.zeros((1, 9, 9, 1), np.float32)}, ErrorCode.INPUT_SHAPE),
    ],
)
def test_a_canary_that_the_stage_does_not_take_is_an_error_of_its_own(
    chain: Chain, versions: Callable[[str], Path], inputs: dict[str, Array], code: ErrorCode
) -> None:
    with pytest.raises(HybridgeError) as caught:
        chain.swap("read", versions("classifier-newer"), canary=Canary(inputs))
    assert caught.value.code is code


def test_a_stage_that_the_chain_does_not_have_is_refused(
    chain: Chain, versions: Callable[[str], Path]
) -> None:
    with pytest.raises(HybridgeError, match="one of read") as caught:
        chain.swap("raed", versions("classifier-newer"))
    assert caught.value.code is ErrorCode.MODEL_UNKNOWN


@pytest.mark.parametrize("calls_before", [0, 7])
def test_a_model_that_fails_in_its_trial_gives_way_and_the_call_is_answered(
    chain: Chain, models: Path, image: Array, versions: Callable[[str], Path], calls_before: int
) -> None:
    bright = image * 4
    expected = _logits(models, "classifier", bright)
    old = _slot(chain).tier
    # It is sound on zeros and on the canary, and not a number on what is brighter than two.
    chain.swap("read", versions("classifier-fragile"), canary=Canary({"image": image}), trial_calls=10)
    new = weakref.ref(_slot(chain).tier.model)
    for _ in range(calls_before):
        chain.run(image)
    np.testing.assert_array_equal(chain.run(bright).outputs["logits"], expected)
    slot = _slot(chain)
    assert slot.tier is old
    assert slot.state is SwapState.ROLLED_BACK
    assert "digits-classifier-fragile 1.0 gave way to digits 1.0: its outputs are not finite" in slot.detail
    gc.collect()
    assert new() is None
    for _ in range(20):
        np.testing.assert_array_equal(chain.run(bright).outputs["logits"], expected)
    assert chain.metrics.figures().errors == {}
    # The next one may try again.
    chain.swap("read", versions("classifier-newer"), trial_calls=1)
    chain.run(image)
    assert _slot(chain).state is SwapState.KEPT


def test_a_model_that_raises_in_its_trial_gives_way(
    chain: Chain, models: Path, image: Array, versions: Callable[[str], Path]
) -> None:
    expected = _logits(models, "classifier", image)
    chain.swap("read", versions("classifier-newer"))
    _slot(chain).tier.model._idle[0].interpreter.invoke = _fail  # type: ignore[method-assign]
    np.testing.assert_array_equal(chain.run(image).outputs["logits"], expected)
    assert _slot(chain).state is SwapState.ROLLED_BACK
    assert "a kernel gave up" in _slot(chain).detail


def test_what_a_caller_gives_wrongly_is_no_fault_of_the_new_model(
    chain: Chain, image: Array, versions: Callable[[str], Path]
) -> None:
    chain.swap("read", versions("classifier-fragile"))
    for bad in (image.astype(np.float64), image[:, :4]):
        with pytest.raises(HybridgeError):
            chain.run(bad)
    assert chain.run(np.full_like(image, np.nan)).confidence == 0
    assert _slot(chain).state is SwapState.TRIAL


def test_after_its_trial_a_model_stays_whatever_it_does(
    chain: Chain, image: Array, versions: Callable[[str], Path]
) -> None:
    chain.swap("read", versions("classifier-fragile"), trial_calls=2)
    for _ in range(2):
        chain.run(image)
    assert chain.run(image * 4).confidence == 0
    assert _slot(chain).state is SwapState.KEPT


def test_a_model_that_gives_way_under_many_threads_drops_no_call(
    chain: Chain, models: Path, image: Array, versions: Callable[[str], Path]
) -> None:
    bright = image * 4
    expected = _logits(models, "classifier", bright)

    def call(number: int) -> None:
        for _ in range(50):
            np.testing.assert_array_equal(chain.run(bright).outputs["logits"], expected)

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(call, number) for number in range(4)]
        for _ in range(10):
            chain.swap("read", versions("classifier-fragile"))
            time.sleep(0.002)
        for future in futures:
            future.result(timeout=30)
    chain.run(bright)
    assert _slot(chain).state is SwapState.ROLLED_BACK


def test_a_swap_during_a_trial_falls_back_on_the_last_that_was_proved(
    chain: Chain, models: Path, image: Array, versions: Callable[[str], Path]
) -> None:
    first = _slot(chain).tier
    chain.swap("read", versions("classifier-newer"))
    second = weakref.ref(_slot(chain).tier.model)
    chain.swap("read", versions("classifier-fragile"))
    gc.collect()
    assert second() is None
    bright = image * 4
    np.testing.assert_array_equal(chain.run(bright).outputs["logits"], _logits(models, "classifier", bright))
    assert _slot(chain).tier is first
    # One that gives way while the next is being prepared is not what that one falls back on.
    chain.swap("read", versions("classifier-fragile"))
    fragile = _slot(chain).tier

    class Meanwhile(dict[str, Array]):
        def keys(self) -> Any:
            if _slot(chain).tier is fragile:
                chain.run(bright)
            return super().keys()

    chain.swap("read", versions("classifier-newer"), canary=Canary(Meanwhile(image=image)))
    assert _slot(chain).state is SwapState.TRIAL
    assert chain.run(image).outputs["logits"].shape == (1, 10)
    _slot(chain).tier.model._idle[0].interpreter.invoke = _fail  # type: ignore[method-assign]
    np.testing.assert_array_equal(chain.run(image).outputs["logits"], _logits(models, "classifier", image))
    assert _slot(chain).tier is first


def _fail() -> None:
    raise RuntimeError("a kernel gave up")


def test_a_swap_keeps_what_the_stage_says_of_its_model(
    models: Path, make_bundle: MakeBundle, image: Array
) -> None:
    model = Model(models / "classifier-int8.tflite", dequantize=False, num_threads=2, instances=2)
    labels = tuple("abcdefghij")
    stage = Stage.from_model("read", model, confidence=Confidence("logits", threshold=0.1), labels=labels)
    chain = Chain([stage])
    before = chain.run(image)
    chain.swap("read", make_bundle(model="classifier-int8"), trial_calls=0)
    after = chain.run(image)
    assert after.outputs["logits"].dtype == np.int8
    np.testing.assert_array_equal(after.outputs["logits"], before.outputs["logits"])
    assert after.label == before.label in labels
    new = _slot(chain).tier.model
    assert (new.num_threads, new.instances, len(new._idle)) == (2, 2, 2)


def test_models_of_free_size_are_compared_and_warmed_at_the_canary_s(models: Path, tmp_path: Path) -> None:
    # At the size of one that zeros would have, it cannot even be allocated.
    chain = Chain([Stage.from_model("read", Model(models / "any-size.tflite"))])
    photo = np.random.default_rng(0).random((1, 9, 7, 3), dtype=np.float32)
    chain.swap("read", models / "any-size.tflite", canary=Canary({"photo": photo}, max_difference=0.0))
    assert chain.run(photo).outputs["map"].shape == (1, 5, 3, 2)
    with pytest.raises(HybridgeError, match="first run") as caught:
        chain.swap("read", models / "any-size.tflite")
    assert caught.value.code is ErrorCode.SWAP_REFUSED


def test_a_canary_does_not_disturb_the_state_of_a_stream(models: Path) -> None:
    model = Model(models / "running-sum.tflite", states={"state": "next"})
    chain = Chain([Stage.from_model("read", model)])
    ones = np.ones((1, 2), np.float32)
    assert [chain.run(ones).outputs["y"][0, 0] for _ in range(3)] == [2, 3, 4]
    canary = Canary({"x": ones * 7}, max_difference=0.0)
    other = models / "counter.tflite"
    with pytest.raises(HybridgeError):
        chain.swap("read", other, canary=canary)
    assert chain.run(ones).outputs["y"][0, 0] == 5
    chain.swap("read", models / "running-sum.tflite", canary=canary)
    # A new model begins a new stream.
    assert [chain.run(ones).outputs["y"][0, 0] for _ in range(2)] == [2, 3]


def test_a_new_model_that_does_not_fit_the_budget_leaves_the_old(models: Path) -> None:
    budget = MemoryBudget(6_000_000)
    model = Model(models / "heavy-1.tflite", budget=budget)
    chain = Chain([Stage.from_model("read", model)])
    x = np.ones((1, 1024), np.float32)
    expected = chain.run(x).outputs["y"]
    # Idle, the old one is unloaded for the new one, and loaded again when it is asked.
    chain.swap("read", models / "heavy-2.tflite", canary=Canary({"x": x}))
    assert not np.array_equal(chain.run(x).outputs["y"], expected)
    content = (models / "heavy-3.tflite").read_bytes()
    padded = Model(content)  # bytes of another model, for a file that claims to be larger than the budget
    del padded
    large = content + bytes(8_000_000)
    with pytest.raises(HybridgeError) as caught:
        chain.swap("read", large)  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.MEMORY_BUDGET
    assert chain.run(x).outputs["y"].shape == (1, 1024)


def test_tiers_and_nested_stages_are_swapped_by_name(
    models: Path, make_bundle: MakeBundle, image: Array
) -> None:
    from edge_runtime import Tier

    tiers = [Tier(Model(make_bundle(threshold=1.0))), Tier(Model(make_bundle()))]
    inner = Chain([Stage.from_tiers("read", tiers)])
    each = Stage.from_chain(
        "each", inner, inputs={"image": "images"}, outputs={"logits": "l"}, foreach="image"
    )
    chain = Chain([each, Stage.from_chain("once", Chain([Stage.from_model("read", Model(make_bundle()))]))])
    assert list(chain.model_slots()) == ["each/read", "each/read:2", "once/read"]
    chain.swap("each/read:2", make_bundle(model="classifier-newer"))
    outputs = chain.run({"images": [image], "image": image}).outputs
    np.testing.assert_array_equal(outputs["l"][0], _logits(models, "classifier-newer", image))
    np.testing.assert_array_equal(outputs["logits"], _logits(models, "classifier", image))
    chain.close()
