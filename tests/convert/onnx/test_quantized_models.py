"""What onnxruntime's quantiser writes becomes a file of integers with the same scales."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.sources import open_source, pinned
from edge_runtime.model import Model
from tests.convert.onnx.models import convnet, saved


class _Images:
    """Calibration data as onnxruntime takes it."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self._left = [{"image": random.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(16)]

    def get_next(self) -> Any:
        return self._left.pop() if self._left else None


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_quantised_model_is_computed_in_int8(form: str, per_channel: bool, tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    path, target = saved(convnet(opset=13), tmp_path / "float.onnx"), tmp_path / "int8.onnx"
    quantize_static(
        path, target, _Images(), quant_format=QuantFormat[form], per_channel=per_channel,
        activation_type=QuantType.QUInt8 if form == "QOperator" else QuantType.QInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    source = open_source(target)
    content = source.export(pinned(source.inputs, 1, source.name, {"image": (1, 3, 16, 16)}))
    device = Model(content)
    interpreter: Any = device._idle[0].interpreter
    tensors = {each["index"]: each for each in interpreter.get_tensor_details()}
    operators = [each for each in interpreter._get_ops_details() if "CONV_2D" in each["op_name"]]
    assert len(operators) >= 3
    for each in operators:
        for index in each["inputs"][:2]:
            assert tensors[index]["dtype"] == np.int8, each
    random = np.random.default_rng(1)
    for _ in range(4):
        image = {"image": random.normal(size=(1, 3, 16, 16)).astype(np.float32)}
        expected, received = source.predict(image), device.run(image)
        for name, array in expected.items():
            # Some steps of the output's 256.
            np.testing.assert_allclose(received[name], array, atol=4 * max(np.ptp(array), 0.1) / 255)
