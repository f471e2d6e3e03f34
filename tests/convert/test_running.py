from __future__ import annotations

import numpy as np
import pytest

from convert.data import load_dataset
from convert.sources import open_source
from convert.verification import run_converted
from edge_runtime import Model, TensorSpec
from tests.convert.conftest import Digits

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("batch", [1, 4])
def test_every_sample_is_run_in_batches_of_the_models_size(digits: Digits, batch: int) -> None:
    source = open_source(digits.file)
    inputs = tuple(
        TensorSpec(spec.name, (batch, *map(int, spec.shape[1:])), spec.dtype) for spec in source.inputs
    )
    model = Model(source.export(inputs))
    data = load_dataset({"image": digits.test[:10]}, inputs)
    outputs = run_converted(model, data)
    assert list(outputs) == ["probabilities"]
    np.testing.assert_allclose(
        outputs["probabilities"], source.predict(data.inputs)["probabilities"], atol=1e-5
    )
    last = model.run({"image": data.inputs["image"][np.minimum(np.arange(8, 8 + batch), 9)]})
    np.testing.assert_array_equal(outputs["probabilities"][8], last["probabilities"][0])
    # Each call has arrays of its own.
    assert not np.shares_memory(outputs["probabilities"], run_converted(model, data)["probabilities"])
