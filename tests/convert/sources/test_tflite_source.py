"""Float `.tflite` files: signatures given, chosen and made up, sizes fixed, and files that are no source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert import convert
from convert.quantization.packing import pack, unpack
from convert.sources import TFLiteSource, open_source, pinned
from edge_runtime import Model
from tests.convert.sources.conftest import exported, open_refusal, refusal, truncated

pytestmark = pytest.mark.tensorflow

KERNEL = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def converted(folder: Path, signatures: dict[str, Any], module: Any, **options: Any) -> bytes:
    import tensorflow as tf

    tf.saved_model.save(module, folder / "saved", signatures=signatures)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(folder / "saved"), signature_keys=list(signatures)
    )
    for name, value in options.items():
        setattr(converter, name, value)
    content: bytes = converter.convert()
    return content


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose batch and height are free, with names that are not in alphabetical order."""
    import tensorflow as tf

    module = tf.Module()
    module.kernel = tf.Variable(KERNEL)

    @tf.function(input_signature=[tf.TensorSpec((None, None, 4), name="wave")])  # type: ignore[untyped-decorator]
    def score(wave: Any) -> Any:
        mean = tf.reduce_mean(wave, axis=1)
        return {"scores": tf.nn.relu(mean @ module.kernel), "doubled": wave * 2}

    folder = tmp_path_factory.mktemp("tflite")
    path = folder / "scorer.tflite"
    path.write_bytes(converted(folder, {"serving_default": score}, module))
    return path


@pytest.fixture(scope="module")
def looping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two signatures, the second with a loop, so that its graphs are not the file's first."""
    import tensorflow as tf

    module = tf.Module()
    module.kernel = tf.Variable(KERNEL)
    module.square = tf.Variable(np.eye(3, dtype=np.float32) * 0.5)

    @tf.function(input_signature=[tf.TensorSpec((1, 4), name="x")])  # type: ignore[untyped-decorator]
    def once(x: Any) -> Any:
        return {"y": x @ module.kernel}

    @tf.function(input_signature=[tf.TensorSpec((1, 3), name="x")])  # type: ignore[untyped-decorator]
    def often(x: Any) -> Any:
        _, made = tf.while_loop(
            lambda count, _: count < 3, lambda count, y: (count + 1, tf.tanh(y @ module.square) + y), (0, x)
        )
        return {"z": made}

    folder = tmp_path_factory.mktemp("tflite")
    path = folder / "looping.tflite"
    path.write_bytes(converted(folder, {"once": once, "often": often}, module))
    return path


def edited(path: Path, target: Path, change: Any) -> Path:
    model = unpack(path.read_bytes())
    change(model)
    target.write_bytes(pack(model))
    return target


def remove_signatures(model: Any) -> None:
    model.signatureDefs = None


def test_free_sizes_are_fixed_and_the_rest_of_the_file_follows(scorer: Path) -> None:
    source = open_source(scorer)
    assert isinstance(source, TFLiteSource)
    assert source.name == "scorer.tflite"
    assert source.inputs[0].shape == ("batch", "dim1", 4)
    assert source.weight_bytes >= KERNEL.nbytes
    assert source.architecture is None
    for batch_size, height in ((1, 5), (2, 7)):
        model = exported(
            source,
            inputs=["wave"],
            outputs=[spec.name for spec in source.outputs],
            batch_size=batch_size,
            shapes={"wave": (batch_size, height, 4)},
        )
        assert {spec.name: spec.shape for spec in model.outputs} == {
            "scores": (batch_size, 3),
            "doubled": (batch_size, height, 4),
        }


def test_free_sizes_that_are_not_given_are_asked_for(scorer: Path) -> None:
    source = open_source(scorer)
    code, message = refusal(lambda: pinned(source.inputs, 1, source.name))
    assert code == "source-invalid"
    assert "--input wave:1,224,4" in message


def test_sizes_that_the_model_cannot_have_are_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, None), name="x")])  # type: ignore[untyped-decorator]
    def halves(x: Any) -> Any:
        return {"y": tf.reshape(x, (1, 2, 3)) * 2.0}

    path = tmp_path / "halves.tflite"
    path.write_bytes(converted(tmp_path, {"serving_default": halves}, tf.Module()))
    source = open_source(path)
    exported(source, inputs=["x"], outputs=["y"], shapes={"x": (1, 6)})
    fixed = pinned(source.inputs, 1, source.name, {"x": (1, 7)})
    code, message = refusal(lambda: source.export(fixed))
    assert code == "conversion-failed"
    assert "--input NAME:SHAPE" in message


def test_a_file_of_fixed_sizes_is_exported_unchanged(digits_tflite: Path) -> None:
    source = open_source(digits_tflite)
    assert source.export(source.inputs) == digits_tflite.read_bytes()
    exported(source, inputs=["image"], outputs=["probabilities"])


def test_a_signature_is_chosen_and_brings_the_graphs_that_it_runs(looping: Path) -> None:
    assert "one of often, once" in open_refusal(looping)[1]
    exported(open_source(looping, signature="once"), inputs=["x"], outputs=["y"])
    model = exported(open_source(looping, signature="often"), inputs=["x"], outputs=["z"])
    assert model.signature_key == "often"


def test_a_file_without_signatures_gets_one_of_its_tensors_names(digits_tflite: Path, tmp_path: Path) -> None:
    path = edited(digits_tflite, tmp_path / "unsigned.tflite", remove_signatures)
    bare = Model(path)
    source = open_source(path)
    inputs, outputs = [spec.name for spec in bare.inputs], [spec.name for spec in bare.outputs]
    assert exported(source, inputs=inputs, outputs=outputs).signature_key == "serving_default"
    code, message = open_refusal(path, signature="score")
    assert code == "source-invalid"
    assert "has no signatures" in message


def test_tensors_without_names_are_numbered(digits_tflite: Path, tmp_path: Path) -> None:
    def anonymous(model: Any) -> None:
        remove_signatures(model)
        for tensor in model.subgraphs[0].tensors:
            tensor.name = b""

    path = edited(digits_tflite, tmp_path / "anonymous.tflite", anonymous)
    exported(open_source(path), inputs=["input_0"], outputs=["output_0"])


def test_weights_of_half_precision_are_widened_without_changing_a_value(
    digits_saved: Path, tmp_path: Path
) -> None:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(digits_saved))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    path = tmp_path / "half.tflite"
    path.write_bytes(converter.convert())
    source = open_source(path)
    model = exported(source, inputs=["image"], outputs=["probabilities"])
    image = np.random.default_rng(1).random((1, 8, 8, 1), np.float32)
    np.testing.assert_allclose(
        model.run({"image": image})["probabilities"],
        Model(path).run({"image": image})["probabilities"],
        atol=1e-6,
    )
    types = {int(tensor.type) for tensor in unpack(source.export(source.inputs)).subgraphs[0].tensors}
    assert 1 not in types  # FLOAT16


def test_operators_of_files_from_before_2021_are_recognised(digits_tflite: Path, tmp_path: Path) -> None:
    model = unpack(digits_tflite.read_bytes())
    for code in model.operatorCodes:
        code.deprecatedBuiltinCode, code.builtinCode = code.builtinCode, 0
    old = tmp_path / "old.tflite"
    old.write_bytes(pack(model))
    source = TFLiteSource(old)
    exported = unpack(source.export(source.inputs))
    assert all(code.builtinCode == code.deprecatedBuiltinCode > 0 for code in exported.operatorCodes)
    # litert-quantizer took every operator for an addition, and gave weights the scales of activations.
    image = np.random.default_rng(0).random((8, 8, 8, 1), np.float32)
    converted = convert(old, recipe="int8", representative={"image": image})
    assert converted.parity.snr_db is not None
    assert converted.parity.snr_db > 20


def test_a_file_that_is_already_quantised_is_refused(digits_saved: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(digits_saved))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: iter([[np.ones((1, 8, 8, 1), np.float32)]] * 3)
    (tmp_path / "int8.tflite").write_bytes(converter.convert())
    code, message = open_refusal(tmp_path / "int8.tflite")
    assert code == "source-invalid"
    assert "already quantised (int8" in message
    assert "convert the float model" in message


def test_files_that_are_no_model_or_damaged_are_refused(digits_tflite: Path, tmp_path: Path) -> None:
    (tmp_path / "text.tflite").write_bytes(b"no model at all")
    (tmp_path / "empty.tflite").write_bytes(b"")
    truncated(digits_tflite, tmp_path / "half.tflite")
    for name in ("text", "empty", "half"):
        code, message = open_refusal(tmp_path / f"{name}.tflite")
        assert code == "source-invalid"
        assert f"source model '{name}.tflite'" in message


def test_operators_that_only_tensorflow_has_are_named(tmp_path: Path) -> None:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, 2, 2), name="x")])  # type: ignore[untyped-decorator]
    def invert(x: Any) -> Any:
        return {"y": tf.linalg.inv(x), "z": tf.linalg.det(x)}

    content = converted(tmp_path, {"serving_default": invert}, tf.Module(), allow_custom_ops=True)
    selected = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
    converter.target_spec.supported_ops = selected
    (tmp_path / "flex.tflite").write_bytes(converter.convert())
    code, message = open_refusal(tmp_path / "flex.tflite")
    assert code == "source-invalid"
    assert "FlexMatrixDeterminant, FlexMatrixInverse" in message
    (tmp_path / "custom.tflite").write_bytes(content)
    assert open_refusal(tmp_path / "custom.tflite")[0] == "source-invalid"


def test_weights_that_are_not_finite_are_refused(digits_tflite: Path, tmp_path: Path) -> None:
    def poison(model: Any) -> None:
        graph = model.subgraphs[0]
        _, weight = max(
            (len(model.buffers[tensor.buffer].data), tensor.buffer)
            for tensor in graph.tensors
            if model.buffers[tensor.buffer].data is not None
        )
        data = np.array(model.buffers[weight].data)
        data[:4] = np.array([np.nan], np.float32).view(np.uint8)
        model.buffers[weight].data = data

    code, message = open_refusal(edited(digits_tflite, tmp_path / "nan.tflite", poison))
    assert code == "source-invalid"
    assert "not finite" in message


def test_a_file_that_remembers_from_run_to_run_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.count = tf.Variable(np.zeros((1, 2), np.float32))

    @tf.function(input_signature=[tf.TensorSpec((1, 2), name="x")])  # type: ignore[untyped-decorator]
    def count(x: Any) -> Any:
        return {"y": module.count.assign_add(x) * 1.0}

    path = tmp_path / "count.tflite"
    path.write_bytes(
        converted(tmp_path, {"serving_default": count}, module, experimental_enable_resource_variables=True)
    )
    code, message = open_refusal(path)
    assert code == "source-invalid"
    assert "keeps state from run to run (ASSIGN_VARIABLE" in message


def test_a_fused_recurrent_layer_that_remembers_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf
    import tf_keras

    sequence = tf_keras.Input(batch_shape=(1, 4, 2), name="sequence")
    model = tf_keras.Model(sequence, tf_keras.layers.LSTM(3)(sequence))
    path = tmp_path / "fused.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    code, message = open_refusal(path)
    assert code == "source-invalid"
    assert "keeps state from run to run" in message


def test_training_time_recipes_are_told_that_they_need_a_keras_model(digits_tflite: Path) -> None:
    source = open_source(digits_tflite)
    code, message = refusal(lambda: source.with_weights([]))
    assert code == "source-invalid"
    assert "training-time recipes need one" in message
