from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convert.data import Dataset, load_dataset, scale_warnings
from convert.data.scale_probe import probe_scale
from edge_runtime import TensorSpec

Array = np.ndarray[Any, Any]
WHOLE = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1)).astype(np.float32)


def dataset(array: Array) -> Dataset:
    array = array.astype(np.float32)
    return load_dataset({"image": array}, (TensorSpec("image", (1, *array.shape[1:]), "float32"),))


def test_datasets_on_different_scales_are_told_with_both_ranges() -> None:
    (warning,) = scale_warnings(dataset(WHOLE / 255 - 0.5), dataset((WHOLE / 255 - 0.5) * 99), None)
    assert "-0.5 to 0.5 in the representative data" in warning
    assert "-49.5 to 49.5 in the evaluation data" in warning
    (warning,) = scale_warnings(None, dataset(WHOLE / 255), dataset(WHOLE / 127.5 - 1))
    assert "0 to 1 in the evaluation data and -1 to 1 in the training data" in warning
    (warning,) = scale_warnings(dataset(WHOLE.reshape(40, 64)), dataset(WHOLE.reshape(40, 64) + 1000), None)
    assert "1000 to 1255" in warning


def test_alike_datasets_and_few_samples_are_not_warned_about() -> None:
    unit = WHOLE / 255
    assert scale_warnings(dataset(unit), dataset(unit[:20] * 0.5), dataset(unit * 2)) == []
    assert scale_warnings(dataset(unit[:3]), dataset(unit[:3] * 2 - 1), None) == []
    assert scale_warnings(None, None, None) == []


def test_bytes_as_floats_are_worth_a_mild_warning_once() -> None:
    (warning,) = scale_warnings(dataset(WHOLE), dataset(WHOLE[:20]), None)
    assert "0 to 255 as float32" in warning
    (warning,) = scale_warnings(None, dataset(WHOLE * 0.99), None)
    assert "0 to 1" in warning


def test_what_is_no_image_in_bytes_is_not() -> None:
    assert scale_warnings(dataset(WHOLE.reshape(40, 64)), None, None) == []
    assert scale_warnings(dataset(WHOLE - 128), None, None) == []
    as_bytes = load_dataset({"image": WHOLE.astype(np.uint8)}, (TensorSpec("image", (1, 8, 8, 1), "uint8"),))
    assert scale_warnings(as_bytes, None, None) == []


@pytest.fixture(scope="module", params=["keras", "tf_keras"])
def library(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


def normalized(library: Any, samples: Array, *, nested: bool = False, subclassed: bool = False) -> Any:
    """A network whose first normalisation saw these samples in training."""
    layers = library.layers
    convolution, norm = layers.Conv2D(4, 3), layers.BatchNormalization()

    class Subclassed(library.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = convolution, norm

        def call(self, inputs: Any, training: bool = False) -> Any:
            return self.norm(self.convolution(inputs), training=training)

    image = library.Input(samples.shape[1:], name="image")
    if subclassed:
        model = Subclassed()
        model(samples[:1])
    else:
        model = library.Model(image, layers.ReLU()(norm(convolution(image))))
    before = np.asarray(convolution(samples))
    norm.set_weights(
        [np.ones(4), np.zeros(4), before.mean((0, 1, 2)), before.var((0, 1, 2))],
    )
    return library.Model(image, layers.Flatten()(model(image))) if nested else model


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "kind", [{}, {"nested": True}, {"subclassed": True}], ids=["plain", "nested", "subclassed"]
)
def test_batch_normalisation_tells_what_a_model_was_trained_on(library: Any, kind: dict[str, bool]) -> None:
    wants_unit = normalized(library, WHOLE / 255, **kind)
    assert scale_warnings(dataset(WHOLE / 255), None, None, model=wants_unit) == []
    (warning,) = scale_warnings(dataset(WHOLE), None, None, model=wants_unit)
    assert "image' is 0 to 255" in warning
    assert "about 0 to 1" in warning
    wants_bytes = normalized(library, WHOLE, **kind)
    assert scale_warnings(dataset(WHOLE), None, None, model=wants_bytes) == []
    (warning,) = scale_warnings(dataset(WHOLE / 255), None, None, model=wants_bytes)
    assert "about 0 to 255" in warning


@pytest.mark.tensorflow
def test_a_model_that_scales_its_input_wants_bytes(library: Any) -> None:
    layers = library.layers
    image = library.Input((8, 8, 1), name="image")
    adapted = layers.Normalization()
    adapted.adapt(WHOLE)
    makers: tuple[Callable[[Any], Any], ...] = (
        layers.Rescaling(1 / 255),
        lambda tensor: tensor / 255.0,
        adapted,
    )
    for scaled in makers:
        model = library.Model(image, layers.Conv2D(2, 3)(scaled(image)))
        assert scale_warnings(dataset(WHOLE), None, None, model=model) == []
        (warning,) = scale_warnings(dataset(WHOLE / 255), None, None, model=model)
        assert "0 to 255" in warning


@pytest.mark.tensorflow
def test_padding_is_no_scaling(library: Any) -> None:
    layers = library.layers
    image = library.Input((8, 8, 1), name="image")
    model = library.Model(image, layers.Dense(3)(layers.Flatten()(layers.ZeroPadding2D()(image))))
    (warning,) = scale_warnings(dataset(WHOLE), None, None, model=model)
    assert "nothing in the model scales it" in warning
    assert scale_warnings(dataset(WHOLE / 255), None, None, model=model) == []


@pytest.mark.tensorflow
def test_looking_leaves_the_model_as_it_was(library: Any) -> None:
    model = normalized(library, WHOLE / 255)
    before = np.asarray(model(WHOLE[:2]))
    assert probe_scale(model, "image", WHOLE[:4]).norm_ratio == pytest.approx(255, rel=0.2)
    assert not any("call" in vars(layer) for layer in model.layers)
    np.testing.assert_array_equal(np.asarray(model(WHOLE[:2])), before)


def test_what_cannot_be_looked_into_tells_nothing() -> None:
    (warning,) = scale_warnings(dataset(WHOLE), None, None, model=object())
    assert "most networks are trained on 0 to 1" in warning
