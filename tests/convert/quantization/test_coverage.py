"""What a converted file says about its operators."""

from __future__ import annotations

import pytest

from convert.quantization import coverage, encode_sparse, operations, quantize
from convert.recipes import Precision, Quantization, Rule
from tests.convert.quantization.conftest import FloatModel

pytestmark = pytest.mark.tensorflow


def test_operators_are_counted_by_precision_and_weights_by_type(convolutional: FloatModel) -> None:
    quantization = Quantization(precision=Precision.INT8, rules=(Rule(layers="depthwise"),))
    content = quantize(convolutional.content, quantization, convolutional.ranges)
    found = coverage(content, quantization)
    assert found.precisions["CONV_2D"] == {"int8": 2}
    assert found.precisions["DEPTHWISE_CONV_2D"] == {"float32": 1}
    assert found.quantized["FULLY_CONNECTED"] == 3
    assert found.left_float == {"DEPTHWISE_CONV_2D": 1}
    assert [layer.split()[0] for layer in found.float_layers] == ["DEPTHWISE_CONV_2D"]
    assert found.weight_bytes["FLOAT32"] == 3 * 3 * 32 * 4
    assert found.weight_bytes["INT8"] > 100_000
    assert found.not_builtin == found.newer_than_tflite == ()


def test_a_float_file_has_only_float_operators(convolutional: FloatModel) -> None:
    found = coverage(convolutional.content, Quantization())
    assert found.quantized == {}
    assert {kind for kinds in found.precisions.values() for kind in kinds} == {"float32"}


def test_operators_without_a_kernel_in_int8_are_named(attentive: FloatModel) -> None:
    quantization = Quantization(precision=Precision.INT8)
    content = quantize(attentive.content, quantization, attentive.ranges)
    found = coverage(content, quantization)
    assert len(found.float_layers) == sum(found.left_float.values())
    assert "FULLY_CONNECTED" not in found.left_float


def test_shapes_and_paddings_are_no_weights(recurrent: FloatModel) -> None:
    for each in operations(recurrent.content):
        assert {weight.dtype for weight in each.weights} <= {"FLOAT32"}


def test_weights_behind_densify_are_still_the_operators_own(pruned: FloatModel) -> None:
    sparse, _ = encode_sparse(pruned.content)
    dense_found, sparse_found = (coverage(each, Quantization()) for each in (pruned.content, sparse))
    assert dense_found.precisions == sparse_found.precisions
    assert sum(sparse_found.weight_bytes.values()) < sum(dense_found.weight_bytes.values())


def test_custom_operators_are_named_as_not_builtin() -> None:
    import tensorflow as tf

    class Module(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((4,), tf.float32)])  # type: ignore[untyped-decorator]
        def __call__(self, x: object) -> object:
            return tf.raw_ops.Erfinv(x=x)

    module = Module()
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.__call__.get_concrete_function()], module
    )
    converter.allow_custom_ops = True
    found = coverage(converter.convert(), Quantization())
    assert found.not_builtin == ("CUSTOM Erfinv",)
