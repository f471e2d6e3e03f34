"""Every precision and method on small models, run on the interpreter."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.quantization import calibrate, coverage, equalized, quantize
from convert.recipes import Calibration, Method, Precision, Quantization, Rule
from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.model import Model
from tests.convert.quantization.conftest import FloatModel, prepared, run, snr_db

pytestmark = pytest.mark.tensorflow

# What a sound conversion of these random models keeps, with room below what was measured.
_LEAST_SNR_DB = {
    Precision.FLOAT32: 100.0,
    Precision.FLOAT16: 50.0,
    Precision.WEIGHT_ONLY_INT8: 30.0,
    Precision.DYNAMIC_INT8: 25.0,
    Precision.INT8: 20.0,
    Precision.INT16X8: 30.0,
    Precision.INT4: 10.0,
    Precision.INT4_BLOCK32: 10.0,
}


@pytest.mark.parametrize("precision", Precision)
def test_every_precision_computes_nearly_the_same_with_names_and_order_kept(
    convolutional: FloatModel, precision: Precision
) -> None:
    content = quantize(convolutional.content, Quantization(precision=precision), convolutional.ranges)
    model = Model(content)
    assert [spec.name for spec in model.inputs] == ["image"]
    assert [spec.name for spec in model.outputs] == ["zeta", "alpha"]
    assert snr_db(convolutional.outputs(), convolutional.outputs(content)) > _LEAST_SNR_DB[precision]


def test_precisions_come_out_in_order_of_size(convolutional: FloatModel) -> None:
    sizes = {
        precision: len(
            quantize(convolutional.content, Quantization(precision=precision), convolutional.ranges)
        )
        for precision in Precision
    }
    assert sizes[Precision.FLOAT16] < 0.55 * sizes[Precision.FLOAT32]
    for precision in (Precision.WEIGHT_ONLY_INT8, Precision.DYNAMIC_INT8, Precision.INT8, Precision.INT16X8):
        assert sizes[precision] < 0.6 * sizes[Precision.FLOAT16]
    assert sizes[Precision.INT4] < sizes[Precision.INT4_BLOCK32] < sizes[Precision.DYNAMIC_INT8]


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        (Precision.INT8, "int8"),
        (Precision.INT16X8, "int16"),
        (Precision.DYNAMIC_INT8, "float32"),
        (Precision.INT4, "float32"),
    ],
)
def test_ends_of_the_model_have_the_type_of_its_activations(
    convolutional: FloatModel, precision: Precision, dtype: str
) -> None:
    model = Model(quantize(convolutional.content, Quantization(precision=precision), convolutional.ranges))
    assert {spec.dtype for spec in (*model.inputs, *model.outputs)} == {dtype}


def test_a_rule_for_the_ends_keeps_them_float(convolutional: FloatModel) -> None:
    rule = Rule(operators=("INPUT", "OUTPUT"))
    quantization = Quantization(precision=Precision.INT8, rules=(rule,))
    content = quantize(convolutional.content, quantization, convolutional.ranges)
    assert {spec.dtype for spec in (*Model(content).inputs, *Model(content).outputs)} == {"float32"}
    assert coverage(content, quantization).left_float == {}
    assert snr_db(convolutional.outputs(), convolutional.outputs(content)) > 20


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4, Precision.INT4_BLOCK32])
def test_every_method_works_and_leaves_no_weight_float(
    convolutional: FloatModel, precision: Precision, method: Method
) -> None:
    quantization = Quantization(precision=precision, method=method)
    content = quantize(convolutional.content, quantization, convolutional.ranges)
    assert coverage(content, quantization).left_float == {}
    assert snr_db(convolutional.outputs(), convolutional.outputs(content)) > 8


def test_gptq_loses_less_than_rounding(convolutional: FloatModel) -> None:
    lost = {
        method: snr_db(
            convolutional.outputs(),
            convolutional.outputs(
                quantize(
                    convolutional.content,
                    Quantization(
                        precision=Precision.DYNAMIC_INT8,
                        rules=(
                            Rule(operators=("FULLY_CONNECTED",), precision=Precision.INT4, method=method),
                        ),
                    ),
                    convolutional.ranges,
                )
            ),
        )
        for method in (Method.MIN_MAX, Method.GPTQ)
    }
    assert lost[Method.GPTQ] > lost[Method.MIN_MAX] + 1


def test_convolutions_in_groups_dilated_and_of_several_outputs_a_channel_convert(keras: Any) -> None:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((10, 10, 8), name="image")
    hidden = layers.Conv2D(16, 3, groups=4, activation="relu", name="grouped")(image)
    hidden = layers.Conv2D(16, 3, dilation_rate=2, activation="relu", name="dilated")(hidden)
    hidden = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu6", name="doubled")(hidden)
    model = prepared(keras.Model(image, layers.Dense(4, name="head")(layers.Flatten()(hidden))), ("scores",))
    changed = equalized(model.content, model.samples)
    assert snr_db(model.outputs(), model.outputs(changed)) > 90
    content = quantize(changed, Quantization(precision=Precision.INT8), calibrate(changed, model.samples))
    assert snr_db(model.outputs(), model.outputs(content)) > 20


def test_quantising_twice_gives_the_same_bytes_with_every_method(convolutional: FloatModel) -> None:
    for method in Method:
        quantization = Quantization(precision=Precision.INT4, method=method)
        first, second = (
            quantize(convolutional.content, quantization, convolutional.ranges) for _ in range(2)
        )
        assert first == second, method


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(convolutional: FloatModel, tmp_path: Path) -> None:
    (tmp_path / "float.tflite").write_bytes(convolutional.content)
    np.save(tmp_path / "samples.npy", np.stack([sample["image"] for sample in convolutional.samples]))
    script = """
import hashlib, sys
from pathlib import Path
import numpy as np
from convert.quantization import calibrate, encode_sparse, quantize
from convert.recipes import Precision, Quantization
folder = Path(sys.argv[1])
content = (folder / "float.tflite").read_bytes()
ranges = calibrate(content, ({"image": each} for each in np.load(folder / "samples.npy")))
for precision in Precision:
    made, _ = encode_sparse(quantize(content, Quantization(precision=precision), ranges))
    print(hashlib.sha256(made).hexdigest())
"""
    process = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    expected = [
        hashlib.sha256(
            quantize(convolutional.content, Quantization(precision=precision), convolutional.ranges)
        ).hexdigest()
        for precision in Precision
    ]
    assert process.stdout.split() == expected


def test_the_last_rule_that_matches_holds(convolutional: FloatModel) -> None:
    rules = (
        Rule(operators=("CONV_2D",)),
        Rule(layers="stem", precision=Precision.DYNAMIC_INT8),
        Rule(layers="pointwise", precision=Precision.INT4, method=Method.OCTAV),
    )
    quantization = Quantization(precision=Precision.WEIGHT_ONLY_INT8, rules=rules)
    content = quantize(convolutional.content, quantization)
    found = coverage(content, quantization).precisions
    assert found["CONV_2D"] == {"dynamic-int8": 1, "int4": 1}
    assert found["FULLY_CONNECTED"] == {"weight-only-int8": 3}


def test_the_last_layer_is_named_by_its_weights(convolutional: FloatModel) -> None:
    quantization = Quantization(precision=Precision.INT8, rules=(Rule(layers="zeta"),))
    content = quantize(convolutional.content, quantization, convolutional.ranges)
    found = coverage(content, quantization)
    assert found.left_float == {"FULLY_CONNECTED": 1}
    assert "zeta" in found.float_layers[0]
    assert Model(content).outputs[0].dtype == "int8"


def test_a_rule_that_matches_nothing_names_the_layers_there_are(convolutional: FloatModel) -> None:
    def message(rule: Rule) -> str:
        with pytest.raises(HybridgeError) as caught:
            quantize(
                convolutional.content, Quantization(precision=Precision.DYNAMIC_INT8, rules=(rule,)), None
            )
        assert caught.value.code is ErrorCode.RECIPE_UNKNOWN
        return caught.value.message

    assert "stem" in message(Rule(layers="absent"))
    assert "pointwise" in message(Rule(layers="absent", operators=("CONV_2D",)))
    assert "FULLY_CONNECTED" in message(Rule(operators=("CONV_7D",)))
    assert "regular expression" in message(Rule(layers="("))


def test_precisions_from_ranges_are_refused_without_them(convolutional: FloatModel) -> None:
    for quantization in (
        Quantization(precision=Precision.INT8),
        Quantization(precision=Precision.INT4, method=Method.GPTQ),
        Quantization(rules=(Rule(precision=Precision.INT16X8),)),
    ):
        assert quantization.needs_representative
        with pytest.raises(HybridgeError) as caught:
            quantize(convolutional.content, quantization)
        assert caught.value.code is ErrorCode.DATA_INVALID
    assert not Quantization(precision=Precision.FLOAT16, method=Method.GPTQ).needs_representative


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT16X8])
def test_inside_a_loop_only_weights_are_quantised(recurrent: FloatModel, precision: Precision) -> None:
    quantization = Quantization(precision=precision)
    content = quantize(recurrent.content, quantization, recurrent.ranges)
    found = coverage(content, quantization)
    assert found.precisions["FULLY_CONNECTED"] == {"dynamic-int8": 2, str(precision): 2}
    assert found.precisions["LOGISTIC"] == {"float32": 3}
    assert snr_db(recurrent.outputs(), recurrent.outputs(content)) > 15


@pytest.mark.parametrize("method", Method)
def test_methods_that_look_at_activations_pass_over_loops(recurrent: FloatModel, method: Method) -> None:
    quantization = Quantization(precision=Precision.DYNAMIC_INT8, method=method)
    content = quantize(recurrent.content, quantization, recurrent.ranges)
    assert coverage(content, quantization).left_float == {}
    assert snr_db(recurrent.outputs(), recurrent.outputs(content)) > 15


@pytest.mark.parametrize("precision", Precision)
def test_embeddings_and_attention_pass_every_precision(attentive: FloatModel, precision: Precision) -> None:
    content = quantize(attentive.content, Quantization(precision=precision), attentive.ranges)
    assert snr_db(attentive.outputs(), attentive.outputs(content)) > 12
    assert Model(content).inputs[0].dtype == "int32"


def test_operators_without_an_int4_kernel_become_dynamic_int8(convolutional: FloatModel) -> None:
    for precision, convolutions in ((Precision.INT4, "int4"), (Precision.INT4_BLOCK32, "dynamic-int8")):
        quantization = Quantization(precision=precision)
        found = coverage(quantize(convolutional.content, quantization), quantization)
        assert found.precisions["DEPTHWISE_CONV_2D"] == {"dynamic-int8": 1}
        assert found.precisions["TRANSPOSE_CONV"] == {"dynamic-int8": 1}
        assert found.precisions["CONV_2D"] == {convolutions: 2}
        assert found.precisions["FULLY_CONNECTED"] == {str(precision): 3}


def test_rows_that_32_does_not_divide_are_int4_a_channel(recurrent: FloatModel) -> None:
    quantization = Quantization(precision=Precision.INT4_BLOCK32)
    found = coverage(quantize(recurrent.content, quantization), quantization)
    assert found.precisions["FULLY_CONNECTED"] == {"int4": 4}


def test_weights_that_were_clustered_deflate_better_with_one_scale(
    clustered: FloatModel, pruned: FloatModel
) -> None:
    quantization = Quantization(precision=Precision.INT8)
    made = quantize(clustered.content, quantization, clustered.ranges)
    assert [len(each) for each in weight_scales(made)] == [1, 1, 1]
    not_clustered = quantize(pruned.content, quantization, pruned.ranges)
    assert all(len(each) > 1 for each in weight_scales(not_clustered))
    assert snr_db(clustered.outputs(), clustered.outputs(made)) > 20
    assert len(zlib.compress(made, 9)) < 0.75 * len(made)


def weight_scales(content: bytes) -> list[tuple[float, ...]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    return [
        tuple(detail["quantization_parameters"]["scales"])
        for detail in interpreter.get_tensor_details()
        if detail["dtype"] is np.int8 and ("MatMul" in detail["name"] or "convolution" in detail["name"])
        and ";" not in detail["name"] and len(detail["shape"]) >= 2 and detail["shape"][0] > 1
    ]  # fmt: skip


def test_a_moving_average_gives_narrower_ranges(convolutional: FloatModel) -> None:
    ranges = convolutional.ranges
    for name, (low, high) in ranges.averages.items():
        assert ranges.bounds[name][0] <= low <= high <= ranges.bounds[name][1]
    assert any(ranges.averages[name] != bounds for name, bounds in ranges.bounds.items())
    made = {
        calibration: quantize(
            convolutional.content, Quantization(precision=Precision.INT8, calibration=calibration), ranges
        )
        for calibration in Calibration
    }
    assert len(set(made.values())) == len(Calibration)


def test_ranges_are_those_of_all_samples_and_of_every_tensor(convolutional: FloatModel) -> None:
    ranges, images = convolutional.ranges, np.stack([each["image"] for each in convolutional.samples])
    (image,) = (bounds for name, bounds in ranges.bounds.items() if "image" in name)
    assert image == (images.min(), images.max())
    assert ranges.samples == len(convolutional.samples)
    outputs = convolutional.outputs(count=40)
    spans = set(ranges.bounds.values())
    for values in outputs.values():
        assert any(np.allclose(bounds, (values.min(), values.max()), rtol=1e-4) for bounds in spans)


def test_calibration_reads_samples_once_and_reports_progress(convolutional: FloatModel) -> None:
    seen: list[int] = []
    ranges = calibrate(convolutional.content, iter(convolutional.samples), progress=seen.append)
    assert seen == [32, 40]
    assert ranges.bounds == convolutional.ranges.bounds


def test_samples_that_do_not_fit_are_refused(convolutional: FloatModel) -> None:
    image = convolutional.samples[0]["image"]
    for samples in ([], [{"picture": image}], [{"image": image[..., :1]}]):
        with pytest.raises(HybridgeError) as caught:
            calibrate(convolutional.content, samples)
        assert caught.value.code is ErrorCode.DATA_INVALID


def test_quantised_files_are_aligned_and_hold_their_data_inside(convolutional: FloatModel) -> None:
    from ai_edge_litert import schema_py_generated as schema

    content = quantize(convolutional.content, Quantization(precision=Precision.FLOAT16))
    model = schema.Model.GetRootAs(content, 0)
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        assert buffer.Size() == 0  # runtimes before offsets were added would see an empty constant
        if buffer.DataLength():
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            assert start % 16 == 0


def test_a_file_that_is_not_quantised_is_returned_as_it_is(convolutional: FloatModel) -> None:
    assert quantize(convolutional.content, Quantization()) is convolutional.content


def test_a_model_that_is_already_quantised_is_refused_or_kept(convolutional: FloatModel) -> None:
    quantized = quantize(convolutional.content, Quantization(precision=Precision.INT8), convolutional.ranges)
    again = quantize(quantized, Quantization(precision=Precision.DYNAMIC_INT8))
    assert again is quantized
    assert run(again, convolutional.samples[:1])
