"""Keras models and SavedModels behind the endpoint's protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_fallback import Repository
from cloud_fallback.endpoint.served import Batching
from edge_runtime import ErrorCode, HybridgeError

pytestmark = pytest.mark.tensorflow

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def keras_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A file with a model of two inputs and two outputs, and the model."""
    import keras

    keras.utils.set_random_seed(3)
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    joined = keras.layers.Concatenate()([left, right])
    model = keras.Model(
        [left, right],
        [keras.layers.Dense(2, name="small")(joined), keras.layers.Dense(5, name="large")(joined)],
    )
    path = tmp_path_factory.mktemp("keras") / "two.keras"
    model.save(path)
    return path, model


def _inputs(rows: int = 2) -> dict[str, Array]:
    rng = np.random.default_rng(rows)
    return {
        "left": rng.random((rows, 4), dtype=np.float32),
        "right": rng.random((rows, 3), dtype=np.float32),
    }


def test_a_keras_model_answers_by_the_names_of_its_layers(keras_model: tuple[Path, Any]) -> None:
    path, model = keras_model
    served = Repository.load([path]).find("two")
    assert [(spec.name, spec.shape) for spec in served.inputs] == [
        ("left", ("batch", 4)),
        ("right", ("batch", 3)),
    ]
    assert [spec.name for spec in served.outputs] == ["small", "large"]
    inputs = _inputs()
    answer = served.infer(inputs)
    for name, expected in zip(("small", "large"), model([inputs["left"], inputs["right"]]), strict=True):
        np.testing.assert_allclose(answer[name], expected, rtol=1e-5)


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_sequence_of_layers_is_served(tmp_path: Path, suffix: str) -> None:
    import keras

    keras.utils.set_random_seed(4)
    layers = [keras.layers.Dense(5, activation="relu"), keras.layers.Dense(2, name="scores")]
    model = keras.Sequential([keras.Input((4,), name="x"), *layers])
    model.save(tmp_path / f"steps.{suffix}")
    served = Repository.load([tmp_path]).find("steps")
    (given,), (gives,) = served.inputs, served.outputs
    assert (given.shape, gives.name, gives.shape) == (("batch", 4), "scores", ("batch", 2))
    x = np.random.default_rng(0).random((3, 4), dtype=np.float32)
    np.testing.assert_allclose(served.infer({given.name: x})["scores"], model(x), rtol=1e-5)


def test_a_saved_model_answers_by_the_names_of_its_signature(
    keras_model: tuple[Path, Any], tmp_path: Path
) -> None:
    _, model = keras_model
    model.export(tmp_path / "models" / "two" / "3", verbose=False)
    served = Repository.load([tmp_path / "models"], batching=Batching(max_batch_size=8)).find("two", "3")
    assert served.platform == "tensorflow_savedmodel"
    inputs = _inputs(3)
    given = dict(zip([spec.name for spec in served.inputs], inputs.values(), strict=True))
    answers = list(served.infer(given).values())
    for expected in model([inputs["left"], inputs["right"]]):
        assert any(a.shape == expected.shape and np.allclose(a, expected, rtol=1e-5) for a in answers)


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"left": np.zeros((1, 4), np.float32)}, ErrorCode.INPUT_MISSING),
        ({**_inputs(), "more": np.zeros(1)}, ErrorCode.INPUT_UNKNOWN),
        ({**_inputs(), "left": np.zeros((2, 4))}, ErrorCode.INPUT_DTYPE),
        ({**_inputs(), "left": np.zeros((2, 5), np.float32)}, ErrorCode.INPUT_SHAPE),
        ({**_inputs(), "left": np.zeros((3, 4), np.float32)}, ErrorCode.INVOKE_FAILED),
    ],
)
def test_what_it_does_not_take_is_refused(
    keras_model: tuple[Path, Any], inputs: dict[str, Array], code: ErrorCode
) -> None:
    served = Repository.load([keras_model[0]]).find("two")
    with pytest.raises(HybridgeError) as caught:
        served.infer(inputs)
    assert caught.value.code is code


def test_rubbish_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "rubbish.keras").write_bytes(b"rubbish")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"rubbish")
    for path in (tmp_path / "rubbish.keras", tmp_path / "saved"):
        with pytest.raises(HybridgeError) as caught:
            Repository.load([path])
        assert caught.value.code is ErrorCode.MODEL_INVALID
