"""Random inputs for a model whose data is not at hand."""

from __future__ import annotations

import numpy as np

from convert.data.dataset import Dataset, invalid
from convert.data.given import Given
from convert.data.preparation import prepared, sample_shapes
from edge_runtime.manifest import RawInput
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["generate"]


def generate(
    inputs: tuple[TensorSpec, ...], samples: int, preprocessing: tuple[RawInput, ...] = (), *, seed: int = 0
) -> Dataset:
    """Random inputs for a model whose data is not at hand, the same for the same seed.

    Floats are standard normal; bytes have their whole range; other integers are 0 or 1, which every vocabulary has.

    Args:
        inputs: What the model takes; the first dimension is the batch.
        samples: How many.
        preprocessing: As for `load_dataset`; a raw input whose size may vary is generated as the model takes it.
        seed: Of the generator.

    Raises:
        HybridgeError: `data-invalid` for a type that cannot be generated, such as text, or for preprocessing that
            does not make what the model takes.
    """
    random = np.random.default_rng(seed)
    used = tuple(each for each in preprocessing if not each.takes.is_dynamic)
    raw = {each.name: each.takes for each in used}
    made: dict[str, Array] = {}
    for spec in inputs:
        takes = raw.get(spec.name, spec)
        size = tuple(
            int(each) for each in (samples, *sample_shapes(takes, inputs, is_raw=spec.name in raw)[0])
        )
        made[spec.name] = _random_array(random, takes, size)
    arrays, digest = prepared(Given("generated data", made, None, {}), None, inputs, used)
    return Dataset(arrays, None, digest)


def _random_array(random: np.random.Generator, spec: TensorSpec, size: tuple[int, ...]) -> Array:
    if spec.dtype.startswith(("float", "bfloat")):
        return random.standard_normal(size).astype(spec.dtype)
    if spec.dtype.startswith(("int", "uint", "bool")):
        return random.integers(0, 256 if spec.dtype == "uint8" else 2, size).astype(spec.dtype)
    raise invalid(
        "generated data",
        received=f"input '{spec.name}' of type {spec.dtype}",
        expected="floats, integers or booleans",
        fix="give real data to compare the models on",
    )
