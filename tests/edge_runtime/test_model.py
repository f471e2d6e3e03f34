from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import Bundle, ErrorCode, HybridgeError, Model
from edge_runtime.interpreter import load_interpreter
from edge_runtime.tensor_spec import Array

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


def test_many_threads_get_their_own_answers(models: Path) -> None:
    model = Model(models / "classifier-int8.tflite")
    images = np.random.default_rng(5).random((200, 1, 8, 8, 1), dtype=np.float32)
    alone = [model.run(one)["logits"] for one in images]
    start = threading.Barrier(8)

    def work(offset: int) -> None:
        start.wait()
        for index in range(offset, len(images), 8):
            np.testing.assert_array_equal(model.run(images[index])["logits"], alone[index])

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, offset) for offset in range(8)]:
            future.result()


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
