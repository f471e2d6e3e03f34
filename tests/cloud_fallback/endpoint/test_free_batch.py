"""Models of one row that are made to take any number, and those that are better left alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_fallback.endpoint.served.free_batch import free_batch
from cloud_fallback.endpoint.served.model_queue import Batching
from cloud_fallback.endpoint.served.tflite_model import TfliteModel
from edge_runtime import Bundle, HybridgeError, Model

pytest.importorskip("ai_edge_litert.schema_py_generated")
pytestmark = pytest.mark.tensorflow

Array = np.ndarray[Any, Any]


def _converted(function: Callable[..., Any], *shape: int) -> bytes:
    import tensorflow as tf

    traced = tf.function(function).get_concrete_function(tf.TensorSpec(shape, tf.float32, name="x"))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    return bytes(converter.convert())


def _images(rows: int) -> Array:
    return np.random.default_rng(rows).random((rows, 8, 8, 1), np.float32)


@pytest.mark.parametrize("name", ["classifier", "classifier-int8", "cumulative"])
def test_rows_that_run_together_come_to_what_each_comes_to_alone(models: Path, name: str) -> None:
    content = (models / f"{name}.tflite").read_bytes()
    freed = free_batch(content)
    assert freed is not None
    one, many = Model(content), Model(freed)
    (spec,) = one.inputs
    assert [each.name for each in many.inputs] == [spec.name]
    assert [each.name for each in many.outputs] == [each.name for each in one.outputs]
    for rows in (5, 1, 3):
        x = np.random.default_rng(rows).random((rows, *map(int, spec.shape[1:])), np.float32)
        together = many.run(x)
        for row in range(rows):
            for output, alone in one.run(x[row : row + 1]).items():
                np.testing.assert_allclose(together[output][row], alone[0], rtol=1e-5, atol=1e-6)


def test_a_row_that_is_reshaped_on_its_way_stays_one() -> None:
    def function(x: Any) -> dict[str, Any]:
        import tensorflow as tf

        return {"y": tf.reshape(tf.transpose(tf.reshape(x, [1, 2, 3]), [0, 2, 1]), [1, 6]) * 2.0}

    freed = free_batch(_converted(function, 1, 6))
    assert freed is not None
    (y,) = Model(freed).run(np.arange(12, dtype=np.float32).reshape(2, 6)).values()
    np.testing.assert_array_equal(y, 2.0 * np.array([[0, 3, 1, 4, 2, 5], [6, 9, 7, 10, 8, 11]]))


def test_models_whose_rows_are_not_apart_are_left_alone() -> None:
    import tensorflow as tf

    def mixed(x: Any) -> dict[str, Any]:
        return {"y": tf.nn.softmax(x, axis=0)}

    def elsewhere(x: Any) -> dict[str, Any]:
        return {"y": tf.reshape(tf.cumsum(tf.reshape(x, [2, 3]), axis=0), [1, 6])}

    def chosen(x: Any) -> dict[str, Any]:
        return {"y": tf.broadcast_to(x[:1], [1, 6])}

    for function in (mixed, elsewhere, chosen):
        assert free_batch(_converted(function, 1, 6)) is None


def test_texts_are_left_alone() -> None:
    import tensorflow as tf

    traced = tf.function(lambda x: {"y": tf.identity(x)}).get_concrete_function(
        tf.TensorSpec((1,), tf.string, name="x")
    )
    assert free_batch(bytes(tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert())) is None


@pytest.mark.parametrize("name", ["counter", "slow", "any-batch", "any-size", "classifier-any-batch"])
def test_models_that_carry_a_state_or_have_another_batch_are_left_alone(models: Path, name: str) -> None:
    assert free_batch((models / f"{name}.tflite").read_bytes()) is None


def test_a_served_model_of_one_row_runs_requests_together(models: Path) -> None:
    model = TfliteModel(
        models / "classifier.tflite", batching=Batching(max_batch_size=8, queue_delay_ms=1000)
    )
    assert model.inputs[0].shape[1:] == (8, 8, 1)
    assert isinstance(model.inputs[0].shape[0], str)
    images, together = _images(16), threading.Barrier(16)

    def ask(row: int) -> dict[str, Array]:
        together.wait(10)
        return model.infer({model.inputs[0].name: images[row : row + 1]})

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    alone = Model(models / "classifier.tflite")
    for row, answer in enumerate(answers):
        for name, expected in alone.run(images[row : row + 1]).items():
            np.testing.assert_allclose(answer[name], expected, rtol=1e-5, atol=1e-6)
    assert model.queue.figures().runs <= 4
    with pytest.raises(HybridgeError, match="model 'classifier'"):
        model.infer({model.inputs[0].name: images[:, :4]})


def test_a_bundle_is_freed_if_nothing_prepares_its_inputs(
    models: Path, make_bundle: Callable[..., Bundle]
) -> None:
    batching = Batching(max_batch_size=8)
    plain = TfliteModel(make_bundle(name="plain"), batching=batching)
    assert isinstance(plain.inputs[0].shape[0], str)
    assert (plain.name, plain.version) == ("plain", TfliteModel(make_bundle(name="plain")).version)
    assert plain.infer({"image": _images(3)})["logits"].shape == (3, 10)
    prepared = TfliteModel(make_bundle(raw=True), batching=batching)
    assert prepared.inputs[0].shape == (1, 8, 8, 1)
    alone = TfliteModel(models / "classifier.tflite")
    assert alone.inputs[0].shape == (1, 8, 8, 1)
