"""Reading Keras models of both libraries, from files and memory, and giving them other weights."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.sources import KerasSource, open_source
from tests.convert.conftest import Digits
from tests.convert.sources.conftest import exported, open_refusal, truncated

pytestmark = pytest.mark.tensorflow

CUSTOM = """
import keras


class Shift(keras.layers.Layer):
    def __init__(self, by=1.0, **options):
        super().__init__(**options)
        self.by = by

    def call(self, x):
        return x + self.by

    def get_config(self):
        return {**super().get_config(), "by": self.by}


def steep(x):
    return 3 * x
"""
REGISTERED = """
import keras


@keras.saving.register_keras_serializable("mine")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


def classifier(library: Any, units: int = 3, name: str = "y") -> Any:
    library.utils.set_random_seed(3)
    x = library.Input((4,), name="x")
    return library.Model(x, library.layers.Dense(units, activation="relu", name=name)(x), name="m")


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


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_files_of_either_library_are_loaded_by_it(library: Any, suffix: str, tmp_path: Path) -> None:
    model = classifier(library)
    model.save(tmp_path / f"model{suffix}")
    source = open_source(tmp_path / f"model{suffix}")
    assert isinstance(source, KerasSource)
    assert source.library == library.__name__
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(source.predict({"x": x})["y"], model.predict(x, verbose=0), atol=1e-6)
    exported(source, inputs=["x"], outputs=["y"])


def test_a_model_in_memory_has_a_digest_of_its_configuration_and_weights(library: Any) -> None:
    digest = open_source(classifier(library)).digest
    assert open_source(classifier(library)).digest == digest
    assert open_source(classifier(library, 4)).digest != digest
    assert open_source(classifier(library, 3, "z")).digest != digest
    other = classifier(library)
    other.set_weights([weight + 1 for weight in other.get_weights()])
    assert open_source(other).digest != digest


def test_an_architecture_builds_the_model_again(library: Any) -> None:
    model = classifier(library)
    model.compile("adam", "mse")
    architecture = open_source(model).architecture
    assert architecture is not None
    assert architecture.library == library.__name__
    config = json.loads(json.dumps(architecture.config))
    if library.__name__ == "keras":
        rebuilt = library.saving.deserialize_keras_object(config)
    else:
        rebuilt = library.models.model_from_json(json.dumps(config))
    rebuilt.set_weights(architecture.weights)
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(rebuilt(x), model(x))


def test_a_subclassed_model_that_does_not_describe_itself_has_no_architecture(library: Any) -> None:
    class Plain(library.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = library.layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Plain()
    model(np.zeros((1, 3), np.float32))
    assert open_source(model).architecture is None


def test_other_weights_make_another_source_and_leave_this_one(library: Any, tmp_path: Path) -> None:
    classifier(library).save(tmp_path / "model.h5")
    source = open_source(tmp_path / "model.h5")
    x = {"x": np.ones((2, 4), np.float32)}
    before = source.predict(x)["y"]
    assert source.architecture is not None
    changed = source.with_weights([weight * 2 + 1 for weight in source.architecture.weights])
    assert (changed.name, changed.digest, changed.inputs) == (source.name, source.digest, source.inputs)
    assert changed.outputs == source.outputs
    np.testing.assert_array_equal(source.predict(x)["y"], before)
    np.testing.assert_allclose(changed.predict(x)["y"], np.maximum(2 * (x["x"] @ source.architecture.weights[0]) + 5, 0), rtol=1e-5)  # fmt: skip # noqa: E501
    exported(changed, inputs=["x"], outputs=["y"])


def test_weights_that_do_not_fit_are_refused(library: Any) -> None:
    source = open_source(classifier(library))
    with pytest.raises(Exception, match="a value for each of its weights"):
        source.with_weights([np.zeros(3, np.float32)])


def test_modules_in_the_current_directory_define_what_a_file_names(
    keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_parts").mkdir()
    (tmp_path / "my_parts" / "__init__.py").write_text("")
    (tmp_path / "my_parts" / "layers.py").write_text(CUSTOM)
    (tmp_path / "my_registered.py").write_text(REGISTERED)
    modules = ("my_parts.layers", "my_registered")
    monkeypatch.syspath_prepend(tmp_path)
    parts, registered = (__import__(name, fromlist=["_"]) for name in modules)
    x = keras.Input((3,), name="x")
    hidden = keras.layers.Dense(2, activation=parts.steep)(registered.Doubled()(x))
    keras.Model(x, parts.Shift(0.5, name="y")(hidden)).save(tmp_path / "custom.keras")
    monkeypatch.undo()
    for name in (*modules, "my_parts"):
        del sys.modules[name]
    keras.saving.get_custom_objects().clear()

    code, message = open_refusal(tmp_path / "custom.keras")
    assert code == "source-invalid"
    assert "'Doubled'" in message
    assert "--custom" in message
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    source = open_source(tmp_path / "custom.keras", custom=modules)
    assert sys.path == path
    assert source.architecture is not None
    assert source.architecture.custom == modules
    exported(source, inputs=["x"], outputs=["y"])
    exported(source.with_weights(source.architecture.weights), inputs=["x"], outputs=["y"])


def test_a_custom_module_that_is_missing_or_broken_is_named(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_part.py").write_text("1 / 0")
    for module, reason in (("no_such_part", "No module named"), ("broken_part", "ZeroDivisionError")):
        code, message = open_refusal(digits.file, custom=(module,))
        assert code == "usage"
        assert f"custom module '{module}'" in message
        assert reason in message


def test_a_missing_class_of_either_library_is_named(library: Any, tmp_path: Path) -> None:
    class Unregistered(library.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x * 2

    x = library.Input((3,), name="x")
    for suffix in (".keras", ".h5"):
        library.Model(x, Unregistered()(x)).save(tmp_path / f"custom{suffix}")
        code, message = open_refusal(tmp_path / f"custom{suffix}")
        assert code == "source-invalid"
        assert "'Unregistered', a class or function that is not known" in message
        assert "--custom" in message


def test_a_missing_function_is_named_and_a_module_of_plain_functions_gives_it(
    library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = f"plain_{library.__name__}"
    (tmp_path / f"{module}.py").write_text("def steep(x):\n    return 3 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    steep = __import__(module).steep
    x = library.Input((3,), name="x")
    library.Model(x, library.layers.Dense(2, activation=steep, name="y")(x)).save(tmp_path / "steep.keras")
    code, message = open_refusal(tmp_path / "steep.keras")
    assert code == "source-invalid"
    assert "'steep', a class or function that is not known" in message
    exported(open_source(tmp_path / "steep.keras", custom=(module,)), inputs=["x"], outputs=["y"])


def test_unreadable_archives_are_refused_before_anything_is_loaded(digits: Digits, tmp_path: Path) -> None:
    content = digits.file.read_bytes()
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 0xFF
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "no model")
    truncated(digits.file, tmp_path / "truncated.keras")
    (tmp_path / "text.keras").write_bytes(b"not a model")
    (tmp_path / "flipped.keras").write_bytes(damaged)
    for name in ("truncated", "text", "flipped", "other"):
        code, message = open_refusal(tmp_path / f"{name}.keras")
        assert code == "source-invalid"
        assert "no Keras archive" in message


def test_unreadable_hdf5_files_are_refused(library: Any, tmp_path: Path) -> None:
    model = classifier(library)
    model.save(tmp_path / "model.h5")
    code, message = open_refusal(truncated(tmp_path / "model.h5", tmp_path / "half.h5"))
    assert code == "source-invalid"
    assert "no whole HDF5 file" in message
    model.save_weights(tmp_path / "only.weights.h5")
    code, message = open_refusal(tmp_path / "only.weights.h5")
    assert code == "source-invalid"
    assert "without a model's configuration" in message


def test_a_model_that_is_not_built_is_refused(library: Any) -> None:
    code, message = open_refusal(library.Sequential([library.layers.Dense(3)]))
    assert code == "source-invalid"
    assert "not built" in message


def test_weights_that_are_not_finite_are_refused(library: Any) -> None:
    for value in (np.nan, np.inf):
        model = classifier(library)
        model.layers[1].kernel.assign(np.full((4, 3), value, np.float32))
        code, message = open_refusal(model)
        assert code == "source-invalid"
        assert "kernel" in message


def test_a_model_that_computes_in_half_precision_is_told_the_way_out(library: Any) -> None:
    x, part = library.Input((4,), name="x"), library.Input((4,))
    inner = library.Model(part, library.layers.Dense(2, dtype="mixed_float16", name="half")(part))
    code, message = open_refusal(library.Model(x, inner(x)))
    assert code == "source-invalid"
    assert "half precision (half)" in message
