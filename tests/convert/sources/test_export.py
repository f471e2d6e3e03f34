"""Names, order and values of every kind of Keras model, from both libraries to the device runtime."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.sources import open_source, pinned
from tests.convert.sources.conftest import export_refusal, exported, open_refusal

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


def lstm(keras: Any) -> Any:
    sequence = keras.Input((7, 3), name="sequence")
    return keras.Model(sequence, {"score": keras.layers.Dense(2)(keras.layers.LSTM(5)(sequence))})


def gru(keras: Any) -> Any:
    sequence = keras.Input((7, 3), name="sequence")
    return keras.Model(sequence, keras.layers.GRU(4, return_sequences=True, name="states")(sequence))


def bidirectional(keras: Any) -> Any:
    sequence = keras.Input((5, 3), name="sequence")
    hidden = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True))(sequence)
    return keras.Model(sequence, keras.layers.Dense(2, name="tags")(hidden))


def transformer(keras: Any) -> Any:
    layers = keras.layers
    tokens = keras.Input((6, 8), name="tokens")
    attended = layers.MultiHeadAttention(2, 4)(tokens, tokens)
    hidden = layers.LayerNormalization()(layers.Add()([tokens, attended]))
    wide = layers.Dense(8)(layers.Dense(16, activation="relu")(hidden))
    return keras.Model(tokens, layers.LayerNormalization(name="encoded")(layers.Add()([hidden, wide])))


def convolutions(keras: Any) -> Any:
    layers = keras.layers
    image = keras.Input((8, 8, 3), name="image")
    hidden = layers.SeparableConv2D(4, 3, padding="same", activation="relu6" if _is_3(keras) else "relu")(
        image
    )
    hidden = layers.BatchNormalization()(layers.DepthwiseConv2D(3, strides=2, padding="same")(hidden))
    up = layers.Conv2DTranspose(2, 3, strides=2, padding="same", name="up")(hidden)
    return keras.Model(image, [up, layers.GlobalAveragePooling2D(name="pooled")(hidden)])


def signal(keras: Any) -> Any:
    layers = keras.layers
    wave = keras.Input((32, 2), name="wave")
    hidden = layers.MaxPooling1D()(layers.Conv1D(4, 5, dilation_rate=2, activation="relu")(wave))
    return keras.Model(wave, layers.Dense(3, name="scores")(layers.Flatten()(hidden)))


def nested(keras: Any) -> Any:
    part = keras.Input((4,))
    inner = keras.Model(part, keras.layers.Dense(3, activation="tanh")(part), name="inner")
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    both = keras.layers.Subtract()([inner(left), inner(right)])
    return keras.Model([left, right], [inner(left), keras.layers.Dense(1, name="distance")(both)])


def shared(keras: Any) -> Any:
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    layer = keras.layers.Dense(2, name="shared")
    return keras.Model([left, right], [layer(left), layer(right)])


def preprocessing(keras: Any) -> Any:
    image = keras.Input((4, 4, 1), name="image")
    normalize = keras.layers.Normalization(axis=-1, mean=[0.4], variance=[0.2])
    hidden = keras.layers.Flatten()(normalize(keras.layers.Rescaling(1 / 127.5, offset=-1)(image)))
    return keras.Model(image, keras.layers.Dense(2, name="scores")(hidden))


def embedded(keras: Any) -> Any:
    words = keras.Input((6,), dtype="int32", name="words")
    hidden = keras.layers.Embedding(10, 4)(words)
    return keras.Model(words, keras.layers.Dense(2, name="scores")(keras.layers.GlobalMaxPooling1D()(hidden)))


def own_layer(keras: Any) -> Any:
    class Scale(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.factor = self.add_weight(shape=(shape[-1],), initializer="random_normal", name="factor")

        def call(self, x: Any) -> Any:
            return x * self.factor

    x = keras.Input((4,), name="x")
    return keras.Model(x, Scale(name="scaled")(x))


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

        if _is_3(keras):

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


def _is_3(keras: Any) -> bool:
    return str(keras.__version__).startswith("3")


CASES = {
    functional: (["zeta", "alpha"], ["second", "first"]),
    dictionaries: (["right", "left"], ["z", "a", "m"]),
    sequential: (["image"], ["flat"]),
    lstm: (["sequence"], ["score"]),
    gru: (["sequence"], ["states"]),
    bidirectional: (["sequence"], ["tags"]),
    transformer: (["tokens"], ["encoded"]),
    convolutions: (["image"], ["up", "pooled"]),
    signal: (["wave"], ["scores"]),
    nested: (["left", "right"], ["inner", "distance"]),
    preprocessing: (["image"], ["scores"]),
    embedded: (["words"], ["scores"]),
    own_layer: (["x"], ["scaled"]),
    subclassed: (["features"], ["twice", "once"]),
    subclassed_of_two: (["left", "right"], ["output"]),
    subclassed_of_a_list: (["pair_0", "pair_1"], ["output_0", "output_1"]),
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_names_order_and_values_survive(library: Any, make: Any) -> None:
    library.utils.set_random_seed(0)
    inputs, outputs = CASES[make]
    model = exported(open_source(make(library)), inputs=inputs, outputs=outputs)
    assert model.signature_key == "serving_default"


def test_two_outputs_of_one_layer_get_names_of_their_own(library: Any) -> None:
    outputs = ["output_0", "output_1"] if _is_3(library) else ["shared", "shared_1"]
    exported(open_source(shared(library)), inputs=["left", "right"], outputs=outputs)


def test_a_saved_model_gives_the_same_bytes_each_time(keras: Any, tmp_path: Path) -> None:
    for make in (functional, lstm):
        make(keras).save(tmp_path / "model.keras")
        contents = set()
        for _ in range(2):
            source = open_source(tmp_path / "model.keras")
            contents.add(source.export(pinned(source.inputs, 1, source.name)))
        assert len(contents) == 1


def test_the_batch_size_is_the_one_asked_for(library: Any) -> None:
    model = exported(open_source(lstm(library)), inputs=["sequence"], outputs=["score"], batch_size=3)
    assert model.inputs[0].shape == (3, 7, 3)


def test_a_model_of_fixed_batch_converts_with_that_batch(library: Any) -> None:
    x = library.Input(batch_shape=(2, 3), name="x")
    source = open_source(library.Model(x, library.layers.Dense(2, name="y")(x)))
    exported(source, inputs=["x"], outputs=["y"], batch_size=2)


def test_a_model_of_free_height_width_and_time_converts_at_given_sizes(library: Any) -> None:
    layers = library.layers
    image, wave = library.Input((None, None, 3), name="image"), library.Input((None, 2), name="wave")
    seen = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, padding="same", activation="relu")(image))
    scores = layers.Dense(2, name="scores")(layers.Concatenate()([seen, layers.LSTM(3)(wave)]))
    source = open_source(library.Model([image, wave], scores))
    assert source.inputs[0].shape == ("batch", "dim1", "dim2", 3)
    exported(
        source,
        inputs=["image", "wave"],
        outputs=["scores"],
        shapes={"image": (1, 10, 12, 3), "wave": (1, 5, 2)},
    )


def test_a_subclassed_model_whose_inputs_are_not_recorded_is_refused(keras: Any) -> None:
    class Sum(keras.Model):  # type: ignore[misc]
        def call(self, left: Any, right: Any) -> Any:
            return left + right

    model = Sum()
    model(np.zeros((2, 4), np.float32), np.zeros((2, 4), np.float32))
    code, message = open_refusal(model)
    assert code == "source-invalid"
    assert "keras.Model(inputs, outputs)" in message


def test_a_name_that_a_signature_cannot_have_is_refused(keras: Any) -> None:
    x = keras.Input((3,), name="my input")
    code, message = open_refusal(keras.Model(x, keras.layers.Dense(2)(x)))
    assert code == "source-invalid"
    assert "rename the input layer" in message


def test_a_recurrent_layer_that_keeps_its_state_is_refused(library: Any) -> None:
    x = library.Input(batch_shape=(1, 3, 2), name="x")
    code, message = export_refusal(open_source(library.Model(x, library.layers.LSTM(2, stateful=True)(x))))
    assert code == "source-invalid"
    assert "changes its variables as it runs (AssignVariableOp)" in message


def test_an_operator_that_no_device_has_is_named_and_nothing_stays_behind(
    library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    class Determinant(library.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return tf.linalg.det(x)

    x = library.Input((4, 4), name="x")
    source = open_source(library.Model(x, Determinant()(x)))
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path))
    code, message = export_refusal(source)
    assert code == "conversion-failed"
    assert "tf.MatrixDeterminant" in message
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("hybridge-")]


def test_operators_on_text_are_named(library: Any) -> None:
    import tensorflow as tf

    class Lower(library.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return tf.strings.to_number(tf.strings.regex_replace(tf.strings.as_string(x), "1", "2"))

    x = library.Input((2,), name="x")
    code, message = export_refusal(open_source(library.Model(x, Lower()(x))))
    assert code == "conversion-failed"
    assert "tf.AsString" in message
    assert "tf.StaticRegexReplace" in message
