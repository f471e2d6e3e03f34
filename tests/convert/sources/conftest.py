from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.sources import Source, open_source, pinned
from edge_runtime import HybridgeError, Model
from tests.convert.conftest import Digits

Array = np.ndarray[Any, Any]


@pytest.fixture(params=["keras", "tf_keras"])
def library(request: pytest.FixtureRequest) -> Any:
    """Keras 3 and its predecessor, one after the other."""
    return importlib.import_module(request.param)


@pytest.fixture(scope="session")
def digits_saved(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier of digits as a SavedModel of fixed sizes."""
    import tensorflow as tf

    spec = tf.TensorSpec((1, 8, 8, 1), name="image")
    call = tf.function(lambda image: {"probabilities": digits.model(image)}, input_signature=[spec])
    module = tf.Module()
    module.weights = list(call.get_concrete_function().graph.variables)
    folder = tmp_path_factory.mktemp("digits") / "saved"
    tf.saved_model.save(module, folder, signatures=call)
    return folder


@pytest.fixture(scope="session")
def digits_tflite(digits_saved: Path) -> Path:
    """The same as a float `.tflite`."""
    import tensorflow as tf

    path = digits_saved.with_name("digits.tflite")
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(digits_saved)).convert())
    return path


def exported(
    source: Source,
    *,
    inputs: list[str],
    outputs: list[str],
    batch_size: int = 1,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    tolerance: float = 1e-5,
) -> Model:
    """The source on the device's interpreter, after names, order, shapes and values were compared with the source."""
    fixed = pinned(source.inputs, batch_size, source.name, shapes)
    model = Model(source.export(fixed))
    assert model.signature_key
    assert [spec.name for spec in source.inputs] == [spec.name for spec in model.inputs] == inputs
    assert [spec.name for spec in source.outputs] == [spec.name for spec in model.outputs] == outputs
    assert [spec.shape for spec in model.inputs] == [spec.shape for spec in fixed]
    random = np.random.default_rng(0)
    rows = int(fixed[0].shape[0])
    arrays: dict[str, Array] = {}
    for spec in fixed:
        size = (3 * rows, *(int(each) for each in spec.shape[1:]))
        is_float = np.dtype(spec.dtype).kind == "f"
        values = random.normal(size=size) if is_float else random.integers(0, 2, size)
        arrays[spec.name] = values.astype(spec.dtype)
    expected = source.predict(arrays)
    runs = [
        model.run({name: array[start : start + rows] for name, array in arrays.items()})
        for start in range(0, 3 * rows, rows)
    ]
    for name in outputs:
        np.testing.assert_allclose(
            np.concatenate([run[name] for run in runs]), expected[name], atol=tolerance, rtol=tolerance
        )
        assert np.ptp(expected[name]) > 0
    return model


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    """Code and message of the error that a call must raise."""
    with pytest.raises(HybridgeError) as caught:
        call()
    return str(caught.value.code), caught.value.message


def open_refusal(source: Any, **options: Any) -> tuple[str, str]:
    """Code and message of the error that opening a source must raise."""
    return refusal(lambda: open_source(source, **options))


def export_refusal(source: Source) -> tuple[str, str]:
    """Code and message of the error that exporting a source must raise."""
    return refusal(lambda: source.export(pinned(source.inputs, 1, source.name)))


def truncated(path: Path, target: Path) -> Path:
    """A copy of a file without its second half."""
    content = path.read_bytes()
    target.write_bytes(content[: len(content) // 2])
    return target
