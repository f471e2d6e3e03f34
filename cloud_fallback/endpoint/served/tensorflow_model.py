"""A Keras model or a SavedModel, served by TensorFlow, which the extra ``convert`` installs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from cloud_fallback.endpoint.served.model_queue import Batching, ModelQueue, can_batch
from cloud_fallback.endpoint.served.served_model import Then, TimeLeft, no_limit
from cloud_fallback.open_inference.tensors import datatype
from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra
from edge_runtime.files import read_file
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["TensorflowModel"]

_VERSION = "1"
_SIGNATURE = "serving_default"


class TensorflowModel:
    """A function of TensorFlow on named tensors; make one with `from_keras` or `from_saved_model`.

    Args:
        name: What requests call it.
        version: Its version.
        platform: Its format, as the protocol spells it.
        function: Takes and gives tensors by name.
        inputs: What it takes.
        outputs: What it gives.
        instances: Runs that may be under way at once, all on one copy of the weights.
        batching: How requests are run together.
    """

    def __init__(
        self,
        name: str,
        version: str,
        platform: str,
        function: Callable[..., Mapping[str, Any]],
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        instances: int,
        batching: Batching,
    ):
        self.name, self.version, self.platform = name, version, platform
        self.inputs, self.outputs = inputs, outputs
        for spec in (*inputs, *outputs):
            datatype(spec.dtype)
        self._by_name = {spec.name: spec for spec in inputs}
        self.queue = ModelQueue(
            name,
            [function] * instances,
            self._run,
            batching=batching,
            batchable=can_batch(inputs, outputs),
        )

    @classmethod
    def from_keras(
        cls,
        path: str | PathLike[str],
        *,
        name: str | None = None,
        version: str | None = None,
        instances: int = 1,
        num_threads: int = 1,  # noqa: ARG003 - TensorFlow's threads are those of the process
        batching: Batching = Batching(),  # noqa: B008 - it is frozen
    ) -> TensorflowModel:
        """A model in a `.keras` or `.h5` file, with the names that its layers give to inputs and outputs.

        Raises:
            HybridgeError: `file-not-found`, `extra-missing`, `model-invalid`.
        """
        read_file(path)
        tensorflow = _tensorflow()
        title = name or Path(path).stem
        try:
            model = tensorflow.keras.models.load_model(path, compile=False)
            if isinstance(model, tensorflow.keras.Sequential):
                # It has no names for its outputs; the same layers as a function of its input do.
                model = tensorflow.keras.Model(model.inputs, model.outputs)
            takes = {tensor.name.partition(":")[0]: tensor for tensor in model.inputs}
            gives = dict(zip(model.output_names, model.outputs, strict=True))
        # Keras raises whatever a layer's code does.
        except Exception as error:
            raise _invalid(title, error, "a Keras model of functional or sequential form") from error
        compiled = tensorflow.function(model)

        def run(**tensors: Any) -> Mapping[str, Any]:
            given = [tensors[each] for each in takes]
            results = compiled(given[0] if len(given) == 1 else given)
            if isinstance(results, Mapping):
                return results
            listed = results if isinstance(results, list | tuple) else [results]
            return dict(zip(gives, listed, strict=True))

        return cls(
            title,
            version or _VERSION,
            "tensorflow_keras",
            run,
            tuple(_spec(each, tensor.shape, tensor.dtype) for each, tensor in takes.items()),
            tuple(_spec(each, tensor.shape, tensor.dtype) for each, tensor in gives.items()),
            instances=instances,
            batching=batching,
        )

    @classmethod
    def from_saved_model(
        cls,
        path: str | PathLike[str],
        *,
        name: str | None = None,
        version: str | None = None,
        instances: int = 1,
        num_threads: int = 1,  # noqa: ARG003 - TensorFlow's threads are those of the process
        batching: Batching = Batching(),  # noqa: B008 - it is frozen
    ) -> TensorflowModel:
        """A SavedModel's signature `serving_default`, with its names.

        Raises:
            HybridgeError: `file-not-found`, `extra-missing`, `model-invalid`.
        """
        read_file(Path(path) / "saved_model.pb")
        tensorflow = _tensorflow()
        title = name or Path(path).name
        try:
            loaded = tensorflow.saved_model.load(str(path))
            function = loaded.signatures[_SIGNATURE]
        except Exception as error:
            raise _invalid(title, error, f"a SavedModel with a signature '{_SIGNATURE}'") from error

        def run(**tensors: Any) -> Mapping[str, Any]:
            # A signature's variables live as long as what was loaded.
            assert loaded is not None  # noqa: S101 - holds on to it
            results: Mapping[str, Any] = function(**tensors)
            return results

        takes = function.structured_input_signature[1]
        return cls(
            title,
            version or _VERSION,
            "tensorflow_savedmodel",
            run,
            tuple(_spec(each, spec.shape, spec.dtype.name) for each, spec in sorted(takes.items())),
            tuple(
                _spec(each, spec.shape, spec.dtype.name)
                for each, spec in sorted(function.structured_outputs.items())
            ),
            instances=instances,
            batching=batching,
        )

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:
        """Runs the model once; see `ServedModel`."""
        self._check(inputs)
        return self.queue.infer(inputs, time_left)

    def begin(self, inputs: Mapping[str, Array], time_left: TimeLeft, then: Then) -> None:
        """`infer` for a caller who does not wait; see `ServedModel`."""
        self._check(inputs)
        self.queue.begin(inputs, time_left, then)

    def _check(self, inputs: Mapping[str, Array]) -> None:
        if inputs.keys() != self._by_name.keys():
            raise HybridgeError(
                ErrorCode.INPUT_MISSING if self._by_name.keys() - inputs.keys() else ErrorCode.INPUT_UNKNOWN,
                f"inputs of model '{self.name}'",
                received=", ".join(inputs) or "none",
                expected=", ".join(self._by_name),
            )
        for name, array in inputs.items():
            self._check_one(self._by_name[name], array)

    def _check_one(self, spec: TensorSpec, array: Array) -> None:
        what = f"input '{spec.name}' of model '{self.name}'"
        if datatype(array.dtype) != datatype(spec.dtype):
            raise HybridgeError(
                ErrorCode.INPUT_DTYPE, what, received=datatype(array.dtype), expected=datatype(spec.dtype)
            )
        if not spec.admits(array.shape):
            raise HybridgeError(
                ErrorCode.INPUT_SHAPE,
                what,
                received=f"shape {array.shape}",
                expected=f"shape ({', '.join(map(str, spec.shape))})",
            )

    def _run(
        self, function: Callable[..., Mapping[str, Any]], inputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        tensorflow = _tensorflow()
        try:
            results = function(
                **{name: tensorflow.convert_to_tensor(array) for name, array in inputs.items()}
            )
            return {spec.name: np.asarray(results[spec.name]) for spec in self.outputs}
        # TensorFlow's errors have no base of their own.
        except Exception as error:
            raise HybridgeError(
                ErrorCode.INVOKE_FAILED, f"model '{self.name}'", received=str(error).strip()[:500]
            ) from error


def _spec(name: str, shape: Any, dtype: str) -> TensorSpec:
    if shape.rank is None if hasattr(shape, "rank") else False:
        raise HybridgeError(
            ErrorCode.MODEL_INVALID,
            f"tensor '{name}'",
            received="a shape of unknown rank",
            expected="known axes",
        )
    sizes = tuple("batch" if axis == 0 else f"dim{axis}" for axis in range(len(shape)))
    free = tuple(free if size is None else int(size) for free, size in zip(sizes, shape, strict=True))
    return TensorSpec(name, free, dtype)


def _invalid(name: str, error: Exception, expected: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.MODEL_INVALID,
        f"model '{name}'",
        received=f"{type(error).__name__}: {str(error).strip()[:500]}",
        expected=expected,
    )


def _tensorflow() -> Any:
    # Its C++ logs say what processor it was built for, at every start.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow
    except ModuleNotFoundError as error:
        raise missing_extra("convert", error.name or "tensorflow") from error
    return tensorflow
