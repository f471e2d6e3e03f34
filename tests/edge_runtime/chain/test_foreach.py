from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import (
    Answer,
    Bundle,
    Chain,
    Confidence,
    ErrorCode,
    HybridgeError,
    Model,
    Query,
    Reason,
    Source,
    Stage,
)
from edge_runtime.operators import operator
from edge_runtime.tensor_spec import Array
from tests.conftest import LABELS, count_invocations

MakeBundle = Callable[..., Bundle]
Calling = Callable[..., Stage]


@pytest.fixture
def images() -> Array:
    """Seven images without a batch axis, each different."""
    return np.random.default_rng(1).random((7, 8, 8, 1), dtype=np.float32)


def _alone(model: Model, images: Array) -> list[Array]:
    return [model.run(image[np.newaxis])["logits"][0] for image in images]


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("name", ["classifier", "classifier-any-batch", "classifier-int8"])
def test_a_model_answers_for_each_item(models: Path, images: Array, name: str, as_list: bool) -> None:
    model = Model(models / f"{name}.tflite")
    chain = Chain([Stage.from_model("read", model, foreach="image", batch_size=3)])
    given = list(images) if as_list else images
    logits = chain.run({"image": given}).outputs["logits"]
    assert isinstance(logits, np.ndarray)
    np.testing.assert_allclose(logits, _alone(model, images), atol=1e-5)


@pytest.mark.parametrize("as_list", [False, True])
def test_items_with_a_batch_axis_of_their_own_keep_it(models: Path, images: Array, as_list: bool) -> None:
    model = Model(models / "classifier.tflite")
    chain = Chain([Stage.from_model("read", model, foreach="image")])
    batched = images[:, np.newaxis]
    logits = chain.run({"image": list(batched) if as_list else batched}).outputs["logits"]
    assert logits.shape == (7, 1, 10)
    np.testing.assert_allclose(logits[:, 0], _alone(model, images), atol=1e-5)


def test_items_of_several_rows_are_a_list(models: Path, images: Array) -> None:
    model = Model(models / "classifier-any-batch.tflite")
    chain = Chain([Stage.from_model("read", model, foreach="image")])
    logits = chain.run({"image": [images[:2], images[2:7]]}).outputs["logits"]
    assert [each.shape for each in logits] == [(2, 10), (5, 10)]
    np.testing.assert_allclose(np.concatenate(logits), _alone(model, images), atol=1e-5)


def test_items_of_several_sizes_give_items_of_several_sizes(models: Path) -> None:
    model = Model(models / "any-size.tflite")
    chain = Chain([Stage.from_model("map", model, foreach="photo")])
    assert chain.output_types["map"].items is not False
    sizes = [(9, 9), (7, 12), (9, 9), (20, 6)]
    photos = [np.random.default_rng(n).random((*size, 3), dtype=np.float32) for n, size in enumerate(sizes)]
    maps = chain.run({"photo": photos}).outputs["map"]
    assert isinstance(maps, list)
    for photo, each in zip(photos, maps, strict=True):
        np.testing.assert_array_equal(each, model.run(photo[np.newaxis])["map"][0])


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ([], (0, 10)),
        (np.empty((0, 8, 8, 1), np.float32), (0, 10)),
        (np.empty((0, 1, 8, 8, 1), np.float32), (0, 1, 10)),
    ],
)
def test_of_no_items_there_are_no_results_of_the_same_type(models: Path, given: Any, shape: Any) -> None:
    report = {"confidence": "sure", "label": "named", "source": "from", "reason": "why"}
    read = Stage.from_model(
        "read",
        Model(models / "classifier.tflite"),
        foreach="image",
        confidence=Confidence("logits"),
        labels=LABELS,
        report=report,
    )
    chain = Chain([read], outputs=["logits", *report.values()])
    prediction = chain.run({"image": given})
    assert (prediction.outputs["logits"].shape, prediction.outputs["logits"].dtype) == (shape, np.float32)
    assert (prediction.outputs["sure"].shape, prediction.outputs["sure"].dtype) == ((0,), np.float32)
    for name in ("named", "from", "why"):
        assert prediction.outputs[name].shape == (0,)
        assert prediction.outputs[name].dtype.kind == "U"
    assert prediction.confidence is None
    assert prediction.stages[0].parts == ()


def test_of_no_items_of_free_size_there_is_an_empty_list(models: Path) -> None:
    chain = Chain([Stage.from_model("map", Model(models / "any-size.tflite"), foreach="photo")])
    assert chain.run({"photo": []}).outputs["map"] == []


def test_several_inputs_go_item_by_item_and_others_are_the_same_for_all(models: Path) -> None:
    model = Model(models / "arithmetic.tflite")
    rng = np.random.default_rng(0)
    left, right = rng.random((2, 4, 2, 3), dtype=np.float32)
    both = Chain([Stage.from_model("add", model, foreach=["left", "right"])])
    np.testing.assert_allclose(both.run({"left": left, "right": right}).outputs["total"], left + right)
    one = Chain([Stage.from_model("add", model, foreach=["left"])])
    np.testing.assert_allclose(
        one.run({"left": list(left), "right": right[0]}).outputs["difference"], left - right[0]
    )


def test_items_that_do_not_match_in_number_are_refused(models: Path) -> None:
    chain = Chain([Stage.from_model("add", Model(models / "arithmetic.tflite"), foreach=["left", "right"])])
    with pytest.raises(HybridgeError, match=r"3 of 'left', 2 of 'right'|2 of 'right', 3 of 'left'") as caught:
        chain.run({"left": np.ones((3, 2, 3), np.float32), "right": [np.ones((2, 3), np.float32)] * 2})
    assert caught.value.code is ErrorCode.INPUT_SHAPE


@pytest.mark.parametrize("given", [5, None, "abc", np.array(3.0), {"a": 1}, np.float32(1)])
def test_what_has_no_items_is_refused(models: Path, given: Any) -> None:
    chain = Chain([Stage.from_model("read", Model(models / "classifier.tflite"), foreach="image")])
    with pytest.raises(HybridgeError, match="items of 'image'") as caught:
        chain.run({"image": given})
    assert caught.value.code is ErrorCode.INPUT_SHAPE


def test_an_item_that_does_not_fit_is_refused_and_the_next_run_is_fine(models: Path, images: Array) -> None:
    chain = Chain([Stage.from_model("read", Model(models / "classifier-any-batch.tflite"), foreach="image")])
    for bad, code in (
        (images[0][:5], ErrorCode.INPUT_SHAPE),
        (images[0].astype(np.float64), ErrorCode.INPUT_DTYPE),
        (images[0].tolist(), ErrorCode.INPUT_DTYPE),
        (np.zeros((0, 8, 8, 1), np.float32), ErrorCode.INPUT_SHAPE),
    ):
        with pytest.raises(HybridgeError) as caught:
            chain.run({"image": [images[0], bad, images[1]]})
        assert caught.value.code is code
    assert chain.run({"image": images}).outputs["logits"].shape == (7, 10)


def test_items_share_invocations_up_to_the_batch_size(models: Path, images: Array) -> None:
    model = Model(models / "classifier-any-batch.tflite")
    chain = Chain([Stage.from_model("read", model, foreach="image", batch_size=3)])
    chain.run({"image": images})  # once an item is also run alone, to see that rows are independent
    invoked = count_invocations(model)
    chain.run({"image": images})
    assert len(invoked) == 3


def test_an_operator_goes_item_by_item(calling: Calling) -> None:
    chain = Chain([calling("double", lambda array: array * 2, "x", "y", foreach="array")])
    values = [np.ones(2), np.ones((3, 3))]
    assert [each.tolist() for each in chain.run({"x": values}).outputs["y"]] == [
        (value * 2).tolist() for value in values
    ]


def test_an_item_of_an_array_is_an_array(calling: Calling) -> None:
    seen: list[Any] = []

    def see(array: Any) -> Any:
        seen.append(array)
        return array

    chain = Chain([calling("see", see, "x", "y", foreach="array")])
    for values in (np.array(["a", "exit"]), np.array([1.0, 2.0], np.float32)):
        seen.clear()
        results = chain.run({"x": values}).outputs["y"]
        assert all(isinstance(each, np.ndarray) and each.shape == () for each in (*seen, *results))
        assert [each.item() for each in results] == values.tolist()


def test_declared_results_are_one_array_and_texts_of_any_length_too() -> None:
    @operator("name", takes={"array": "float32[...]"}, gives={"text": "text[]", "mean": "float32[1]"})
    def name(array: Any) -> Any:
        return {"text": np.array("n" * int(array.sum())), "mean": array.mean(keepdims=True)}

    chain = Chain([Stage.from_operator("name", "name", inputs={"array": "x"}, foreach="array")])
    outputs = chain.run({"x": np.array([[1], [3]], np.float32)}).outputs
    assert outputs["text"].tolist() == ["n", "nnn"]
    assert outputs["mean"].tolist() == [[1], [3]]
    outputs = chain.run({"x": []}).outputs
    assert (outputs["text"].shape, outputs["text"].dtype.kind) == ((0,), "U")
    assert (outputs["mean"].shape, outputs["mean"].dtype) == ((0, 1), np.float32)


def test_a_result_that_is_not_what_was_declared_is_one_clear_error() -> None:
    @operator("lie", takes={"array": "float32[...]"}, gives={"array": "float32[2]"})
    def lie(array: Any) -> Any:
        return array

    @operator("split-it", takes={"array": ""}, gives={"parts": "T[...]*"})
    def split_it(array: Any) -> Any:
        return list(array)

    chain = Chain(
        [Stage.from_operator("lie", "lie", inputs={"array": "x"}, outputs={"array": "y"}, foreach="array")]
    )
    with pytest.raises(HybridgeError, match=r"result 'array' of item 1: received shape \(3,\)") as caught:
        chain.run({"x": [np.ones(2, np.float32), np.ones(3, np.float32)]})
    assert caught.value.code is ErrorCode.OPERATOR_FAILED
    chain = Chain([Stage.from_operator("split", "split-it", inputs={"array": "x"}, foreach="array")])
    with pytest.raises(HybridgeError, match="items of its own") as caught:
        chain.run({"x": [np.ones(2)]})
    assert caught.value.code is ErrorCode.OPERATOR_FAILED


def test_an_item_that_raises_names_the_operator_and_leaves_the_chain_usable() -> None:
    stage = Stage.from_operator(
        "check", "refuse-negative", inputs={"array": "x"}, outputs={"array": "y"}, foreach="array"
    )
    chain = Chain([stage])
    with pytest.raises(HybridgeError, match=r"refuse-negative.*less than nothing") as caught:
        chain.run({"x": np.array([[1], [-1], [1]], np.float32)})
    assert caught.value.code is ErrorCode.OPERATOR_FAILED
    assert len(chain.run({"x": np.ones((3, 1), np.float32)}).outputs["y"]) == 3
    assert chain.metrics.figures().stages[0].errors == 1


def test_each_item_has_its_own_confidence_label_and_source(make_bundle: MakeBundle, images: Array) -> None:
    bundle = make_bundle()
    report = {"confidence": "sure", "label": "named", "source": "from"}
    chain = Chain(
        [Stage.from_model("read", Model(bundle), foreach="image", report=report)],
        outputs=["logits", *report.values()],
    )
    single = Chain.from_bundle(bundle)
    alone = [single.run(image[np.newaxis]) for image in images]
    prediction = chain.run({"image": images})
    (trace,) = prediction.stages
    assert [part.stage for part in trace.parts] == [f"read[{index}]" for index in range(7)]
    assert [part.label for part in trace.parts] == [each.label for each in alone]
    np.testing.assert_allclose(
        [part.confidence or 0 for part in trace.parts], [each.confidence or 0 for each in alone], rtol=1e-5
    )
    np.testing.assert_allclose(
        prediction.outputs["sure"], [each.confidence or 0 for each in alone], rtol=1e-5
    )
    assert prediction.outputs["named"].tolist() == [each.label for each in alone]
    assert prediction.outputs["from"].tolist() == ["device"] * 7
    # The chain's answer is as sure as the least sure of its items.
    assert prediction.confidence == pytest.approx(min(each.confidence or 0 for each in alone), rel=1e-5)


class SlowCloud:
    """Answers with zeros whatever is less sure than its threshold, after a moment."""

    def __init__(self, threshold: float, seconds: float = 0.0):
        self.threshold, self.seconds = threshold, seconds
        self.asked: list[Query] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def resolve(self, query: Query) -> Answer:
        if query.confidence is not None and query.confidence >= self.threshold:
            return Answer.keep(Reason.CONFIDENT)
        with self._lock:
            self.asked.append(query)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.seconds)
        with self._lock:
            self.at_once -= 1
        return Answer({"logits": np.zeros_like(query.outputs["logits"])}, Source.CLOUD, Reason.UNSURE)

    def close(self) -> None: ...


def test_the_cloud_is_asked_about_unsure_items_only_and_about_several_at_once(
    make_bundle: MakeBundle, images: Array
) -> None:
    sure = [Chain.from_bundle(make_bundle()).run(image[np.newaxis]).confidence or 0 for image in images]
    cloud = SlowCloud(threshold=float(np.median(sure)) + 1e-6, seconds=0.02)
    chain = Chain(
        [
            Stage.from_model(
                "read", Model(make_bundle()), foreach="image", fallback=cloud, report={"source": "from"}
            )
        ],
        outputs=["logits", "from"],
    )
    prediction = chain.run({"image": images})
    unsure = [confidence < cloud.threshold for confidence in sure]
    assert sum(unsure) == len(cloud.asked) == 4
    assert cloud.most_at_once > 1
    assert prediction.outputs["from"].tolist() == ["cloud" if asked else "device" for asked in unsure]
    for index, asked in enumerate(unsure):
        assert (prediction.outputs["logits"][index] == 0).all() == asked
    # What is sent is the item as the stage got it.
    assert all(query.inputs["image"].shape == (1, 8, 8, 1) for query in cloud.asked)


def test_a_nested_chain_goes_item_by_item(make_bundle: MakeBundle, images: Array) -> None:
    inner = Chain(
        [
            Stage.from_operator(
                "batch", "expand-dims", inputs={"array": "photo"}, outputs={"array": "image"}
            ),
            Stage.from_model("read", Model(make_bundle()), report={"confidence": "sure", "label": "named"}),
        ],
        outputs=["logits", "sure", "named"],
    )
    chain = Chain([Stage.from_chain("each", inner, foreach="photo")])
    prediction = chain.run({"photo": list(images)})
    assert isinstance(prediction.outputs["sure"], list | np.ndarray)
    assert [float(each) for each in prediction.outputs["sure"]] == pytest.approx(
        [part.confidence for part in prediction.stages[0].parts]
    )
    assert [str(each) for each in prediction.outputs["named"]] == [
        part.label for part in prediction.stages[0].parts
    ]
    assert [part.stage for part in prediction.stages[0].parts[1].parts] == ["each/batch", "each/read"]
    assert len(chain.run({"photo": []}).outputs["logits"]) == 0


def test_an_item_for_which_a_nested_chain_gives_nothing_is_one_clear_error(calling: Calling) -> None:
    inner = Chain([calling("a", lambda array: array, "x", "y", when="max(x) > 0")])
    chain = Chain([Stage.from_chain("each", inner, foreach="x")])
    with pytest.raises(HybridgeError, match="result 'y' of item 1: received nothing") as caught:
        chain.run({"x": [np.ones(1), -np.ones(1)]})
    assert caught.value.code is ErrorCode.OPERATOR_FAILED


def test_what_a_nested_chain_says_of_its_answer_is_one_value(make_bundle: MakeBundle, image: Array) -> None:
    inner = Chain(
        [
            Stage.from_model("read", Model(make_bundle())),
            Stage.from_operator("chances", "softmax", outputs={"logits": "chances"}),
        ]
    )
    report = {"confidence": "sure", "label": "named"}
    chain = Chain([Stage.from_chain("inner", inner, report=report)], outputs=["chances", *report.values()])
    prediction = chain.run(image)
    for name in report.values():
        assert isinstance(prediction.outputs[name], np.ndarray)
        assert prediction.outputs[name].shape == ()
    assert float(prediction.outputs["sure"]) == pytest.approx(prediction.confidence)
    assert str(prediction.outputs["named"]) == prediction.label
