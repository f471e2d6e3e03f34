"""From a Keras model to a float `.tflite` of builtin operators, with names and order kept.

The way is `keras.export.ExportArchive` with a signature that names its tensors, then the converter for saved models:
`TFLiteConverter.from_keras_model` loses the names of outputs and fails on dictionary inputs and on recurrent layers of
unknown batch size.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from convert.quantization.flatbuffer import in_order
from convert.libraries import load_library
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["SIGNATURE_KEY", "export_keras", "pinned"]

SIGNATURE_KEY = "serving_default"

# Names of a TensorFlow signature; others are changed on the way.
_SIGNATURE_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.-]*")

# How the converter names an operator for which it would need TensorFlow's own kernels ("Flex"), or none.
_NOT_BUILTIN = re.compile(r"'(tf\.\w+)' op is neither a custom op nor a flex op")


def pinned(
    inputs: tuple[TensorSpec, ...],
    batch_size: int,
    name: str,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> tuple[TensorSpec, ...]:
    """The inputs with every dimension fixed: those in `shapes` as it says, else the first one at `batch_size`.

    Args:
        inputs: What the model takes.
        batch_size: Size of the first dimension.
        name: What to call the model in errors.
        shapes: Whole shapes, the batch included, by name of the input.

    Raises:
        HybridgeError: `source-invalid` for another dimension that may vary, a batch that is fixed at another size, or a
            name that a signature cannot have.
    """
    return tuple(_pinned(spec, batch_size, name) for spec in inputs)


def _pinned(spec: TensorSpec, batch_size: int, name: str) -> TensorSpec:
    what = f"input '{spec.name}' of source model '{name}'"
    shape = f"shape ({', '.join(map(str, spec.shape))})"
    if not _SIGNATURE_NAME.fullmatch(spec.name):
        raise HybridgeError(
            ErrorCode.SOURCE_INVALID,
            what,
            received="a name that a signature cannot have",
            expected="letters, digits and . _ -, beginning with a letter or digit",
            fix="rename the input layer",
        )
    if any(isinstance(size, str) for size in spec.shape[1:]):
        raise HybridgeError(
            ErrorCode.SOURCE_INVALID,
            what,
            received=shape,
            expected="fixed sizes after the batch",
            fix="rebuild it with a keras.Input of fixed size, such as keras.Input((224, 224, 3)), and set_weights",
        )
    if not spec.shape or spec.shape[0] not in ("batch", batch_size):
        raise HybridgeError(
            ErrorCode.SOURCE_INVALID,
            what,
            received=shape,
            expected=f"a first dimension that is the batch, of size {batch_size}",
            fix="convert it with the batch size that it has (--batch-size)",
        )
    return replace(spec, shape=(batch_size, *spec.shape[1:]))


def export_keras(
    model: Any,
    call: Callable[[Mapping[str, Any]], dict[str, Any]],
    inputs: tuple[TensorSpec, ...],
    output_names: tuple[str, ...],
    name: str,
) -> bytes:
    """Traces `call` and converts it.

    Args:
        model: The model whose variables `call` uses.
        call: The model as a function of named tensors.
        inputs: What it takes, every size fixed.
        output_names: Names of what it returns, in the order that the file shall have.
        name: What to call the model in errors.

    Raises:
        HybridgeError: `conversion-failed`, naming the operators that no device runtime has.
    """
    tensorflow, keras = load_library("tensorflow"), load_library("keras")
    signature = [tensorflow.TensorSpec(spec.shape, spec.dtype, name=spec.name) for spec in inputs]

    @tensorflow.function(input_signature=signature, autograph=False)  # type: ignore[untyped-decorator]
    def serve(*tensors: Any) -> dict[str, Any]:
        return call({spec.name: tensor for spec, tensor in zip(inputs, tensors, strict=True)})

    try:
        with tempfile.TemporaryDirectory(prefix="hybridge-") as folder:
            archive = keras.export.ExportArchive()
            archive.track(model)
            archive.add_endpoint(SIGNATURE_KEY, serve)
            archive.write_out(folder, verbose=False)
            content = _convert_saved_model(tensorflow, folder)
    except Exception as error:
        # The converter and the layers it traces raise whatever they like; all of it means the same here.
        raise _failed(error, name) from error
    return in_order(content, tuple(spec.name for spec in inputs), output_names)


def _convert_saved_model(tensorflow: Any, folder: str) -> bytes:
    converter = tensorflow.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE_KEY])
    converter.target_spec.supported_ops = [tensorflow.lite.OpsSet.TFLITE_BUILTINS]
    content: bytes = converter.convert()
    return content


def _failed(error: Exception, name: str) -> HybridgeError:
    operators = sorted(set(_NOT_BUILTIN.findall(str(error))))
    if operators:
        return HybridgeError(
            ErrorCode.CONVERSION_FAILED,
            f"source model '{name}'",
            received=f"the operators {', '.join(operators)}",
            expected="operators that the TFLite runtime has builtin",
            fix="replace them in the model, or leave that part to a chain's operator",
        )
    lines = str(error).strip().splitlines()
    return HybridgeError(
        ErrorCode.CONVERSION_FAILED,
        f"source model '{name}'",
        received=f"{type(error).__name__}: {lines[0] if lines else 'no message'}",
        expected="a model that the TFLite converter can trace",
        fix="check that it runs in inference on its own",
    )
