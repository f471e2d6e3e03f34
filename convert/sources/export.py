"""From a TensorFlow function to a `.tflite` of builtin operators, with names and order kept.

The way is a saved model with one signature that names its tensors, then the converter for saved models:
`TFLiteConverter.from_keras_model` loses the names of outputs and fails on dictionary inputs and on recurrent layers of
unknown batch size, and `from_concrete_functions` can convert weights that were never set.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from convert.libraries import load_library
from convert.quantization.flatbuffer import in_order
from convert.quantization.packing import pack, unpack
from convert.sources.kept_state import check_stateless, is_marked, refuse_state, remove_marks
from convert.sources.lost_activation import RECTIFIERS, has_suspects, lift_products, refuse_suspects
from convert.sources.swapped_operands import keep_operands, may_swap
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["SIGNATURE_KEY", "export_function"]

SIGNATURE_KEY = "serving_default"

# What stands for quantised tensors in a graph of TensorFlow.
_FAKE_QUANTIZERS = frozenset(
    {"FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel"}
)

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

# How the converter names an operator for which it would need TensorFlow's own kernels ("Flex"), or none.
_NOT_BUILTIN = re.compile(r"'(tf\.\w+)' op is neither a custom op nor a flex op")

# What TensorFlow and the system say of a disk that takes no more.
_FULL_DISK = re.compile(r"No space left on device|File too large|Disk quota exceeded")


def export_function(
    call: Callable[[Mapping[str, Any]], dict[str, Any]],
    inputs: tuple[TensorSpec, ...],
    output_names: tuple[str, ...],
    name: str,
    *,
    quantized: bool = False,
) -> bytes:
    """Traces `call` and converts it, its variables frozen.

    Args:
        call: The model as a function of named tensors.
        inputs: What it takes; a size that is a name stays free.
        output_names: Names of what it returns, in the order that the file shall have.
        name: What to call the model in errors.
        quantized: Whether operators between fake-quantised tensors shall compute on integers.

    Raises:
        HybridgeError: `conversion-failed`, naming the operators that no device runtime has, or for products whose
            activation the converter would lose; `source-invalid` for a model that changes its variables as it runs.
    """
    tensorflow = load_library("tensorflow")
    given = {**_plain(tuple(spec.name for spec in inputs), "input"), **_plain(output_names, "output")}
    signature = [
        tensorflow.TensorSpec(
            [size if isinstance(size, int) else None for size in spec.shape],
            spec.dtype,
            name=given[spec.name],
        )
        for spec in inputs
    ]

    @tensorflow.function(input_signature=signature, autograph=False)  # type: ignore[untyped-decorator]
    def serve(*tensors: Any) -> dict[str, Any]:
        outputs = call({spec.name: tensor for spec, tensor in zip(inputs, tensors, strict=True)})
        return {given[key]: tensor for key, tensor in outputs.items()}

    single = all(spec.shape[:1] in ((), (1,)) for spec in inputs)
    try:
        traced = serve.get_concrete_function()
        definition = traced.graph.as_graph_def()
        operators = _operators(definition)
        check_stateless(operators, name)
        rectifies = bool(operators & RECTIFIERS)
        with tempfile.TemporaryDirectory(prefix="hybridge-") as folder:
            # All that the signature reads, and nothing else: saving a model whole traces it once more for each layer.
            module = tensorflow.Module()
            module.weights = list(traced.graph.variables)
            tensorflow.saved_model.save(module, folder, signatures={SIGNATURE_KEY: serve})
            if is_marked(definition):
                remove_marks(folder)
            if may_swap(operators):
                keep_operands(folder)
            # Without a fake-quantised tensor the converter would quantise weights of its own accord.
            quantized = quantized and bool(operators & _FAKE_QUANTIZERS)
            content = _convert_saved_model(tensorflow, folder, single, quantized=quantized)
            if rectifies and has_suspects(content):
                lift_products(folder)
                content = _convert_saved_model(tensorflow, folder, single, quantized=quantized)
    except HybridgeError:
        raise
    except Exception as error:
        # The converter and the layers it traces raise whatever they like; all of it means the same here.
        raise _failed(error, name) from error
    refuse_state(content, name)
    if rectifies:
        refuse_suspects(content, name)
    content = _renamed(content, given)
    return in_order(content, tuple(spec.name for spec in inputs), output_names)


def _plain(names: tuple[str, ...], kind: str) -> dict[str, str]:
    """Names that TensorFlow takes for signatures as they are; those that it would change get one for their place."""
    if all(_IDENTIFIER.fullmatch(name) for name in names):
        return {name: name for name in names}
    return {name: f"{kind}_{index}" for index, name in enumerate(names)}


def _renamed(content: bytes, given: Mapping[str, str]) -> bytes:
    """The file with the model's own names in its signature."""
    own = {plain: name for name, plain in given.items() if plain != name}
    if not own:
        return content
    model = unpack(content)
    for signature in model.signatureDefs:
        for tensor in (*signature.inputs, *signature.outputs):
            tensor.name = own.get(tensor.name.decode(), tensor.name.decode()).encode()
    return pack(model)


def _operators(definition: Any) -> frozenset[str]:
    bodies = [definition.node, *(function.node_def for function in definition.library.function)]
    return frozenset(node.op for body in bodies for node in body)


def _convert_saved_model(tensorflow: Any, folder: str, single: bool, *, quantized: bool) -> bytes:
    converter = tensorflow.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE_KEY])
    converter.target_spec.supported_ops = [tensorflow.lite.OpsSet.TFLITE_BUILTINS]
    # The loop of a recurrent layer that was saved for any batch size does not learn that the inputs' is fixed now.
    if quantized:
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
    converter._experimental_default_to_single_batch_in_tensor_list_ops = single
    # Else every infinite constant becomes the largest finite number, and what is compared with it or returned is wrong.
    converter.canonicalizing_inf_as_min_max_float = False
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
    if full := _FULL_DISK.search(str(error)):
        return HybridgeError(
            ErrorCode.FILE_UNWRITABLE,
            f"copy of source model '{name}' in the folder for temporary files",
            received=full[0],
            expected="space for the model",
            fix="free some, or name another folder in the environment variable TMPDIR",
        )
    if "untracked" in str(error):
        return HybridgeError(
            ErrorCode.CONVERSION_FAILED,
            f"source model '{name}'",
            received="a lookup table or another resource that is no variable",
            expected="variables and operators only",
            fix="look words or keys up before the model, and give it their indices",
        )
    if "Lowering tensor list ops" in str(error):
        return HybridgeError(
            ErrorCode.CONVERSION_FAILED,
            f"source model '{name}'",
            received="a loop, such as a recurrent layer's, that was saved for any batch size",
            expected="a batch size of 1, or one that is fixed inside the model",
            fix="convert with a batch size of 1, or save the model with a fixed one",
        )
    lines = str(error).strip().splitlines()
    return HybridgeError(
        ErrorCode.CONVERSION_FAILED,
        f"source model '{name}'",
        received=f"{type(error).__name__}: {lines[0] if lines else 'no message'}",
        expected="a model that the TFLite converter can trace",
        fix="check that it runs in inference on its own",
    )
