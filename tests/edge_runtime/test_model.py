from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import Bundle, ErrorCode, HybridgeError, Model
from edge_runtime.interpreter import load_interpreter, runtime_version
from edge_runtime.tensor_spec import Array
from tests.conftest import count_invocations

MakeBundle = Callable[..., Bundle]


def _raw(content: bytes, array: Array) -> Array:
    interpreter = load_interpreter(content)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], array)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def test_a_model_gives_what_the_interpreter_gives(
    models: Path, image: Array, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    content = (models / "classifier.tflite").read_bytes()
    expected = _raw(content, image)
    path = make_bundle().save(tmp_path)
    for source in (
        content,
        models / "classifier.tflite",
        str(models / "classifier.tflite"),
        make_bundle(),
        path,
    ):
        model = Model(source)
        np.testing.assert_array_equal(model.run({"image": image})["logits"], expected)
        np.testing.assert_array_equal(model.run(image)["logits"], expected)


def test_names_and_order_are_those_of_the_model(models: Path) -> None:
    model = Model(models / "arithmetic.tflite")
    assert {spec.name for spec in model.inputs} == {"left", "right"}
    left, right = np.full((2, 3), 5, np.float32), np.full((2, 3), 3, np.float32)
    outputs = model.run({"right": right, "left": left})
    np.testing.assert_array_equal(outputs["total"], left + right)
    np.testing.assert_array_equal(outputs["difference"], left - right)


def test_real_values_are_quantised_as_the_specification_says(models: Path, image: Array) -> None:
    content = (models / "classifier-int8.tflite").read_bytes()
    model = Model(content)
    (spec,), (result,) = model.inputs, model.outputs
    assert spec.quantization is not None
    assert result.quantization is not None
    real = image * 1.5 - 0.2  # some of it beyond the calibrated range, so that saturation shows
    scale, zero_point = np.float32(spec.quantization.scale[0]), spec.quantization.zero_point[0]
    integers = np.clip(np.rint(real / scale) + zero_point, -128, 127).astype(np.int8)
    raw = _raw(content, integers)
    expected = (raw.astype(np.float32) - result.quantization.zero_point[0]) * np.float32(
        result.quantization.scale[0]
    )
    np.testing.assert_array_equal(model.run(real)["logits"], expected)
    np.testing.assert_array_equal(model.run(integers)["logits"], expected)
    np.testing.assert_array_equal(Model(content, dequantize=False).run(integers)["logits"], raw)


def test_values_that_are_not_finite_saturate_instead_of_wrapping(models: Path, image: Array) -> None:
    content = (models / "classifier-int8.tflite").read_bytes()
    for value, limit in ((np.nan, -128), (np.inf, 127), (-np.inf, -128)):
        real, integers = np.full_like(image, value), np.full(image.shape, limit, np.int8)
        np.testing.assert_array_equal(
            Model(content).run(real)["logits"], Model(content).run(integers)["logits"]
        )


def test_results_are_the_callers_own(models: Path, image: Array) -> None:
    for name in ("classifier", "classifier-int8"):
        model = Model(models / f"{name}.tflite")
        first = model.run(image)["logits"]
        kept = first.copy()
        model.run(np.zeros_like(image))
        np.testing.assert_array_equal(first, kept)
        first += 1  # would raise or corrupt if it were the interpreter's memory
        np.testing.assert_array_equal(model.run(image)["logits"], kept)


@pytest.mark.parametrize("name", ["classifier", "classifier-int8"])
def test_given_arrays_are_filled_and_returned(models: Path, image: Array, name: str) -> None:
    model = Model(models / f"{name}.tflite")
    expected = model.run(image)["logits"]
    target = np.empty((1, 10), np.float32)
    assert model.run(image, out={"logits": target})["logits"] is target
    np.testing.assert_array_equal(target, expected)
    with pytest.raises(HybridgeError) as caught:
        model.run(image, out={"logits": np.empty((1, 9), np.float32)})
    assert caught.value.code is ErrorCode.INPUT_SHAPE
    with pytest.raises(HybridgeError) as caught:
        model.run(image, out={"logit": target})
    assert caught.value.code is ErrorCode.OUTPUT_UNKNOWN
    np.testing.assert_array_equal(model.run(image)["logits"], expected)


def test_a_dynamic_dimension_follows_the_input(models: Path) -> None:
    model = Model(models / "any-batch.tflite")
    assert model.inputs[0].shape == ("batch", 3)
    weights = np.arange(6, dtype=np.float32).reshape(3, 2)
    for batch in (1, 7, 2, 7):
        x = np.random.default_rng(batch).random((batch, 3), dtype=np.float32)
        np.testing.assert_allclose(model.run(x)["y"], x @ weights, rtol=1e-5)
    with pytest.raises(HybridgeError) as caught:
        model.run(np.zeros((0, 3), np.float32))
    assert caught.value.code is ErrorCode.INPUT_SHAPE


def test_a_network_of_free_size_takes_any_that_it_can_compute(models: Path) -> None:
    # Its kernel is five by five: at the one by one that stands for a free size it cannot even be allocated.
    model = Model(models / "any-size.tflite")
    assert model.inputs[0].shape == (1, "dim1", "dim2", 3)
    for height, width in ((5, 9), (32, 16), (5, 9)):
        photo = np.random.default_rng(height).random((1, height, width, 3), dtype=np.float32)
        assert model.run(photo)["map"].shape == (1, height - 4, width - 4, 2)
    for _ in range(2):
        with pytest.raises(HybridgeError) as caught:
            model.run(np.zeros((1, 3, 3, 3), np.float32))
        assert caught.value.code is ErrorCode.INVOKE_FAILED
    assert model.run(photo)["map"].shape == (1, 1, 5, 2)


def test_arrays_that_are_not_contiguous_give_the_same(models: Path, image: Array) -> None:
    for name in ("classifier", "classifier-int8"):
        model = Model(models / f"{name}.tflite")
        strided = np.repeat(image, 2, axis=2)[:, :, ::2]
        assert not strided.flags.c_contiguous
        np.testing.assert_array_equal(model.run(strided)["logits"], model.run(image)["logits"])


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({}, ErrorCode.INPUT_MISSING),
        ({"photo": np.zeros((1, 8, 8, 1), np.float32)}, ErrorCode.INPUT_MISSING),
        (
            {"image": np.zeros((1, 8, 8, 1), np.float32), "other": np.zeros(1, np.float32)},
            ErrorCode.INPUT_UNKNOWN,
        ),
        ({"image": np.zeros((1, 8, 8, 1))}, ErrorCode.INPUT_DTYPE),
        ({"image": np.zeros((1, 8, 8, 1), np.uint8)}, ErrorCode.INPUT_DTYPE),
        ({"image": [[1.0]]}, ErrorCode.INPUT_DTYPE),
        ({"image": np.zeros((8, 8), np.float32)}, ErrorCode.INPUT_SHAPE),
        ({"image": np.zeros((2, 8, 8, 1), np.float32)}, ErrorCode.INPUT_SHAPE),
    ],
)
@pytest.mark.parametrize("name", ["classifier", "classifier-int8"])
def test_inputs_that_do_not_fit_are_refused_and_harm_nothing(
    models: Path, image: Array, inputs: dict[str, Array], code: ErrorCode, name: str
) -> None:
    model = Model(models / f"{name}.tflite")
    before = model.run(image)["logits"]
    with pytest.raises(HybridgeError) as caught:
        model.run(inputs)
    assert caught.value.code is code
    np.testing.assert_array_equal(model.run(image)["logits"], before)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x1c\x00\x00\x00TFL3" + b"\xff" * 100])
def test_bytes_that_are_no_model_are_one_clear_error(content: bytes) -> None:
    with pytest.raises(HybridgeError) as caught:
        Model(content)
    assert caught.value.code is ErrorCode.MODEL_INVALID


def test_a_truncated_model_is_refused_at_any_length(models: Path) -> None:
    content = (models / "classifier.tflite").read_bytes()
    for length in range(8, len(content) - 64, 211):
        with pytest.raises(HybridgeError) as caught:
            Model(content[:length])
        assert caught.value.code is ErrorCode.MODEL_INVALID, length


def test_memory_does_not_grow_over_many_runs(models: Path, image: Array) -> None:
    resident = Path("/proc/self/statm")
    if not resident.exists():
        pytest.skip("resident memory is read from /proc, which this system has not")
    model = Model(models / "classifier-int8.tflite")
    for _ in range(2_000):
        model.run(image)
    before = int(resident.read_text().split()[1])
    for _ in range(20_000):
        model.run(image)
    assert int(resident.read_text().split()[1]) - before < 256  # pages of 4 KiB


@pytest.mark.parametrize("instances", [1, 2])
@pytest.mark.parametrize("name", ["classifier", "classifier-any-batch", "classifier-int8"])
def test_many_items_get_what_each_gets_alone(models: Path, name: str, instances: int) -> None:
    model = Model(models / f"{name}.tflite", instances=instances)
    rng = np.random.default_rng(2)
    rows = (1, 3, 2, 1, 1, 5, 1, 1, 2) if name == "classifier-any-batch" else (1,) * 9
    items = [{"image": rng.random((count, 8, 8, 1), dtype=np.float32)} for count in rows]
    for batch_size in (1, 2, 3, 8, 100):
        results = model.run_many(items, batch_size=batch_size)
        assert len(results) == len(items)
        for item, result in zip(items, results, strict=True):
            expected = model.run(item)["logits"]
            assert result["logits"].shape == expected.shape
            np.testing.assert_allclose(result["logits"], expected, atol=1e-5)
    assert model.run_many([]) == []


def test_items_share_an_invocation_where_the_batch_is_free(models: Path) -> None:
    model = Model(models / "classifier-any-batch.tflite")
    items = [{"image": np.full((1, 8, 8, 1), index / 10, np.float32)} for index in range(10)]
    model.run_many(items)
    invoked = count_invocations(model)
    model.run_many(items, batch_size=4)
    assert len(invoked) == 3


def test_items_of_several_sizes_are_batched_with_their_like(models: Path) -> None:
    model = Model(models / "any-batch.tflite")
    items = [{"x": np.full((1 + index % 2, 3), index, np.float32)} for index in range(7)]
    results = model.run_many(items)
    for item, result in zip(items, results, strict=True):
        np.testing.assert_allclose(result["y"], model.run(item)["y"])


def test_a_free_first_axis_that_is_no_batch_is_not_batched(models: Path) -> None:
    # An output with a row for each row of one input and a column for each of the other: rows are not independent.
    model = Model(models / "any-pair.tflite")
    rng = np.random.default_rng(0)
    items = [
        {"left": rng.random((left, 3), dtype=np.float32), "right": rng.random((right, 3), dtype=np.float32)}
        for left, right in ((2, 2), (2, 2), (1, 2), (2, 1), (3, 3))
    ]
    for item, result in zip(items, model.run_many(items), strict=True):
        np.testing.assert_allclose(result["products"], item["left"] @ item["right"].T, rtol=1e-5)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"image": np.zeros((1, 8, 8, 1))}, ErrorCode.INPUT_DTYPE),
        ({"image": np.zeros((0, 8, 8, 1), np.float32)}, ErrorCode.INPUT_SHAPE),
        ({"image": np.float32(1.0)}, ErrorCode.INPUT_DTYPE),
        ({"image": np.array(1.0, np.float32)}, ErrorCode.INPUT_SHAPE),
        ({"image": [[1.0]]}, ErrorCode.INPUT_DTYPE),
        ({"photo": np.zeros((1, 8, 8, 1), np.float32)}, ErrorCode.INPUT_MISSING),
        ({}, ErrorCode.INPUT_MISSING),
    ],
)
def test_a_bad_item_among_others_is_refused_as_it_is_alone(
    models: Path, image: Array, bad: dict[str, Any], code: ErrorCode
) -> None:
    model = Model(models / "classifier-any-batch.tflite")
    for items in ([{"image": image}, bad, {"image": image}], [bad, bad]):
        with pytest.raises(HybridgeError) as caught:
            model.run_many(items)
        assert caught.value.code is code
    assert len(model.run_many([{"image": image}] * 3)) == 3


def test_borrowed_memory_is_the_interpreters_own(models: Path, image: Array) -> None:
    model = Model(models / "classifier.tflite")
    expected = model.run(image)["logits"]
    with model.borrow() as lent:
        np.copyto(lent.input("image"), image)
        lent.invoke()
        assert np.shares_memory(lent.output("logits"), lent.output("logits"))
        np.testing.assert_array_equal(lent.output("logits"), expected)


def test_an_array_that_is_still_held_is_one_clear_error_until_it_is_let_go(
    models: Path, image: Array
) -> None:
    for name in ("classifier", "classifier-any-batch"):
        model = Model(models / f"{name}.tflite")
        expected = model.run(image)["logits"]
        with model.borrow() as lent:
            held = lent.output("logits")
            with pytest.raises(HybridgeError, match="held") as caught:
                lent.invoke()
            assert caught.value.code is ErrorCode.INVOKE_FAILED
        with pytest.raises(HybridgeError, match="let go") as caught:
            model.run(image)
        assert caught.value.code is ErrorCode.INVOKE_FAILED
        del held
        np.testing.assert_array_equal(model.run(image)["logits"], expected)


def test_borrowing_says_which_names_and_sizes_there_are(models: Path) -> None:
    model = Model(models / "any-batch.tflite")
    with model.borrow() as lent:
        for call, code in (
            (lambda: lent.input("z"), ErrorCode.INPUT_UNKNOWN),
            (lambda: lent.output("x"), ErrorCode.OUTPUT_UNKNOWN),
            (lambda: lent.resize({"z": (1, 3)}), ErrorCode.INPUT_UNKNOWN),
            (lambda: lent.resize({"x": (2, 4)}), ErrorCode.INPUT_SHAPE),
            (lambda: lent.resize({"x": (0, 3)}), ErrorCode.INPUT_SHAPE),
            (lambda: lent.resize({}), ErrorCode.INPUT_MISSING),
        ):
            with pytest.raises(HybridgeError) as caught:
                call()
            assert caught.value.code is code
        lent.resize({"x": (2, 3)})
        lent.input("x")[...] = 1
        lent.invoke()
        assert lent.output("y").tolist() == [[6, 9], [6, 9]]


def test_a_state_is_carried_from_run_to_run_and_begins_anew(models: Path) -> None:
    model = Model(models / "running-sum.tflite", states={"state": "next"})
    assert [spec.name for spec in model.inputs] == ["x"]
    assert [spec.name for spec in model.outputs] == ["y"]
    assert model.stateful
    ones = np.ones((1, 2), np.float32)
    assert [model.run(ones)["y"][0, 0] for _ in range(4)] == [2, 3, 4, 5]
    with model.borrow() as lent:
        lent.input("x")[...] = 1
        lent.invoke()
        assert lent.output("y")[0, 0] == 6
    assert model.run_afresh({"x": ones})["y"][0, 0] == 2
    assert model.run(ones)["y"][0, 0] == 7
    model.reset()
    assert model.run(ones)["y"][0, 0] == 2
    # What is refused does not count as a run.
    with pytest.raises(HybridgeError):
        model.run(np.ones((1, 3), np.float32))
    assert model.run(ones)["y"][0, 0] == 3
    model.warm_up()
    assert model.run(ones)["y"][0, 0] == 2


def test_a_variable_is_carried_from_run_to_run_and_begins_anew(models: Path) -> None:
    model = Model(models / "counter.tflite")
    assert model.stateful
    ones = np.ones((1, 2), np.float32)
    for _ in range(2):
        assert [model.run(ones)["total"][0, 0] for _ in range(3)] == [11, 12, 13]
        assert model.run_afresh({"x": ones})["total"][0, 0] == 11
        assert model.run(ones)["total"][0, 0] == 14
        model.reset()


@pytest.mark.parametrize(
    "states", [{"state": "no"}, {"no": "next"}, {"x": "no"}, {"state": "y", "other": "next"}]
)
def test_states_that_the_model_does_not_have_are_refused(models: Path, states: dict[str, str]) -> None:
    with pytest.raises(HybridgeError, match=r"x.*state|state.*x") as caught:
        Model(models / "running-sum.tflite", states=states)
    assert caught.value.code is ErrorCode.USAGE


def test_a_state_of_another_shape_is_refused(models: Path) -> None:
    with pytest.raises(HybridgeError, match="same type and shape") as caught:
        Model(models / "classifier.tflite", states={"image": "logits"})
    assert caught.value.code is ErrorCode.USAGE


def test_a_model_with_a_state_has_one_instance(models: Path) -> None:
    for name, states in (("counter", None), ("running-sum", {"state": "next"})):
        with pytest.raises(HybridgeError, match="state") as caught:
            Model(models / f"{name}.tflite", states=states, instances=2)
        assert caught.value.code is ErrorCode.USAGE


@pytest.mark.parametrize("setting", [{"instances": 0}, {"num_threads": 0}, {"instances": -1}])
def test_settings_that_cannot_be_are_refused(models: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(HybridgeError) as caught:
        Model(models / "classifier.tflite", **setting)
    assert caught.value.code is ErrorCode.USAGE


def test_a_model_with_a_state_is_not_unloaded(models: Path) -> None:
    model = Model(models / "counter.tflite")
    model.run(np.ones((1, 2), np.float32))
    assert not model.unload()
    assert model.run(np.ones((1, 2), np.float32))["total"][0, 0] == 12


@pytest.mark.usefixtures("accelerated")
def test_operators_that_run_accelerated_are_told_from_others(models: Path) -> None:
    def told(name: str) -> dict[str, tuple[int, int]]:
        found = Model(models / f"{name}.tflite").placements()
        return {each.operator: (each.count, each.accelerated) for each in found}

    # One operator in the middle that XNNPACK lacks: two parts of the graph are accelerated around it.
    assert told("cumulative") == {"MUL": (1, 1), "CUMSUM": (1, 0), "ADD": (1, 1)}
    assert told("slow") == {"FULLY_CONNECTED": (32, 32), "TANH": (32, 32)}
    # An operator without a result: the variable that it sets never leaves the delegate. tflite-runtime's has none.
    taken = 1 if runtime_version().startswith("ai-edge-litert") else 0
    assert told("counter") == {
        "ADD": (1, 1),
        "ASSIGN_VARIABLE": (1, taken),
        "CALL_ONCE": (1, 0),
        "READ_VARIABLE": (2, 2 * taken),
        "VAR_HANDLE": (1, taken),
    }
