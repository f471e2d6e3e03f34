"""A bundle's preprocessing: from what a caller has to the tensors that the model takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.operators import Operator, find_operator
from edge_runtime.tensor_spec import Array

if TYPE_CHECKING:
    from edge_runtime.manifest import RawInput

__all__ = ["Preprocessor"]


@dataclass(frozen=True, slots=True)
class _Step:
    operator: Operator
    params: Mapping[str, Any]

    def __call__(self, array: Array) -> Array:
        result: Array = self.operator.run({self.operator.inputs[0]: array}, self.params)[
            self.operator.outputs[0]
        ]
        return result


class Preprocessor:
    """Applies the steps that a manifest lists, each an operator with one tensor in and one out.

    Args:
        raw_inputs: What each input takes and the steps that follow; an input that is not among them passes through.

    Raises:
        HybridgeError: `operator-unknown`, `chain-invalid` for a step that cannot be.

    Example:
        >>> preprocess = Preprocessor(bundle.manifest.preprocessing)
        >>> model.run(preprocess({"image": photograph}))
    """

    def __init__(self, raw_inputs: tuple[RawInput, ...]):
        self._raw = {raw.name: raw for raw in raw_inputs}
        self._steps = {raw.name: _steps(raw) for raw in raw_inputs}

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The model's tensors for one call's inputs.

        Raises:
            HybridgeError: `input-dtype` or `input-shape` for an array that is not what the manifest says.
        """
        return {name: self._prepare(name, array) for name, array in inputs.items()}

    def _prepare(self, name: str, array: Array) -> Array:
        if name not in self._raw:
            return array
        takes = self._raw[name].takes
        if not isinstance(array, np.ndarray) or not _is_of_dtype(array, takes.dtype):
            received = str(array.dtype) if isinstance(array, np.ndarray) else type(array).__name__
            raise HybridgeError(
                ErrorCode.INPUT_DTYPE,
                f"raw input '{name}'",
                received=received,
                expected=takes.dtype,
                fix="cast it",
            )
        if not takes.admits(array.shape):
            raise HybridgeError(
                ErrorCode.INPUT_SHAPE,
                f"raw input '{name}'",
                received=f"shape {array.shape}",
                expected=f"shape ({', '.join(map(str, takes.shape))})",
            )
        for step in self._steps[name]:
            array = step(array)
        return array


def _is_of_dtype(array: Array, dtype: str) -> bool:
    return array.dtype.kind == "U" if dtype == "text" else bool(array.dtype == dtype)


def _steps(raw: RawInput) -> list[_Step]:
    steps = []
    for listed in raw.steps:
        found = find_operator(listed.operator)
        if len(found.inputs) != 1 or len(found.outputs) != 1:
            raise HybridgeError(
                ErrorCode.CHAIN_INVALID,
                f"preprocessing of '{raw.name}'",
                received=f"operator '{found.name}' with {len(found.inputs)} inputs and {len(found.outputs)} outputs",
                expected="operators with one of each",
                fix="make it a stage of a chain",
            )
        found.check_params(listed.params)
        steps.append(_Step(found, listed.params))
    return steps
