"""Reading a `.tflite` file itself: its operators in all graphs, the types they compute in, its signature's order.

The interpreter shows only the main graph, with delegates in place; loops such as those of recurrent layers are graphs
of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from convert.libraries import load_library

__all__ = [
    "Operation",
    "Weight",
    "builtin_names",
    "in_order",
    "layer_names",
    "operations",
    "schema",
    "type_names",
]

# Types in which a model's numbers are stored; other constants are shapes, axes and indices.
_NUMBERS = frozenset({"FLOAT32", "FLOAT16", "BFLOAT16", "INT16", "INT8", "UINT8", "INT4", "INT2"})
# Operators that unpack a constant before another reads it.
_UNPACKING = ("DEQUANTIZE", "DENSIFY")


@dataclass(frozen=True)
class Weight:
    """A constant of two or more dimensions that an operator computes with.

    Attributes:
        name: Of its tensor.
        dtype: The type it is stored in, seen through a `DEQUANTIZE` or `DENSIFY`.
        shape: Its dimensions.
        size: Bytes of its data.
        position: Which input of the operator it is.
        unpacked: Whether it is dequantised before the operator reads it.
        blockwise: Whether it has a scale for each block of a row.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    position: int
    unpacked: bool = False
    blockwise: bool = False


@dataclass(frozen=True)
class Operation:
    """One operator in a graph.

    Attributes:
        name: The builtin operator's name, such as ``CONV_2D``; for a custom one ``CUSTOM`` and its own name.
        graph: Index of its graph.
        index: Its place in the graph.
        main: Whether that is the graph of the file's first signature.
        inputs: Names of the tensors it reads.
        outputs: Names of the tensors it makes.
        constants: Names of the constants among what it reads.
        weights: The constants it computes with.
        activations: Types of what else it reads and makes.
        is_newer_than_tflite: Whether tflite-runtime 2.14 does not know the operator; its last is ``RIGHT_SHIFT``.
    """

    name: str
    graph: int
    index: int
    main: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: tuple[str, ...]
    weights: tuple[Weight, ...]
    activations: frozenset[str]
    is_newer_than_tflite: bool = False

    @property
    def computes_float(self) -> bool:
        """Whether any tensor it reads or makes is float."""
        return "FLOAT32" in self.activations or any(
            weight.dtype == "FLOAT32" or weight.unpacked for weight in self.weights
        )

    @property
    def scope(self) -> str:
        """What litert-quantizer's own rules match."""
        return "".join(f"{name};" for name in self.outputs or self.inputs)

    @property
    def names(self) -> tuple[str, ...]:
        """Names it goes by, the most telling first: those joined in the names of its tensors, then whole names.

        The converter names what it fuses by all that went in, joined by semicolons; the output of a whole model has
        a name that says nothing, and only its weights say which layer made it.
        """
        joined = (*(weight.name for weight in self.weights), *(self.outputs or self.inputs), *self.constants)
        parts = (part for name in joined for part in name.split(";"))
        return tuple(dict.fromkeys(part for part in (*parts, *joined) if part))

    @property
    def precision(self) -> str:
        """What it computes in, in the words of `convert.recipes.Precision` where there is one."""
        stored = {weight.dtype for weight in self.weights}
        if self.activations & {"INT8", "UINT8"}:
            return "int4 weights, int8" if "INT4" in stored else "int8"
        if "INT16" in self.activations:
            return "int4 weights, int16" if "INT4" in stored else "int16x8"
        if "FLOAT32" in self.activations:
            unpacked = any(weight.unpacked for weight in self.weights)
            for dtype, name in (
                ("INT4", "int4"),
                ("INT8", "weight-only-int8" if unpacked else "dynamic-int8"),
            ):
                if dtype in stored:
                    blocks = any(weight.blockwise for weight in self.weights)
                    return f"{name}-block32" if blocks else name
            return "float16" if "FLOAT16" in stored else "float32"
        return next(iter(sorted(self.activations)), "none").lower()


def operations(content: bytes) -> list[Operation]:
    """The operators of every graph in a `.tflite` file, in order."""
    model = schema().Model.GetRootAs(content, 0)
    main = model.SignatureDefs(0).SubgraphIndex() if model.SignatureDefsLength() else 0
    return [
        operation
        for index in range(model.SubgraphsLength())
        for operation in _graph_operations(model, index, main)
    ]


def layer_names(found: Sequence[Operation]) -> list[str]:
    """For each operator a name that no other one of its kind goes by."""
    count = Counter((each.name, name) for each in found for name in each.names)
    return [
        next((name for name in each.names if count[each.name, name] == 1), "".join(each.names[:1]))
        for each in found
    ]


def in_order(content: bytes, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> bytes:
    """The file with the main graph's inputs and outputs in the order of these signature names.

    TensorFlow sorts the names of a signature; the model's own order is put back. Inputs or outputs of which the
    signature does not have exactly these names, each a tensor of its own, stay as they are.
    """
    changed = bytearray(content)
    model = schema().Model.GetRootAs(changed, 0)
    if model.SignatureDefsLength() != 1:
        return content
    signature = model.SignatureDefs(0)
    graph = model.Subgraphs(signature.SubgraphIndex())
    for names, tensor_map, length, places in (
        (inputs, signature.Inputs, signature.InputsLength(), graph.InputsAsNumpy()),
        (outputs, signature.Outputs, signature.OutputsLength(), graph.OutputsAsNumpy()),
    ):
        index_of = {tensor_map(i).Name().decode(): tensor_map(i).TensorIndex() for i in range(length)}
        wanted = [index_of[name] for name in names if name in index_of]
        if Counter(wanted) != Counter(places.tolist()) or len(set(wanted)) != len(names):
            continue
        places[:] = wanted  # a view of `changed`
    return bytes(changed)


@cache
def schema() -> Any:
    """The generated module of the `.tflite` schema."""
    return load_library("ai_edge_litert.schema_py_generated")


@cache
def builtin_names() -> dict[int, str]:
    """Names of builtin operators by their number."""
    return _names("BuiltinOperator")


@cache
def type_names() -> dict[int, str]:
    """Names of tensor types by their number."""
    return _names("TensorType")


def _names(enumeration: str) -> dict[int, str]:
    return {
        value: name
        for name, value in vars(getattr(schema(), enumeration)).items()
        if isinstance(value, int) and not name.startswith("_")
    }


def _graph_operations(model: Any, index: int, main: int) -> Iterator[Operation]:
    graph = model.Subgraphs(index)
    tensors = [graph.Tensors(place) for place in range(graph.TensorsLength())]
    names = [(tensor.Name() or b"").decode() for tensor in tensors]
    types = [type_names()[tensor.Type()] for tensor in tensors]
    sizes = [_size(model.Buffers(tensor.Buffer())) for tensor in tensors]
    constants = {
        place: _weight(tensors[place], names[place], types[place], size)
        for place, size in enumerate(sizes)
        if size
    }
    for place in range(graph.OperatorsLength()):
        operator = graph.Operators(place)
        code = _code(model.OperatorCodes(operator.OpcodeIndex()))
        name = _operator_name(model.OperatorCodes(operator.OpcodeIndex()))
        positions = operator.InputsAsNumpy().tolist() if operator.InputsLength() else []
        reads = [each for each in positions if each >= 0]
        makes = operator.OutputsAsNumpy().tolist() if operator.OutputsLength() else []
        if name in _UNPACKING and reads[0] in constants:
            packed = constants[reads[0]]
            constants[makes[0]] = replace(packed, unpacked=packed.unpacked or name == "DEQUANTIZE")
        weights = tuple(
            replace(weight, position=position)
            for position, each in enumerate(positions)
            if (weight := constants.get(each)) is not None
            and len(weight.shape) >= 2
            and weight.dtype in _NUMBERS
        )
        yield Operation(
            name=name,
            graph=index,
            index=place,
            main=index == main,
            inputs=tuple(names[each] for each in reads),
            outputs=tuple(names[each] for each in makes),
            constants=tuple(constants[each].name for each in reads if each in constants),
            weights=weights,
            activations=frozenset(types[each] for each in (*reads, *makes) if each not in constants),
            is_newer_than_tflite=code > schema().BuiltinOperator.RIGHT_SHIFT,
        )


def _size(buffer: Any) -> int:
    # Files beyond 2 GB keep data outside of the flatbuffer, at an offset.
    return int(buffer.DataLength() or buffer.Size())


def _code(code: Any) -> int:
    return int(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))


def _operator_name(code: Any) -> str:
    name = builtin_names()[_code(code)]
    return f"{name} {(code.CustomCode() or b'').decode()}" if name == "CUSTOM" else name


def _weight(tensor: Any, name: str, dtype: str, size: int) -> Weight:
    shape = tuple(tensor.ShapeAsNumpy().tolist()) if tensor.ShapeLength() else ()
    quantization = tensor.Quantization()
    blockwise = schema().QuantizationDetails.BlockwiseQuantization
    return Weight(
        name,
        dtype,
        shape,
        size,
        position=0,
        blockwise=quantization is not None and quantization.DetailsType() == blockwise,
    )
