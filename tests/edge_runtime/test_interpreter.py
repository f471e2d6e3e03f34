from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.interpreter import (
    has_resources,
    is_stateful,
    load_interpreter,
    operator_counts,
    placements,
    runtime_version,
    signature_tensors,
    signatures,
)


def _load(models: Path, name: str):  # type: ignore[no-untyped-def]
    return load_interpreter((models / f"{name}.tflite").read_bytes(), name=name)


def test_names_shapes_and_types_are_those_of_the_signature(models: Path) -> None:
    key, inputs, outputs = signature_tensors(_load(models, "any-batch"))
    assert key == "serving_default"
    assert [(each.spec.name, each.spec.shape, each.spec.dtype) for each in inputs] == [
        ("x", ("batch", 3), "float32")
    ]
    assert [each.spec.name for each in outputs] == ["y"]
    assert [spec.name for spec in signatures(_load(models, "any-batch"))[key].inputs] == ["x"]


def test_a_network_that_is_impossible_at_size_one_is_loaded_all_the_same(models: Path) -> None:
    interpreter = _load(models, "any-size")
    detail = interpreter.get_input_details()[0]
    interpreter.resize_tensor_input(detail["index"], [1, 6, 6, 3])
    interpreter.allocate_tensors()
    interpreter.set_tensor(detail["index"], np.zeros((1, 6, 6, 3), np.float32))
    interpreter.invoke()


@pytest.mark.parametrize(
    ("name", "stateful", "resources"),
    [("classifier", False, False), ("running-sum", False, False), ("counter", True, True)],
)
def test_models_that_carry_something_are_told_from_others(
    models: Path, name: str, stateful: bool, resources: bool
) -> None:
    interpreter = _load(models, name)
    assert (is_stateful(interpreter), has_resources(interpreter)) == (stateful, resources)


@pytest.mark.usefixtures("accelerated")
def test_every_operator_is_placed_once(models: Path) -> None:
    for name in ("classifier", "classifier-int8", "any-batch", "counter", "cumulative", "slow"):
        interpreter = _load(models, name)
        counts = operator_counts(interpreter)
        placed = placements(interpreter)
        assert {each.operator: each.count for each in placed} == counts
        assert all(0 <= each.accelerated <= each.count for each in placed)
        # Which others are depends on the runtime's age.
        assert any(each.accelerated for each in placed) or name not in ("classifier", "slow")


def test_what_is_no_model_is_one_clear_error() -> None:
    for content in (b"", b"TFL3", bytes(64), b"\x1c\x00\x00\x00TFL3" + bytes(64)):
        with pytest.raises(HybridgeError, match="digits") as caught:
            load_interpreter(content, name="digits")
        assert caught.value.code is ErrorCode.MODEL_INVALID


def test_the_runtime_is_named_with_its_version() -> None:
    name, version = runtime_version().split(" ")
    assert name in ("ai-edge-litert", "tflite-runtime")
    assert version[0].isdigit()
