from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from federated import Trainer, assign_weights, make_trainable, verify_trainable
from federated.samples import Samples

pytestmark = pytest.mark.tensorflow


def _stack(keras: Any, activation: str | None, *, hidden: int, last: str | None, bias: bool = True) -> Any:
    layers = keras.layers
    dense = [layers.Dense(9 - place, activation=activation, use_bias=bias) for place in range(hidden)]
    return keras.Sequential(
        [
            keras.Input((4, 3, 1)),
            layers.Rescaling(0.5, offset=-0.1),
            layers.Flatten(),
            *dense,
            layers.Dense(5, activation=last, use_bias=bias),
        ]
    )


@pytest.mark.parametrize(
    ("activation", "hidden", "last", "bias"),
    [
        (None, 0, "softmax", True),
        (None, 0, None, False),
        ("relu", 1, "softmax", True),
        ("relu", 2, None, True),
        # The converter alone would lose this relu: a matrix product with a variable and no bias.
        ("relu", 2, "softmax", False),
        ("relu6", 1, "softmax", False),
        ("leaky_relu", 2, "softmax", True),
        ("tanh", 2, "softmax", True),
        ("sigmoid", 2, None, True),
        ("silu", 1, "softmax", True),
        ("gelu", 2, "softmax", True),
        ("gelu", 1, None, False),
    ],
)
def test_the_device_trains_as_tensorflow_does(
    keras: Any, activation: str | None, hidden: int, last: str | None, bias: bool
) -> None:
    model = _stack(keras, activation, hidden=hidden, last=last, bias=bias)
    before = model.get_weights()
    content = make_trainable(model, batch_size=8)
    parity = verify_trainable(model, content, steps=20, learning_rate=0.2)
    assert max(parity.loss_error, parity.weight_error, parity.output_error) < 1e-5
    assert all((old == new).all() for old, new in zip(before, model.get_weights(), strict=True))


def test_a_functional_model_with_layers_for_activations_and_a_frozen_one_trains_as_in_tensorflow(
    keras: Any,
) -> None:
    layers = keras.layers
    image = keras.Input((2, 6))
    hidden = layers.Dense(4, activation="tanh", name="rows")(image)
    hidden = layers.ReLU()(layers.Reshape((8,))(hidden))
    hidden = layers.Dense(6, trainable=False, name="frozen")(hidden)
    hidden = layers.Dense(3)(layers.Activation("gelu")(hidden))
    model = keras.Model(image, layers.Softmax()(hidden))
    content = make_trainable(model, batch_size=4)
    verify_trainable(model, content, steps=20, learning_rate=0.2)
    assert [array.shape for _, array in sorted(Trainer(content).get_weights().items())] == [
        (4,),
        (6, 4),
        (3,),
        (6, 3),
    ]


def test_a_model_from_a_file_trains_as_in_tensorflow(keras: Any, model: Any, tmp_path: Path) -> None:
    functional = keras.Model(model.inputs, model.outputs, name="functional")
    for saved in (model, functional):
        saved.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        verify_trainable(loaded, make_trainable(loaded, batch_size=8))


def test_a_batch_that_is_not_full_counts_only_its_own_samples(
    keras: Any, model: Any, trainable: bytes, samples: Samples
) -> None:
    few = samples[slice(0, 5)]
    trainer = Trainer(trainable)
    result = trainer.train_epoch(few.x, few.y, learning_rate=0.5, rng=np.random.default_rng(0))
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = copy.train_on_batch(few.x, few.y)
    assert result.samples == 5
    assert result.loss == pytest.approx(loss, abs=1e-5)
    assert result.accuracy == pytest.approx(accuracy)
    for name, array in zip(sorted(trainer.get_weights()), [1, 0, 3, 2], strict=True):
        np.testing.assert_allclose(trainer.get_weights()[name], copy.get_weights()[array], atol=1e-5)


def test_all_operators_in_all_signatures_are_builtin(trainable: bytes) -> None:
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    parsed = flatbuffer_utils.read_model_from_bytearray(bytearray(trainable))
    assert len(parsed.subgraphs) >= 4
    for code in parsed.operatorCodes:
        assert code.customCode is None
        assert max(code.builtinCode, code.deprecatedBuiltinCode) != schema.BuiltinOperator.CUSTOM


def test_weights_go_from_keras_to_the_device_and_back_unchanged(
    keras: Any, model: Any, trainable: bytes
) -> None:
    copy = keras.models.clone_model(model)
    assign_weights(copy, Trainer(trainable).get_weights())
    assert all((a == b).all() for a, b in zip(copy.get_weights(), model.get_weights(), strict=True))
    with pytest.raises(HybridgeError) as caught:
        assign_weights(copy, {"layer0_kernel": np.zeros((6, 8), np.float32)})
    assert caught.value.code is ErrorCode.DATA_INVALID


def test_training_that_differs_from_tensorflow_is_refused(keras: Any, model: Any, trainable: bytes) -> None:
    other = keras.models.clone_model(model)
    other.set_weights([weight + 0.001 for weight in model.get_weights()])
    with pytest.raises(HybridgeError) as caught:
        verify_trainable(other, trainable)
    assert caught.value.code is ErrorCode.PARITY_FAILED
    # The same weights, another activation.
    wrong = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu6"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    wrong.set_weights([weight * 10 for weight in model.get_weights()])
    content = make_trainable(wrong, batch_size=8)
    wrong.layers[0].activation = keras.activations.relu
    with pytest.raises(HybridgeError) as caught:
        verify_trainable(wrong, content)
    assert caught.value.code is ErrorCode.PARITY_FAILED


def _unsupported(keras: Any) -> dict[str, Any]:
    layers = keras.layers
    row = keras.Input((6,))
    dense = layers.Dense(6)
    branches = layers.Add()([dense(row), row])
    return {
        "Conv2D": keras.Sequential(
            [keras.Input((8, 8, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(3)]
        ),
        "Dropout": keras.Sequential([keras.Input((6,)), layers.Dropout(0.5), layers.Dense(3)]),
        "activation elu": keras.Sequential(
            [keras.Input((6,)), layers.Dense(4, activation="elu"), layers.Dense(3)]
        ),
        "kernel_regularizer": keras.Sequential([keras.Input((6,)), layers.Dense(3, kernel_regularizer="l2")]),
        "softmax before the end": keras.Sequential(
            [keras.Input((6,)), layers.Dense(3, activation="softmax"), layers.Dense(3)]
        ),
        "last activation 'sigmoid'": keras.Sequential(
            [keras.Input((6,)), layers.Dense(3, activation="sigmoid")]
        ),
        "known input shape": keras.Sequential([layers.Dense(3)]),
        "branch, join or are shared": keras.Model(row, branches),
        "1 inputs and 2 outputs": keras.Model(row, [dense(row), branches]),
        "uint8": keras.Sequential([keras.Input((6,), dtype="uint8"), layers.Dense(3)]),
        "output of shape": keras.Sequential([keras.Input((2, 6)), layers.Dense(3)]),
        "no trainable weights": keras.Sequential([keras.Input((6,)), layers.Dense(3, trainable=False)]),
    }


def test_a_model_that_cannot_be_trained_on_devices_is_refused_with_the_reason(keras: Any) -> None:
    for reason, model in _unsupported(keras).items():
        with pytest.raises(HybridgeError) as caught:
            make_trainable(model)
        assert caught.value.code is ErrorCode.NOT_TRAINABLE
        assert reason in caught.value.message, caught.value.message


def test_every_unsupported_layer_is_named(keras: Any) -> None:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dropout(0.1, name="drop"),
            layers.LayerNormalization(name="norm"),
            layers.Dense(3),
        ]
    )
    with pytest.raises(HybridgeError, match=r"'drop' \(Dropout\), 'norm' \(LayerNormalization\)"):
        make_trainable(model)


@pytest.mark.parametrize("settings", [{"loss": "mse"}, {"optimizer": "adam"}, {"batch_size": 0}])
def test_settings_that_are_not_supported_are_refused(model: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(HybridgeError) as caught:
        make_trainable(model, **settings)
    assert caught.value.code is ErrorCode.NOT_TRAINABLE
