"""Running an operator as a chain does, with what it takes and gives held against its declaration."""

from __future__ import annotations

import inspect
from typing import Any

from edge_runtime.operators import find_operator
from edge_runtime.tensor_spec import Value
from edge_runtime.tensor_type import Bindings, TensorType


def run(name: str, *tensors: Any, **params: Any) -> dict[str, Any]:
    """Results of the operator of that name; fails when its types are not as it declares them."""
    found = find_operator(name)
    found.check_params(params)
    inputs = dict(zip(found.inputs, tensors, strict=True))
    results = dict(found.run(inputs, params))
    defaults = {key: value for key, value in found.settings.items() if value is not inspect.Parameter.empty}
    bindings = Bindings({**defaults, **params})
    for declared, values in ((found.takes, inputs), (found.gives, results)):
        for key, value in values.items():
            for given in _types(value):
                assert (why := bindings.mismatch(declared[key], given)) is None, f"{name} {key}: {why}"
    return results


def _types(value: Value) -> list[TensorType]:
    if isinstance(value, list):
        return [TensorType(_dtype(item), item.shape, items=True) for item in value]
    return [TensorType(_dtype(value), value.shape, items=False)]


def _dtype(array: Any) -> str:
    return "text" if array.dtype.kind == "U" else array.dtype.name
