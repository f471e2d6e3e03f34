"""Weights with many zeros, stored without them and run by every kind of interpreter."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from convert.quantization import encode_sparse, quantize
from convert.quantization.flatbuffer import operations
from convert.recipes import Precision, Quantization
from edge_runtime.model import Model
from tests.convert.quantization.conftest import FloatModel

pytestmark = pytest.mark.tensorflow

_UNPACKED = (Precision.FLOAT32, Precision.FLOAT16, Precision.WEIGHT_ONLY_INT8)


@pytest.mark.parametrize("precision", _UNPACKED)
def test_a_pruned_file_shrinks_and_computes_exactly_the_same(
    pruned: FloatModel, precision: Precision
) -> None:
    dense = quantize(pruned.content, Quantization(precision=precision))
    sparse, report = encode_sparse(dense)
    assert (report.before, report.after) == (len(dense), len(sparse))
    assert len(sparse) < {Precision.FLOAT32: 0.35, Precision.FLOAT16: 0.45}.get(precision, 0.65) * len(dense)
    expected, received = pruned.outputs(dense), pruned.outputs(sparse)
    assert all((expected[name] == received[name]).all() for name in expected)
    stored = [each for each in report.weights if not each.reason]
    assert len(stored) == (
        2 if precision is Precision.WEIGHT_ONLY_INT8 else 3
    )  # the last layer is tiny in int8
    assert all(each.after < each.before and 0.75 < each.zeros < 0.85 for each in stored)
    assert "stored without their zeros" in report.sentences()[0]


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("resolver", ["AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "BUILTIN_REF"])
@pytest.mark.parametrize("precision", _UNPACKED)
def test_every_kind_of_interpreter_reads_it(
    pruned: FloatModel, precision: Precision, resolver: str, num_threads: int
) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    def outputs(content: bytes) -> Any:
        interpreter = Interpreter(
            model_content=content,
            num_threads=num_threads,
            experimental_op_resolver_type=OpResolverType[resolver],
        )
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pruned.samples[0]["image"])
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    dense = quantize(pruned.content, Quantization(precision=precision))
    np.testing.assert_array_equal(outputs(encode_sparse(dense)[0]), outputs(dense))


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.DYNAMIC_INT8])
def test_int8_weights_stay_dense_and_the_report_says_why(pruned: FloatModel, precision: Precision) -> None:
    dense = quantize(pruned.content, Quantization(precision=precision), pruned.ranges)
    content, report = encode_sparse(dense)
    assert content is dense
    assert {each.dtype for each in report.weights} == {"INT8"}
    assert all("int8 kernels" in each.reason and each.after == each.before for each in report.weights)
    assert "stored dense" in report.sentences()[0]


def test_weights_without_zeros_are_not_mentioned(convolutional: FloatModel) -> None:
    content, report = encode_sparse(convolutional.content)
    assert content is convolutional.content
    assert report.weights == ()
    assert report.sentences() == []


def test_too_few_zeros_stay_dense(with_weights: Any) -> None:
    model = with_weights(lambda kernel: kernel * (np.abs(kernel) > np.quantile(np.abs(kernel), 0.4)))
    half = quantize(model.content, Quantization(precision=Precision.FLOAT16))
    content, report = encode_sparse(half)
    assert len(content) <= len(half)
    for each in report.weights:
        assert each.reason == "" or "would take more" in each.reason
        assert each.after <= each.before


def test_encoding_twice_changes_nothing_more_and_gives_the_same_bytes(pruned: FloatModel) -> None:
    once, _ = encode_sparse(pruned.content)
    assert encode_sparse(pruned.content)[0] == once
    again, report = encode_sparse(once)
    assert again is once
    assert report.weights == ()


def test_a_sparse_file_keeps_signature_metadata_and_order(pruned: FloatModel) -> None:
    sparse, _ = encode_sparse(pruned.content)
    before, after = Model(pruned.content), Model(sparse)
    assert (before.inputs, before.outputs, before.signature_key) == (
        after.inputs,
        after.outputs,
        after.signature_key,
    )
    assert b"min_runtime_version" in sparse
    kept = [each.name for each in operations(sparse) if each.name != "DENSIFY"]
    assert kept == [each.name for each in operations(pruned.content)]
    assert sum(each.name == "DENSIFY" for each in operations(sparse)) == 3


def test_twenty_megabytes_take_seconds(keras: Any) -> None:
    from tests.convert.quantization.conftest import to_tflite

    inputs = keras.Input((2048,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(2560, name="wide")(inputs))
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * (np.abs(kernel) > np.quantile(np.abs(kernel), 0.9)), bias])
    content = to_tflite(model, ("y",))
    assert len(content) > 20_000_000
    started = time.perf_counter()
    sparse, _ = encode_sparse(content)
    assert time.perf_counter() - started < 5
    assert len(sparse) < 0.2 * len(content)
    Model(sparse)
