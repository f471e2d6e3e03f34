"""Names, order and values of every kind of Keras model, from Keras to the device runtime."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert import open_source
from convert.data import generate
from convert.sources.export import pinned
from convert.verification import run_converted
from edge_runtime import ErrorCode, HybridgeError, Model

pytestmark = pytest.mark.tensorflow


def functional(keras: Any) -> Any:
    first, second = keras.Input((4,), name="zeta"), keras.Input((6,), name="alpha")
    hidden = keras.layers.Dense(8, activation="gelu")(keras.layers.Concatenate()([first, second]))
    outputs = [keras.layers.Dense(3, name="second")(hidden), keras.layers.Dense(2, name="first")(hidden)]
    return keras.Model([first, second], outputs)


def dictionaries(keras: Any) -> Any:
    inputs = {"right": keras.Input((3,), name="right"), "left": keras.Input((5,), dtype="int32", name="left")}
    words = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(2, 4)(inputs["left"]))
    hidden = keras.layers.Concatenate()([inputs["right"], words])
    return keras.Model(
        inputs, {"z": keras.layers.Dense(3)(hidden), "a": keras.layers.Dense(2)(hidden), "m": hidden}
    )


def sequential(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6, 6, 2), name="image"),
            layers.Conv2D(3, 3, activation="relu"),
            layers.Flatten(name="flat"),
        ]
    )


def recurrent(keras: Any) -> Any:
    sequence = keras.Input((7, 3), name="sequence")
    hidden = keras.layers.GRU(4)(keras.layers.LSTM(5, return_sequences=True)(sequence))
    return keras.Model(sequence, {"score": keras.layers.Dense(2)(hidden)})


def subclassed(keras: Any) -> Any:
    class Twice(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="twice")
            self.dense = keras.layers.Dense(3)

        def call(self, features: Any) -> Any:
            return {"twice": self.dense(features) * 2, "once": self.dense(features)}

    model = Twice()
    model(np.zeros((2, 4), np.float32))
    return model


def subclassed_of_two(keras: Any) -> Any:
    class Sum(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="sum")
            self.dense = keras.layers.Dense(3)

        def build(self, left_shape: Any, right_shape: Any) -> None:
            assert left_shape[0] == right_shape[0]
            self.dense.build(left_shape)

        def call(self, left: Any, right: Any) -> Any:
            return self.dense(left) + right

    model = Sum()
    model(np.zeros((2, 4), np.float32), np.zeros((2, 3), np.float32))
    return model


def subclassed_of_a_list(keras: Any) -> Any:
    class Product(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="product")
            self.dense = keras.layers.Dense(3)

        def call(self, pair: Any) -> Any:
            return [self.dense(pair[0]), pair[1] * 2]

    model = Product()
    model([np.zeros((2, 4), np.float32), np.zeros((2, 3), np.float32)])
    return model


CASES = {
    functional: (["zeta", "alpha"], ["second", "first"]),
    dictionaries: (["right", "left"], ["z", "a", "m"]),
    sequential: (["image"], ["flat"]),
    recurrent: (["sequence"], ["score"]),
    subclassed: (["features"], ["twice", "once"]),
    subclassed_of_two: (["left", "right"], ["output"]),
    subclassed_of_a_list: (["pair_0", "pair_1"], ["output_0", "output_1"]),
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_names_order_and_values_survive(keras: Any, make: Any) -> None:
    keras.utils.set_random_seed(0)
    source = open_source(make(keras))
    model = Model(source.export(1))
    inputs, outputs = CASES[make]
    assert [spec.name for spec in source.inputs] == [spec.name for spec in model.inputs] == inputs
    assert [spec.name for spec in source.outputs] == [spec.name for spec in model.outputs] == outputs
    assert model.signature_key == "serving_default"
    data = generate(pinned(source.inputs, 1, "model"), 5)
    expected, received = source.predict(data.inputs), run_converted(model, data)
    for name in outputs:
        np.testing.assert_allclose(received[name], expected[name], atol=2e-6)
        assert np.ptp(expected[name]) > 0


def test_a_subclassed_model_whose_inputs_are_not_recorded_is_refused(keras: Any) -> None:
    class Sum(keras.Model):  # type: ignore[misc]
        def call(self, left: Any, right: Any) -> Any:
            return left + right

    model = Sum()
    model(np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float32))
    with pytest.raises(HybridgeError, match=r"keras\.Model\(inputs, outputs\)") as caught:
        open_source(model)
    assert caught.value.code is ErrorCode.SOURCE_INVALID


def test_a_saved_model_gives_the_same_bytes_each_time(keras: Any, tmp_path: Path) -> None:
    for make in (functional, recurrent):
        make(keras).save(tmp_path / "model.keras")
        assert open_source(tmp_path / "model.keras").export(1) == open_source(
            tmp_path / "model.keras"
        ).export(1)


def test_the_batch_size_is_the_one_asked_for(keras: Any) -> None:
    source = open_source(recurrent(keras))
    model = Model(source.export(3))
    assert model.inputs[0].shape == (3, 7, 3)
    data = generate(pinned(source.inputs, 3, "model"), 7)
    np.testing.assert_allclose(
        run_converted(model, data)["score"], source.predict(data.inputs)["score"], atol=2e-6
    )


def test_a_model_of_fixed_batch_converts_with_that_batch_only(keras: Any) -> None:
    x = keras.Input(batch_shape=(2, 3), name="x")
    source = open_source(keras.Model(x, keras.layers.Dense(2, name="y")(x)))
    data = generate(source.inputs, 5)
    np.testing.assert_allclose(
        run_converted(Model(source.export(2)), data)["y"], source.predict(data.inputs)["y"], atol=2e-6
    )
    with pytest.raises(HybridgeError, match="--batch-size") as caught:
        source.export(1)
    assert caught.value.code is ErrorCode.SOURCE_INVALID


def test_an_unknown_dimension_says_how_to_fix_it(keras: Any) -> None:
    x = keras.Input((None, 3), name="x")
    source = open_source(keras.Model(x, keras.layers.GlobalAveragePooling1D(name="y")(x)))
    with pytest.raises(HybridgeError, match=r"shape \(batch, dim1, 3\).*keras\.Input") as caught:
        source.export(1)
    assert caught.value.code is ErrorCode.SOURCE_INVALID


def test_a_name_that_a_signature_cannot_have_is_refused(keras: Any) -> None:
    x = keras.Input((3,), name="my input")
    with pytest.raises(HybridgeError, match="rename the input layer") as caught:
        open_source(keras.Model(x, keras.layers.Dense(2)(x))).export(1)
    assert caught.value.code is ErrorCode.SOURCE_INVALID


def test_an_operator_that_no_device_has_is_named_and_nothing_stays_behind(
    keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    class Determinant(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return tf.linalg.det(x)

    x = keras.Input((4, 4), name="x")
    source = open_source(keras.Model(x, Determinant()(x)))
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path))
    with pytest.raises(HybridgeError, match=r"tf\.MatrixDeterminant") as caught:
        source.export(1)
    assert caught.value.code is ErrorCode.CONVERSION_FAILED
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("hybridge-")]
