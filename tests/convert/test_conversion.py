"""A trained classifier through every recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from convert import Budget, ParityBounds, Precision, convert, find_recipe
from convert.quantization import calibrate, operations, quantize
from edge_runtime import Bundle, Chain, Confidence, ErrorCode, HybridgeError, Model
from edge_runtime.manifest import PreprocessingStep, RawInput
from edge_runtime.tensor_spec import TensorSpec
from tests.convert.conftest import Digits

pytestmark = pytest.mark.tensorflow


def code_of(*arguments: Any, **options: Any) -> tuple[ErrorCode, str]:
    with pytest.raises(HybridgeError) as caught:
        convert(*arguments, **options)
    return caught.value.code, caught.value.message


@pytest.mark.parametrize("recipe", list(Precision))
def test_a_classifier_loses_less_than_a_point_with_every_recipe(digits: Digits, recipe: str) -> None:
    conversion = convert(
        digits.file, recipe=recipe, representative=digits.calibration, evaluation=digits.evaluation
    )
    assert conversion.accuracy is not None
    assert conversion.accuracy.source > 0.9
    assert conversion.accuracy.drop < 0.01
    assert conversion.accuracy.samples == len(digits.test)
    assert conversion.parity.label_agreement is not None
    assert conversion.parity.label_agreement > 0.98
    assert conversion.parity.data == "user"
    manifest = conversion.bundle.manifest
    taken = {"int8": "int8", "int16x8": "int16"}.get(recipe, "float32")
    assert manifest.signature.inputs[0].dtype == taken
    assert (conversion.coverage.left_float == {}) == (recipe != "float32")
    assert manifest.metrics.size == conversion.size
    assert conversion.size.model == len(conversion.bundle.model_content)


def test_each_recipe_is_smaller_than_float32(digits: Digits) -> None:
    sizes = {
        str(recipe): convert(digits.file, recipe=recipe, representative=digits.calibration).size
        for recipe in Precision
    }
    weights = sizes["float32"].source
    assert sizes["float16"].model < sizes["float32"].model - 0.4 * weights
    for recipe in ("weight-only-int8", "dynamic-int8", "int8", "int16x8", "int4"):
        assert sizes[recipe].model < sizes["float32"].model - 0.5 * weights
    assert all(size.deflated < size.model for size in sizes.values())


def test_the_manifest_says_where_the_model_came_from(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = tuple(map(str, range(10)))
    manifest = convert(
        digits.file, recipe="int8", representative=digits.calibration, labels=labels
    ).bundle.manifest
    lineage = manifest.lineage
    assert lineage is not None
    assert (lineage.source, lineage.recipe) == ("digits.keras", "int8")
    assert lineage.calibration_digest is not None
    assert set(lineage.tools) == {"hybridge", "tensorflow", "keras", "litert-quantizer"}
    assert manifest.name == "digits"
    assert manifest.labels == labels
    assert manifest.confidence == Confidence("probabilities", score="max-softmax", activation="softmax")
    assert {"CONV_2D", "FULLY_CONNECTED", "SOFTMAX"} <= set(manifest.requirements.operators)
    assert str(digits.folder).encode() not in manifest.to_json()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    again = convert(digits.file).bundle.manifest.lineage
    assert again is not None
    assert again.time == "1970-01-02T00:00:00Z"
    assert lineage.time is not None
    assert lineage.time != again.time


def test_a_saved_bundle_runs_as_a_chain_with_its_labels(digits: Digits, tmp_path: Path) -> None:
    conversion = convert(
        digits.model, version="2.1", labels=tuple("abcdefghij"), evaluation=digits.evaluation
    )
    path = conversion.save(tmp_path)
    assert path.name == "digits-2.1.edge"
    assert Bundle.open(path).digest == conversion.bundle.digest
    prediction = Chain.from_bundle(path).run({"image": digits.test[:1]})
    expected = digits.model.predict(digits.test[:1], verbose=0)
    assert prediction.label == "abcdefghij"[int(expected.argmax())]
    assert prediction.confidence == pytest.approx(float(expected.max()), abs=1e-5)


def test_raw_samples_and_samples_prepared_by_hand_give_the_same_model(digits: Digits) -> None:
    steps = (
        PreprocessingStep("scale", {"factor": 0.0625}),
        PreprocessingStep("reshape", {"shape": [1, 8, 8, 1]}),
    )
    raw = RawInput("image", TensorSpec("image", (8, 8), "uint8"), steps)
    bytes_of = {
        "calibration": (digits.train[:50, ..., 0] * 16).astype(np.uint8),
        "evaluation": (digits.test[:50, ..., 0] * 16).astype(np.uint8),
    }
    prepared = convert(digits.file, recipe="int8", representative={"image": digits.train[:50]})
    conversion = convert(
        digits.file,
        recipe="int8",
        representative={"image": bytes_of["calibration"]},
        evaluation={"image": bytes_of["evaluation"], "label": digits.test_labels[:50]},
        preprocessing=(raw,),
    )
    assert conversion.bundle.model_content == prepared.bundle.model_content
    assert conversion.bundle.manifest.preprocessing == (raw,)
    prediction = Chain.from_bundle(conversion.bundle).run({"image": bytes_of["evaluation"][0]})
    assert prediction.outputs["probabilities"].shape == (1, 10)


def test_logits_are_told_from_probabilities_and_other_models_have_no_confidence(keras: Any) -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((6,), name="x")
    logits = convert(keras.Model(x, keras.layers.Dense(4, name="logits")(x))).bundle.manifest
    assert logits.confidence == Confidence("logits", score="max-softmax", activation="none")
    value = convert(keras.Model(x, keras.layers.Dense(1, name="value")(x))).bundle.manifest
    assert value.confidence is None
    assert value.metrics.parity is not None
    assert value.metrics.parity.data == "generated"
    assert value.metrics.parity.label_agreement is None


def test_calibration_covers_the_range_of_every_sample_in_any_order(keras: Any) -> None:
    # The quantizer's own calibration keeps a moving average of the samples' ranges, which clips.
    keras.utils.set_random_seed(0)
    x = keras.Input((4,), name="x")
    content = convert(keras.Model(x, keras.layers.Dense(3, name="y")(x))).bundle.model_content
    rows = np.zeros((100, 1, 4), np.float32)
    rows[0] = [[-3, 5, 0, 0]]
    int8 = find_recipe("int8").quantization
    quantized = quantize(content, int8, calibrate(content, [{"x": row} for row in rows]))
    quantization = Model(quantized).inputs[0].quantization
    assert quantization is not None
    assert quantization.scale[0] == pytest.approx(8 / 255, rel=1e-3)
    assert quantized == quantize(content, int8, calibrate(content, [{"x": row} for row in rows[::-1]]))


def test_operators_that_stay_float_are_reported(keras: Any) -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((6,), name="x")
    hidden = keras.layers.Dense(5, activation="elu")(x)
    model = keras.Model(x, keras.layers.Dense(3, name="y")(hidden))
    data = {"x": np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32)}
    conversion = convert(model, recipe="int8", representative=data)
    assert conversion.coverage.left_float == {"ELU": 1}
    assert conversion.coverage.quantized == {"FULLY_CONNECTED": 2}


def test_several_outputs_keep_their_order_through_every_recipe(keras: Any) -> None:
    keras.utils.set_random_seed(0)
    a, b = keras.Input((4,), name="zeta"), keras.Input((6,), name="alpha")
    hidden = keras.layers.Dense(8, activation="relu")(keras.layers.Concatenate()([a, b]))
    model = keras.Model([a, b], {"z": keras.layers.Dense(3)(hidden), "a": keras.layers.Dense(2)(hidden)})
    random = np.random.default_rng(0)
    data = {
        name: random.standard_normal((64, size)).astype(np.float32)
        for name, size in (("zeta", 4), ("alpha", 6))
    }
    for recipe in Precision:
        signature = convert(model, recipe=recipe, representative=data).bundle.manifest.signature
        assert [spec.name for spec in signature.inputs] == ["zeta", "alpha"]
        assert [spec.name for spec in signature.outputs] == ["z", "a"]


def test_a_recurrent_model_converts_with_all_its_operators_and_its_loop_keeps_float_activations(
    keras: Any,
) -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 3), name="x")
    model = keras.Model(x, keras.layers.Dense(2, name="y")(keras.layers.LSTM(4)(x)))
    data = {"x": np.random.default_rng(0).standard_normal((16, 6, 3)).astype(np.float32)}
    for recipe in ("float32", "float16", "dynamic-int8", "int8"):
        conversion = convert(model, recipe=recipe, representative=data)
        operators = conversion.bundle.manifest.requirements.operators
        assert {"WHILE", "TANH", "LOGISTIC"} <= set(operators)  # the latter two are in the loop's own graph
    # The last, int8: what is outside of the loop is computed in integers, what is inside says that it is not.
    assert conversion.coverage.quantized["FULLY_CONNECTED"] >= 1
    assert {"TANH", "LOGISTIC"} <= set(conversion.coverage.left_float)


def test_operations_see_weights_through_a_dequantize(digits: Digits) -> None:
    content = convert(digits.file, recipe="float16").bundle.model_content
    weights = {each.name: [weight.dtype for weight in each.weights] for each in operations(content)}
    assert weights["CONV_2D"] == ["FLOAT16"]


def test_parity_out_of_bounds_is_refused_and_the_bounds_can_be_set(digits: Digits) -> None:
    strict = ParityBounds(min_snr_db=90)
    code, message = code_of(digits.file, recipe="dynamic-int8", bounds=strict)
    assert code is ErrorCode.PARITY_FAILED
    assert "at least 90 dB" in message
    # Ranges of black images only: every real one saturates.
    black = {"image": np.zeros((8, 8, 8, 1), np.float32)}
    black["image"][0, 0, 0, 0] = 1e-3
    assert code_of(digits.file, recipe="int8", representative=black, evaluation=digits.evaluation)[0] is (
        ErrorCode.PARITY_FAILED
    )
    anything = replace(find_recipe("int8"), bounds=ParityBounds())
    assert convert(digits.file, recipe=anything, representative=black, evaluation=digits.evaluation).accuracy


def test_a_model_that_ignores_its_input_is_not_certified(keras: Any) -> None:
    x = keras.Input((6,), name="x")
    dead = keras.Model(
        x, keras.layers.Dense(3, activation="softmax", kernel_initializer="zeros", name="y")(x)
    )
    code, message = code_of(dead, recipe="dynamic-int8")
    assert code is ErrorCode.PARITY_FAILED
    assert "the same values for all 32 samples" in message
    assert convert(dead, bounds=ParityBounds()).parity.max_abs_error < 1e-6


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ({"recipe": "int9"}, ErrorCode.RECIPE_UNKNOWN, "int9"),
        ({"recipe": "qat+int9"}, ErrorCode.RECIPE_UNKNOWN, "qat+int9"),
        ({"recipe": "prune"}, ErrorCode.DATA_INVALID, "no samples to train on"),
        ({"budget": Budget(max_drop=0.01)}, ErrorCode.USAGE, "--max-drop"),
        ({"recipe": "int8"}, ErrorCode.DATA_INVALID, "no representative dataset"),
        ({"name": "../digits"}, ErrorCode.USAGE, "bundle name"),
        ({"version": ""}, ErrorCode.USAGE, "bundle version"),
        ({"batch_size": 0}, ErrorCode.USAGE, "batch size"),
        ({"labels": ("a", "b")}, ErrorCode.DATA_INVALID, "2 names, expected 10"),
        ({"confidence": Confidence("scores")}, ErrorCode.CONFIDENCE_INVALID, "scores"),
        ({"representative": {"x": np.zeros((1, 8, 8, 1))}}, ErrorCode.DATA_INVALID, "arrays named x"),
        (
            {"preprocessing": (RawInput("picture", TensorSpec("picture", (8,), "uint8"), ()),)},
            ErrorCode.CHAIN_INVALID,
            "picture",
        ),
        (
            {
                "preprocessing": (
                    RawInput("image", TensorSpec("image", (8,), "uint8"), (PreprocessingStep("no"),)),
                )
            },
            ErrorCode.OPERATOR_UNKNOWN,
            "'no'",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(
    digits: Digits, options: dict[str, Any], code: ErrorCode, said: str
) -> None:
    received, message = code_of(digits.file, **options)
    assert received is code
    assert said in message


def test_labels_for_a_model_without_class_scores_are_refused(keras: Any) -> None:
    x = keras.Input((6,), name="x")
    model = keras.Model(x, keras.layers.Dense(1, name="value")(x))
    data = {"x": np.eye(6, dtype=np.float32), "label": np.zeros(6, np.int64)}
    code, message = code_of(model, evaluation=data)
    assert code is ErrorCode.DATA_INVALID
    assert "leave 'label' out" in message


def test_the_source_model_is_left_as_it_was(digits: Digits) -> None:
    before = [weight.copy() for weight in digits.model.get_weights()]
    config = msgspec.json.encode(str(digits.model.get_config()))
    convert(digits.model, recipe="dynamic-int8")
    for weight, was in zip(digits.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, was)
    assert msgspec.json.encode(str(digits.model.get_config())) == config


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(max_size=1000), "(at most 1,000)"),
        (Budget(min_agreement=1.0, max_drop=1.0), "agreement"),
        (Budget(max_latency_ms=1e-6), "ms (at most 1e-06)"),
    ],
)
def test_a_conversion_that_misses_its_budget_fails_with_what_it_reached(
    digits: Digits, budget: Budget, said: str
) -> None:
    code, message = code_of(
        digits.file,
        recipe=replace(find_recipe("int4"), bounds=ParityBounds()),
        evaluation=digits.evaluation,
        budget=budget,
    )
    assert code is ErrorCode.BUDGET_MISSED
    assert said in message


def test_a_latency_that_was_asked_for_is_in_the_manifest_and_nowhere_else(digits: Digits) -> None:
    timed = convert(digits.file, budget=Budget(max_latency_ms=1000.0))
    assert timed.latency_ms is not None
    assert 0 < timed.latency_ms < 1000
    assert convert(digits.file).bundle.manifest.metrics.latency == ()


def test_a_recipe_in_a_bundle_is_done_again_to_the_same_bytes(digits: Digits, tmp_path: Path) -> None:
    given: dict[str, Any] = {"representative": digits.calibration, "evaluation": digits.evaluation}
    first = convert(digits.file, recipe="int8", **given)
    path = first.save(tmp_path)
    again = convert(digits.file, recipe=str(path), **given)
    assert again.recipe == first.recipe
    assert again.bundle.to_bytes() == first.bundle.to_bytes()


def test_accuracy_is_broken_down_by_slices(digits: Digits) -> None:
    dark = digits.test.mean((1, 2, 3)) < np.median(digits.test.mean((1, 2, 3)))
    data = {"image": digits.test, "label": digits.test_labels, "dark": dark}
    accuracy = convert(digits.file, recipe="dynamic-int8", evaluation=data, slices=("dark", "label")).accuracy
    assert accuracy is not None
    by_slice = {(each.name, each.value): each for each in accuracy.slices}
    assert len(by_slice) == 12
    assert sum(each.samples for each in accuracy.slices if each.name == "label") == len(digits.test)
    total = sum(each.converted * each.samples for each in accuracy.slices if each.name == "dark")
    assert total / len(digits.test) == pytest.approx(accuracy.converted)
