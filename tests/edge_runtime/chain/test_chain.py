from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import (
    Answer,
    Bundle,
    Chain,
    Confidence,
    ErrorCode,
    Fallback,
    HybridgeError,
    Model,
    Query,
    Reason,
    Source,
    Stage,
    load_chain,
)
from edge_runtime.tensor_spec import Array
from tests.conftest import LABELS

MakeBundle = Callable[..., Bundle]


class OtherModel:
    """A fallback that asks another model in this process whenever the query is below its threshold."""

    def __init__(self, model: Model):
        self.model = model
        self.queries: list[Query] = []
        self.closed = False

    def resolve(self, query: Query) -> Answer:
        self.queries.append(query)
        if query.confidence is None or query.threshold is None or query.confidence >= query.threshold:
            return Answer.keep(Reason.CONFIDENT)
        return Answer(self.model.run(query.inputs), Source.CLOUD, Reason.UNSURE)

    def close(self) -> None:
        self.closed = True


def _softmax(logits: Array) -> Array:
    exponents = np.exp(logits - logits.max())
    result: Array = exponents / exponents.sum()
    return result


def test_a_bundle_is_a_chain_of_one_with_label_and_confidence(make_bundle: MakeBundle, image: Array) -> None:
    bundle = make_bundle()
    logits = Model(bundle).run(image)["logits"]
    prediction = Chain.from_bundle(bundle).run({"image": image})
    np.testing.assert_array_equal(prediction.outputs["logits"], logits)
    assert prediction.label == LABELS[logits.argmax()]
    assert prediction.confidence == pytest.approx(_softmax(logits).max())
    assert (prediction.source, prediction.reason) == (Source.DEVICE, Reason.NO_FALLBACK)
    (trace,) = prediction.stages
    assert trace.stage == "digits"
    assert 0 < trace.device_ms <= prediction.total_ms


def test_preprocessing_in_the_bundle_takes_raw_inputs(make_bundle: MakeBundle, models: Path) -> None:
    raw = np.random.default_rng(2).integers(0, 17, (1, 8, 8, 1)).astype(np.uint8)
    prediction = Chain.from_bundle(make_bundle(raw=True)).run(raw)
    expected = Model(models / "classifier.tflite").run(raw.astype(np.float32) * np.float32(0.0625))
    np.testing.assert_array_equal(prediction.outputs["logits"], expected["logits"])
    with pytest.raises(HybridgeError) as caught:
        Chain.from_bundle(make_bundle(raw=True)).run(raw.astype(np.float32))
    assert caught.value.code is ErrorCode.INPUT_DTYPE


def test_stages_run_in_the_order_their_tensors_ask_for(models: Path) -> None:
    arithmetic = Model(models / "arithmetic.tflite")
    chain = Chain(
        [
            Stage.from_operator(
                "double", "scale", inputs={"array": "total"}, outputs={"array": "y"}, params={"factor": 2}
            ),
            Stage.from_model("add", arithmetic, inputs={"left": "a", "right": "b"}),
        ],
        outputs=["y", "difference"],
    )
    assert chain.inputs == ("b", "a") or chain.inputs == ("a", "b")
    a, b = np.full((2, 3), 4, np.float32), np.full((2, 3), 1, np.float32)
    prediction = chain.run({"a": a, "b": b})
    assert [trace.stage for trace in prediction.stages] == ["add", "double"]
    np.testing.assert_array_equal(prediction.outputs["y"], (a + b) * 2)
    assert set(prediction.outputs) == {"y", "difference"}
    assert prediction.confidence is None


def test_an_unsure_answer_is_fetched_and_a_sure_one_kept(
    make_bundle: MakeBundle, models: Path, image: Array
) -> None:
    elsewhere = OtherModel(Model(models / "classifier-int8.tflite"))
    with Chain.from_bundle(make_bundle(threshold=1.0), fallback=elsewhere) as chain:
        asked = chain.run(image)
    assert (asked.source, asked.reason) == (Source.CLOUD, Reason.UNSURE)
    np.testing.assert_array_equal(asked.outputs["logits"], elsewhere.model.run(image)["logits"])
    assert asked.confidence == pytest.approx(_softmax(asked.outputs["logits"]).max(), rel=1e-5)
    assert elsewhere.closed
    kept = Chain.from_bundle(make_bundle(threshold=0.0), fallback=elsewhere).run(image)
    assert (kept.source, kept.reason) == (Source.DEVICE, Reason.CONFIDENT)
    assert elsewhere.queries[0].inputs["image"] is image


def test_the_deadline_reaches_the_fallback(make_bundle: MakeBundle, models: Path, image: Array) -> None:
    elsewhere = OtherModel(Model(models / "classifier.tflite"))
    chain = Chain.from_bundle(make_bundle(), fallback=elsewhere)
    chain.run(image)
    chain.run(image, deadline_s=5.0)
    assert elsewhere.queries[0].deadline is None
    assert elsewhere.queries[1].deadline is not None


class Broken:
    """A fallback that breaks its promise not to raise."""

    def resolve(self, query: Query) -> Answer:
        raise RuntimeError(f"wires crossed at {query.stage}")

    def close(self) -> None: ...


class OtherNames:
    """A fallback whose answer has other outputs than the stage."""

    def resolve(self, query: Query) -> Answer:
        return Answer({"scores": query.outputs["logits"]}, Source.CLOUD, Reason.UNSURE)

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("fallback", "reason", "detail"),
    [(Broken(), Reason.FALLBACK_FAILED, "wires crossed"), (OtherNames(), Reason.CLOUD_REFUSED, "scores")],
)
def test_a_fallback_that_misbehaves_leaves_the_local_answer(
    make_bundle: MakeBundle, image: Array, fallback: Fallback, reason: Reason, detail: str
) -> None:
    bundle = make_bundle(threshold=1.0)
    prediction = Chain.from_bundle(bundle, fallback=fallback).run(image)
    np.testing.assert_array_equal(prediction.outputs["logits"], Model(bundle).run(image)["logits"])
    assert (prediction.source, prediction.reason) == (Source.DEVICE, reason)
    assert detail in prediction.detail


def test_an_output_that_is_not_finite_has_no_confidence(make_bundle: MakeBundle, image: Array) -> None:
    prediction = Chain.from_bundle(make_bundle()).run(np.full_like(image, np.nan))
    assert prediction.confidence == 0.0


def test_many_threads_share_a_chain(make_bundle: MakeBundle) -> None:
    chain = Chain.from_bundle(make_bundle(raw=True))
    raws = np.random.default_rng(0).integers(0, 17, (64, 1, 8, 8, 1)).astype(np.uint8)
    alone = [chain.run(raw).outputs["logits"] for raw in raws]
    with ThreadPoolExecutor(8) as pool:
        for expected, prediction in zip(alone, pool.map(chain.run, raws), strict=True):
            np.testing.assert_array_equal(prediction.outputs["logits"], expected)


CHAIN = """
name = "digits"
outputs = ["logits"]

[[stages]]
name = "scale"
operator = "scale"
inputs = { array = "image" }
outputs = { array = "scaled" }
params = { factor = 0.0625 }

[[stages]]
name = "classify"
model = "MODEL"
inputs = { image = "scaled" }
confidence = { output = "logits", threshold = 0.9 }
"""


def test_a_chain_in_toml_is_the_same_chain(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle()
    bundle.save(tmp_path)
    (tmp_path / "chain.toml").write_text(CHAIN.replace("MODEL", bundle.file_name))
    raw = np.random.default_rng(2).integers(0, 17, (1, 8, 8, 1)).astype(np.uint8)
    prediction = load_chain(tmp_path / "chain.toml").run({"image": raw})
    expected = Chain.from_bundle(make_bundle(raw=True)).run(raw)
    np.testing.assert_array_equal(prediction.outputs["logits"], expected.outputs["logits"])
    assert prediction.label == expected.label
    assert [trace.stage for trace in prediction.stages] == ["scale", "classify"]


def test_a_chain_can_be_a_stage_of_another(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle()
    bundle.save(tmp_path)
    (tmp_path / "inner.toml").write_text(CHAIN.replace("MODEL", bundle.file_name))
    (tmp_path / "outer.toml").write_text(
        '[[stages]]\nname = "inner"\nchain = "inner.toml"\ninputs = { image = "photo" }\n'
        '[[stages]]\nname = "chances"\noperator = "softmax"\noutputs = { logits = "chances" }\n'
    )
    prediction = load_chain(tmp_path / "outer.toml").run({"photo": np.ones((1, 8, 8, 1), np.uint8)})
    assert [trace.stage for trace in prediction.stages] == ["inner", "chances"]
    assert [part.stage for part in prediction.stages[0].parts] == ["inner/scale", "inner/classify"]
    assert prediction.outputs["chances"].sum() == pytest.approx(1)
    assert prediction.label in LABELS
    assert prediction.confidence == pytest.approx(prediction.outputs["chances"].max())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages = 3", ["stages"]),
        ("[[stages]]\nname = 'a'\noperater = 'scale'", ["operater"]),
        ("not toml at all [", ["TOML"]),
        ("stages = []", ["no stages"]),
        ("[[stages]]\nname = 'a'", ["stage 'a' (line 1)", "model, tiers, operator, chain, join"]),
        (
            "[[stages]]\nname = 'a'\noperator = 'sclae'\n[[stages]]\nname = 'b'\nmodel = 'no.edge'",
            ["sclae", "no.edge"],
        ),
        ("[[stages]]\nname = 'a'\noperator = 'scale'\nparams = { faktor = 1 }", ["faktor"]),
        ("[[stages]]\nname = 'a'\noperator = 'reshape'", ["shape"]),
        ("[[stages]]\nname = 'a'\noperator = 'scale'\ninputs = { picture = 'x' }", ["picture"]),
        ("outputs = ['z']\n[[stages]]\nname = 'a'\noperator = 'scale'\noutputs = {array = 'y'}", ["'z'"]),
        (
            "[[stages]]\nname = 'a'\noperator = 'scale'\ninputs = {array = 'q'}\noutputs = {array = 'p'}\n"
            "[[stages]]\nname = 'b'\noperator = 'scale'\ninputs = {array = 'p'}\noutputs = {array = 'q'}",
            ["a", "b", "wait for each other"],
        ),
        (
            "[[stages]]\nname = 'a'\noperator = 'scale'\noutputs = {array = 'y'}\n"
            "[[stages]]\nname = 'a'\noperator = 'scale'\noutputs = {array = 'y'}",
            ["two stages are named 'a'", "both make 'y'"],
        ),
        ("[[stages]]\nname = 'a'\nchain = 'chain.toml'", ["contains itself"]),
        ("[[stages]]\nname = 'a'\noperator = 'scale'\nfallback = { url = 'ftp://x/y' }", ["ftp"]),
    ],
)
def test_chains_that_cannot_be_say_all_that_is_wrong(tmp_path: Path, text: str, said: list[str]) -> None:
    (tmp_path / "chain.toml").write_text(text)
    with pytest.raises(HybridgeError) as caught:
        load_chain(tmp_path / "chain.toml")
    assert caught.value.code is ErrorCode.CHAIN_INVALID
    for word in said:
        assert word in caught.value.message


def test_a_fallback_without_a_score_is_refused(models: Path) -> None:
    model = Model(models / "classifier.tflite")
    with pytest.raises(HybridgeError) as caught:
        Stage.from_model("m", model, fallback=OtherModel(model))
    assert caught.value.code is ErrorCode.CHAIN_INVALID
    Stage.from_model("m", model, confidence=Confidence("logits"), fallback=OtherModel(model))


def test_inputs_of_a_chain_are_checked_by_name(make_bundle: MakeBundle, image: Array) -> None:
    chain = Chain.from_bundle(make_bundle())
    for inputs, code in (
        ({"photo": image}, ErrorCode.INPUT_MISSING),
        ({"image": image, "other": image}, ErrorCode.INPUT_UNKNOWN),
    ):
        with pytest.raises(HybridgeError) as caught:
            chain.run(inputs)
        assert caught.value.code is code
