"""SavedModel folders of Keras, of tf_keras and of modules: signatures, names, values, and folders that are none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.sources import SavedModelSource, open_source, pinned
from tests.convert.sources.conftest import export_refusal, exported, open_refusal, refusal, truncated

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module with two signatures, the inputs and outputs of one not in the order of their names."""
    import tensorflow as tf

    class Scorer(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.kernel = tf.Variable(np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32))

        @tf.function  # type: ignore[untyped-decorator]
        def score(self, zeta: Any, alpha: Any) -> Any:
            return {"z": tf.nn.relu(zeta @ self.kernel + alpha), "a": alpha * 2, "m": zeta - 1}

        @tf.function  # type: ignore[untyped-decorator]
        def sizes(self, wave: Any) -> Any:
            return [tf.reduce_mean(wave, axis=1) @ self.kernel, tf.reduce_max(wave, axis=1)]

    folder = tmp_path_factory.mktemp("saved") / "scorer"
    module = Scorer()
    score = module.score.get_concrete_function(
        tf.TensorSpec((None, 4), name="zeta"), tf.TensorSpec((None, 3), name="alpha")
    )
    sizes = module.sizes.get_concrete_function(tf.TensorSpec((None, None, 4), name="wave"))
    tf.saved_model.save(module, folder, signatures={"score": score, "sizes": sizes})
    return folder


def saved(tmp_path: Path, call: Any, *specs: Any, **attributes: Any) -> Path:
    import tensorflow as tf

    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    function = tf.function(call, input_signature=specs)
    tf.saved_model.save(module, tmp_path / "saved", signatures=function)
    return tmp_path / "saved"


def test_a_signature_is_chosen_by_name_and_its_tensors_are_in_the_order_of_theirs(scorer: Path) -> None:
    source = open_source(scorer, signature="score")
    assert isinstance(source, SavedModelSource)
    assert source.name == "scorer"
    assert source.weight_bytes == 48
    assert source.architecture is None
    assert source.inputs[1].shape == ("batch", 4)
    exported(source, inputs=["alpha", "zeta"], outputs=["a", "m", "z"])


def test_free_sizes_are_fixed_as_given(scorer: Path) -> None:
    source = open_source(scorer, signature="sizes")
    exported(
        source, inputs=["wave"], outputs=["output_0", "output_1"], batch_size=2, shapes={"wave": (2, 6, 4)}
    )


def test_several_signatures_without_a_choice_are_listed(scorer: Path) -> None:
    for wanted in (None, "other"):
        code, message = open_refusal(scorer, signature=wanted)
        assert code == "source-invalid"
        assert "one of score, sizes" in message


def test_what_keras_exports_keeps_names_and_values(keras: Any, tmp_path: Path) -> None:
    image, words = keras.Input((6, 6, 2), name="image"), keras.Input((3,), dtype="int32", name="words")
    seen = keras.layers.Flatten()(keras.layers.Conv2D(2, 3, activation="relu")(image))
    read = keras.layers.Flatten()(keras.layers.Embedding(2, 3)(words))
    scores = keras.layers.Dense(4, activation="softmax")(keras.layers.Concatenate()([seen, read]))
    keras.Model([image, words], {"scores": scores, "hidden": read}).export(tmp_path / "model", verbose=False)
    exported(open_source(tmp_path / "model"), inputs=["image", "words"], outputs=["hidden", "scores"])


def test_a_recurrent_model_begins_each_run_at_zero(library: Any, tmp_path: Path) -> None:
    sequence = library.Input((5, 2), name="sequence")
    hidden = library.layers.GRU(3)(library.layers.LSTM(4, return_sequences=True)(sequence))
    model = library.Model(sequence, {"tags": library.layers.Dense(2, name="tags")(hidden)})
    model.export(tmp_path / "tags")
    source = open_source(tmp_path / "tags")
    (output,) = (spec.name for spec in source.outputs)
    # Three runs of one interpreter: state that stayed behind would show from the second on.
    exported(source, inputs=["sequence"], outputs=[output])
    code, message = refusal(lambda: source.export(pinned(source.inputs, 2, source.name)))
    assert code == "conversion-failed"
    assert "a batch size of 1" in message


def test_the_digest_is_of_names_and_contents(scorer: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(scorer, tmp_path / "elsewhere")
    digest = open_source(scorer, signature="score").digest
    assert open_source(copy, signature="score").digest == digest
    (copy / "assets").mkdir(exist_ok=True)
    (copy / "assets" / "words.txt").write_text("one")
    changed = open_source(copy, signature="score").digest
    assert changed != digest
    (copy / "assets" / "words.txt").rename(copy / "assets" / "other.txt")
    assert open_source(copy, signature="score").digest not in (digest, changed)


def test_the_same_folder_gives_the_same_bytes(scorer: Path) -> None:
    contents = set()
    for _ in range(2):
        source = open_source(scorer, signature="score")
        contents.add(source.export(pinned(source.inputs, 1, source.name)))
    assert len(contents) == 1


def test_a_folder_without_signatures_says_what_it_has(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.double = tf.function(lambda x: x * 2, input_signature=[tf.TensorSpec((1, 2))])
    module.triple = tf.function(lambda x: x * 3, input_signature=[tf.TensorSpec((1, 2))])
    tf.saved_model.save(module, tmp_path / "saved")
    code, message = open_refusal(tmp_path / "saved")
    assert code == "source-invalid"
    assert "no signatures, only the functions double, triple" in message
    assert "signatures=" in message


@pytest.mark.parametrize(
    "damaged", ["saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index"]
)
def test_a_damaged_folder_is_refused(scorer: Path, tmp_path: Path, damaged: str) -> None:
    copy = shutil.copytree(scorer, tmp_path / "copy")
    truncated(copy / damaged, copy / damaged)
    assert open_refusal(copy, signature="score")[0] == "source-invalid"
    (copy / damaged).unlink()
    assert open_refusal(copy, signature="score")[0] == "source-invalid"


def scaled_by(value: Any) -> Any:
    import tensorflow as tf

    return lambda x: {"y": x * tf.cast(value, tf.float32)}


def test_weights_that_are_not_finite_or_half_precision_are_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    spec = tf.TensorSpec((None, 2), name="x")
    for value, words in (
        (tf.Variable([1.0, np.nan], name="bad"), "'bad:0' with values that are not finite"),
        (tf.Variable([1.0, 2.0], dtype=tf.float16, name="half"), "'half:0' in half precision"),
    ):
        path = saved(tmp_path, scaled_by(value), spec, by=value)
        code, message = open_refusal(path)
        assert code == "source-invalid"
        assert words in message


def test_a_signature_that_changes_a_variable_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    count = tf.Variable(0.0)

    def call(x: Any) -> Any:
        return {"y": x + count.assign_add(1.0)}

    source = open_source(saved(tmp_path, call, tf.TensorSpec((None, 2), name="x"), count=count))
    code, message = export_refusal(source)
    assert code == "source-invalid"
    assert "changes its variables as it runs (AssignAddVariableOp)" in message


def test_operators_that_no_device_has_are_named(tmp_path: Path) -> None:
    import tensorflow as tf

    def call(x: Any) -> Any:
        return {"y": tf.linalg.inv(x), "z": tf.raw_ops.Betainc(a=x, b=x, x=x)}

    code, message = export_refusal(open_source(saved(tmp_path, call, tf.TensorSpec((None, 2, 2), name="x"))))
    assert code == "conversion-failed"
    assert "tf.Betainc, tf.MatrixInverse" in message


def test_a_lookup_table_is_told_the_way_out(tmp_path: Path) -> None:
    import tensorflow as tf

    keys = tf.lookup.KeyValueTensorInitializer(["a", "b"], [1.0, 2.0])
    table = tf.lookup.StaticHashTable(keys, 0.0)
    path = saved(
        tmp_path, lambda x: {"y": table.lookup(x)}, tf.TensorSpec((None, 2), tf.string, name="x"), table=table
    )
    code, message = export_refusal(open_source(path))
    assert code == "conversion-failed"
    assert "lookup table" in message


def test_training_time_recipes_are_told_that_they_need_a_keras_model(scorer: Path) -> None:
    source = open_source(scorer, signature="score")
    code, message = refusal(lambda: source.with_weights([]))
    assert code == "source-invalid"
    assert "training-time recipes need one" in message
