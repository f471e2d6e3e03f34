"""Which layers suffer from quantising, and what their values look like."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convert.quantization import activation_ranges, coverage, mixed, quantize, rank_layers, weight_ranges
from convert.recipes import Precision, Quantization
from tests.convert.quantization.conftest import FloatModel, snr_db

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def uneven(with_weights: Any) -> FloatModel:
    """The middle layer has one weight that leaves the others of its channel no steps."""

    def change(kernel: Any) -> Any:
        if kernel.shape[-1] == 64:
            kernel[0, :] *= 1000
        return kernel

    return with_weights(change)  # type: ignore[no-any-return]


def test_the_layer_that_was_spoiled_comes_first(uneven: FloatModel) -> None:
    done: list[tuple[int, int]] = []
    ranked = rank_layers(
        uneven.content,
        uneven.samples,
        uneven.ranges,
        precision=Precision.WEIGHT_ONLY_INT8,
        scores="scores",
        progress=lambda *counts: done.append(counts),
    )
    assert [each.operator for each in ranked] == ["FULLY_CONNECTED", "FULLY_CONNECTED", "CONV_2D"] or len(
        ranked
    ) == 3
    assert "wide" in ranked[0].layer
    assert ranked[0].snr_db is not None
    assert ranked[1].snr_db is not None
    assert ranked[0].snr_db < ranked[1].snr_db - 6
    assert all(each.agreement is not None and 0 <= each.agreement <= 1 for each in ranked)
    assert all(each.quantized_bytes * 4 == each.float_bytes for each in ranked)
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_operators_without_weights_are_ranked_for_int8(attentive: FloatModel) -> None:
    ranked = rank_layers(attentive.content, attentive.samples, attentive.ranges)
    operators = {each.operator for each in ranked}
    assert {"SOFTMAX", "ADD", "FULLY_CONNECTED"} <= operators
    assert "RESHAPE" not in operators
    numbers = [each.snr_db for each in ranked if each.snr_db is not None]
    assert numbers == sorted(numbers)
    assert len({(each.operator, each.layer) for each in ranked}) == len(ranked)


def test_keeping_the_most_sensitive_layer_float_helps(uneven: FloatModel) -> None:
    ranked = rank_layers(uneven.content, uneven.samples, uneven.ranges, precision=Precision.WEIGHT_ONLY_INT8)
    base = Quantization(precision=Precision.WEIGHT_ONLY_INT8)
    lost = []
    for keep in range(3):
        quantization = mixed(ranked, base, keep)
        content = quantize(uneven.content, quantization)
        assert sum(coverage(content, quantization).left_float.values()) == keep
        lost.append(snr_db(uneven.outputs(), uneven.outputs(content)))
    assert lost[0] + 3 < lost[1] <= lost[2]


def test_from_int4_the_most_sensitive_layer_goes_to_int8(convolutional: FloatModel) -> None:
    ranked = rank_layers(convolutional.content, convolutional.samples[:8], None, precision=Precision.INT4)
    quantization = mixed(ranked, Quantization(precision=Precision.INT4), 1)
    found = coverage(quantize(convolutional.content, quantization), quantization)
    plain = coverage(quantize(convolutional.content, Quantization(precision=Precision.INT4)), quantization)
    assert found.weight_bytes["INT4"] < plain.weight_bytes["INT4"]
    assert found.left_float == {}


def test_weight_ranges_show_what_spoils_a_layer(uneven: FloatModel) -> None:
    ranges = {each.layer.split("/")[-2]: each for each in weight_ranges(uneven.content)}
    assert set(ranges) == {"conv_1", "wide_1", "head_1"}
    wide = ranges["wide_1"]
    assert wide.minimum < wide.p1 < wide.p99 < wide.maximum
    assert wide.maximum > 50 * wide.p99
    assert sum(wide.histogram) == 8 * 8 * 32 * 64
    assert len(wide.histogram) == 40
    assert ranges["conv_1"].channel_spread < 3


def test_activation_ranges_are_those_of_the_calibration(convolutional: FloatModel) -> None:
    ranges = activation_ranges(convolutional.content, convolutional.samples)
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"} <= {each.operator for each in ranges}
    known = list(convolutional.ranges.bounds.values())
    for each in ranges:
        assert any(
            np.allclose((each.minimum, each.maximum), bounds, rtol=1e-4, atol=1e-5) for bounds in known
        )
        assert each.minimum <= each.p1 <= each.p99 <= each.maximum
        assert each.channel_spread >= 1
