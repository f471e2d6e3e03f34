from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert import open_source
from convert.sources.keras_source import KerasSource
from edge_runtime import ErrorCode, HybridgeError
from tests.convert.conftest import Digits

pytestmark = pytest.mark.tensorflow


def code_of(source: Any) -> tuple[ErrorCode, str]:
    with pytest.raises(HybridgeError) as caught:
        open_source(source)
    return caught.value.code, caught.value.message


def test_a_file_gives_names_shapes_digest_and_the_time_it_was_saved(digits: Digits) -> None:
    source = open_source(str(digits.file))
    assert source.name == "digits.keras"
    assert [(spec.name, spec.shape, spec.dtype) for spec in source.inputs] == [
        ("image", ("batch", 8, 8, 1), "float32")
    ]
    assert [(spec.name, spec.shape) for spec in source.outputs] == [("probabilities", ("batch", 10))]
    assert source.saved_at is not None
    assert "T" in source.saved_at
    assert source.weight_bytes == sum(weight.nbytes for weight in digits.model.get_weights())
    assert source.digest == open_source(digits.file).digest


def test_predict_is_what_keras_computes_for_any_number_of_samples(digits: Digits) -> None:
    source = open_source(digits.file)
    for count in (1, 200):
        expected = digits.model.predict(digits.test[:count], verbose=0)
        np.testing.assert_allclose(
            source.predict({"image": digits.test[:count]})["probabilities"], expected, atol=1e-6
        )


def test_a_model_in_memory_has_a_digest_of_its_configuration_and_weights(keras: Any) -> None:
    def made(units: int, name: str = "y") -> Any:
        keras.utils.set_random_seed(3)
        return keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(units, name=name)], name="m")

    digest = open_source(made(3)).digest
    assert open_source(made(3)).digest == digest
    assert open_source(made(4)).digest != digest
    assert open_source(made(3, "z")).digest != digest
    other = made(3)
    other.set_weights([weight + 1 for weight in other.get_weights()])
    assert open_source(other).digest != digest


def test_unreadable_files_are_refused_before_anything_is_loaded(digits: Digits, tmp_path: Path) -> None:
    content = digits.file.read_bytes()
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 0xFF
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "no model")
    for name, bad in (
        ("truncated", content[: len(content) // 2]),
        ("text", b"not a model"),
        ("flipped", damaged),
    ):
        (tmp_path / f"{name}.keras").write_bytes(bad)
    for name in ("truncated", "text", "flipped", "other"):
        code, message = code_of(tmp_path / f"{name}.keras")
        assert code is ErrorCode.SOURCE_INVALID
        assert "no Keras archive" in message
    assert code_of(tmp_path / "none.keras")[0] is ErrorCode.FILE_NOT_FOUND


def test_what_is_no_keras_3_model_is_refused(digits: Digits, tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"")
    assert code_of(tmp_path / "model.h5")[0] is ErrorCode.SOURCE_INVALID
    code, message = code_of({"weights": 3})
    assert code is ErrorCode.SOURCE_INVALID
    assert "type dict" in message


def test_a_file_with_an_unregistered_class_says_so(keras: Any, tmp_path: Path) -> None:
    class Unregistered(keras.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x * 2

    x = keras.Input((3,), name="x")
    keras.Model(x, Unregistered()(x)).save(tmp_path / "custom.keras")
    code, message = code_of(tmp_path / "custom.keras")
    assert code is ErrorCode.SOURCE_INVALID
    assert "Unregistered" in message


def test_a_model_that_is_not_built_is_refused(keras: Any) -> None:
    code, message = code_of(keras.Sequential([keras.layers.Dense(3)]))
    assert code is ErrorCode.SOURCE_INVALID
    assert "not built" in message


def test_weights_that_are_not_finite_are_refused(keras: Any) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="bad")])
    model.layers[0].kernel.assign(np.full((2, 3), np.nan, np.float32))
    code, message = code_of(model)
    assert code is ErrorCode.SOURCE_INVALID
    assert "kernel" in message


def test_two_outputs_of_one_layer_get_names_of_their_own(keras: Any) -> None:
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = keras.layers.Dense(2, name="shared")
    source = KerasSource.from_model(keras.Model([a, b], [shared(a), shared(b)]))
    assert [spec.name for spec in source.outputs] == ["output_0", "output_1"]


def test_a_model_that_computes_in_half_precision_is_told_the_way_out(keras: Any) -> None:
    x = keras.Input((4,), name="x")
    code, message = code_of(keras.Model(x, keras.layers.Dense(2, dtype="mixed_float16", name="half")(x)))
    assert code is ErrorCode.SOURCE_INVALID
    assert "half precision (half)" in message
