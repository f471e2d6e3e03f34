"""ONNX files: read whole, checked, and with what they say of their tensors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.onnx.carriers import element_type, is_held
from convert.onnx.problems import Problem, invalid, refusal
from convert.onnx.registry import find
from convert.onnx.zip_maps import without_maps
from edge_runtime.errors import HybridgeError
from edge_runtime.files import read_file
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["OnnxModel", "dense", "prepared", "read_model"]


@dataclass(frozen=True)
class OnnxModel:
    """A checked model with all its weights.

    Attributes:
        proto: The `onnx.ModelProto`, with the types that could be inferred.
        name: What to call it in errors; never a path.
        digest: SHA-256 of the file, and of the files beside it that hold weights.
        inputs: What it takes, without initializers that are listed as inputs; a string names a dimension that may vary.
        outputs: What it returns.
        metadata: What the file says of itself, by key.
        weight_bytes: Bytes of its weights.
    """

    proto: Any
    name: str
    digest: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]
    weight_bytes: int


def read_model(path: str | PathLike[str]) -> OnnxModel:
    """Reads and checks a file.

    Raises:
        HybridgeError: `file-not-found`; `source-invalid` for a file that is truncated, misses its external weights,
            is refused by ONNX's checker, or is of a newer operator set than is known; `conversion-failed` for
            operators that nobody knows, all at once.
    """
    onnx = load_library("onnx")
    path = Path(path)
    content = read_file(path)
    digest = hashlib.sha256(content)
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:
        raise invalid(
            path.name,
            received=f"{len(content):,} bytes that are no whole ONNX model",
            expected="a model as onnx.save writes it",
            fix="copy the file again; it may be cut off, or a pointer to a file in Git LFS",
        ) from error
    for location in sorted(_external_files(model)):
        digest.update(_read_external(path, location))
    if _external_files(model):
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    return prepared(model, path.name, digest.hexdigest())


def prepared(model: Any, name: str, digest: str = "") -> OnnxModel:
    """Checks a model in memory, with all its weights inside it; maps of scores become the tensors of these.

    Raises:
        HybridgeError: As `read_model`.
    """
    onnx = load_library("onnx")
    model = without_maps(model)
    _check_versions(model, name)
    _check_known(model, name)
    try:
        _check_sound(model)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except onnx.checker.ValidationError as error:
        raise _refused(name, error) from error
    except onnx.shape_inference.InferenceError as error:
        if _contradicts(str(error)):
            raise _refused(name, error) from error
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (ValueError, RuntimeError):
        # Inference knows not every operator, and gives up on models beyond 2 GB; types are a help, not a need.
        inferred = model
    weights = {each.name for each in inferred.graph.initializer}
    inputs = [each for each in inferred.graph.input if each.name not in weights]
    return OnnxModel(
        proto=inferred,
        name=name,
        digest=digest or hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest(),
        inputs=tuple(_spec(each, "Input", name) for each in inputs),
        outputs=tuple(_spec(each, "Output", name) for each in inferred.graph.output),
        metadata={each.key: each.value for each in model.metadata_props},
        weight_bytes=sum(map(_bytes, _weights(model))),
    )


def dense(sparse: Any) -> np.ndarray[Any, Any]:
    """The values of a sparse tensor as a whole array (ONNX IR, `SparseTensorProto`)."""
    numpy_helper = load_library("onnx").numpy_helper
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    array = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        array.reshape(-1)[indices] = values
    else:
        array[tuple(indices.T)] = values
    return array


def _check_versions(model: Any, name: str) -> None:
    onnx = load_library("onnx")
    if not model.graph.node and not model.graph.output:
        raise invalid(
            name,
            received="no graph",
            expected="an ONNX model with operators and outputs",
            fix="export the model again",
        )
    newest = {"": onnx.defs.onnx_opset_version(), "ai.onnx.ml": onnx.defs.onnx_ml_opset_version()}
    for each in model.opset_import:
        domain = "" if each.domain == "ai.onnx" else each.domain
        if each.version > newest.get(domain, each.version):
            raise invalid(
                name,
                received=f"version {each.version} of the operator set '{domain or 'ai.onnx'}'",
                expected=f"at most {newest[domain]}, the newest that onnx {onnx.__version__} knows",
                fix=f"export it with opset_version={newest[domain]}, or install a newer onnx",
            )


def _check_known(model: Any, name: str) -> None:
    """Refuses operators that nobody knows, all at once, where ONNX's own checker names only the first."""
    onnx = load_library("onnx")
    versions = {
        ("" if each.domain == "ai.onnx" else each.domain): each.version for each in model.opset_import
    }
    own = {(each.domain, each.name) for each in model.functions}
    problems = []
    for node in _all_nodes(model):
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (node.domain, node.op_type) in own or find(domain, node.op_type, versions.get(domain, 1)):
            continue
        if not onnx.defs.has(node.op_type, domain=domain):
            called = next((each for each in node.output if each), node.op_type)
            problems.append(
                Problem(
                    f"{domain}.{node.op_type}" if domain else node.op_type,
                    node.name or called,
                    f"the operator set '{domain or 'ai.onnx'}' has no such operator that is known here",
                    "export the model with ONNX's own operators, or with this one as a function in the file",
                )
            )
    if problems:
        raise refusal(problems, name)


def _all_nodes(model: Any) -> Iterator[Any]:
    waiting = [*model.graph.node]
    for function in model.functions:
        waiting.extend(function.node)
    while waiting:
        node = waiting.pop(0)
        yield node
        for attribute in node.attribute:
            waiting.extend(attribute.g.node)
            for graph in attribute.graphs:
                waiting.extend(graph.node)


def _external_files(model: Any) -> set[str]:
    onnx = load_library("onnx")
    helper = onnx.external_data_helper
    return {
        entry.value
        for tensor in helper._get_all_tensors(model)
        if helper.uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _read_external(path: Path, location: str) -> bytes:
    file = path.parent / location
    if Path(location).is_absolute() or ".." in Path(location).parts:
        raise invalid(
            path.name,
            received=f"weights in '{location}'",
            expected="a file in the model's own folder",
            fix="save the model again with its weights beside it",
        )
    try:
        return file.read_bytes()
    except OSError as error:
        raise invalid(
            path.name,
            received=f"weights in the file '{location}', which cannot be read ({error.strerror})",
            expected="the file beside the model",
            fix="copy it there, or save the model with its weights inside",
        ) from error


def _check_sound(model: Any) -> None:
    checker = load_library("onnx").checker
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        # The checker calls it deprecated for all models of versions 18 to 20, which were written before it was.
        if "Op registered for GroupNormalization is deprecated" not in str(error):
            raise


def _contradicts(message: str) -> bool:
    # Strict inference also fails where it merely lacks a rule; only what cannot be is the model's fault.
    return any(
        word in message for word in ("mismatch", "ncompatible", "does not match", "not match", "differs")
    )


def _refused(name: str, error: Exception) -> HybridgeError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return invalid(
        name,
        received=f"a graph that ONNX's checker refuses ({lines[0] if lines else type(error).__name__})",
        expected="a graph that onnx.checker.check_model accepts",
        fix="export the model again, with a newer version of its exporter",
    )


def _spec(value: Any, what: str, name: str) -> TensorSpec:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        kind = (value.type.WhichOneof("value") or "unknown").removesuffix("_type")
        raise refusal(
            [_no_such(what, value.name, f"a value of kind '{kind}', which no device can hold")], name
        )
    dtype = element_type(tensor.elem_type)
    if not is_held(dtype):
        shown = "text" if dtype.kind in "OUS" else f"type {dtype.name}"
        raise refusal([_no_such(what, value.name, f"a tensor of {shown}, which no device can hold")], name)
    if not tensor.HasField("shape"):
        if what == "Output":
            return TensorSpec(name=value.name, shape=(), dtype=dtype.name)
        raise refusal([_no_such(what, value.name, "a tensor of an unknown number of axes")], name)
    shape: list[int | str] = []
    for axis, dimension in enumerate(tensor.shape.dim):
        if dimension.HasField("dim_value") and dimension.dim_value >= 0:
            shape.append(dimension.dim_value)
        else:
            # Exporters write "?" and "-1" for dimensions that they know nothing of.
            named = re.fullmatch(r"[A-Za-z_][\w.]*", dimension.dim_param)
            shape.append(named[0] if named else f"dim{axis}")
    return TensorSpec(name=value.name, shape=tuple(shape), dtype=dtype.name)


def _no_such(what: str, name: str, reason: str) -> Problem:
    return Problem(what, name, reason, "leave that part to what runs before or after the model")


def _weights(model: Any) -> Iterator[Any]:
    """Tensors of the file: initializers of all graphs, and constants with an axis, where some exporters put weights."""
    yield from model.graph.initializer
    for node in _all_nodes(model):
        for attribute in node.attribute:
            yield from attribute.g.initializer
            if node.op_type == "Constant" and attribute.name == "value" and attribute.t.dims:
                yield attribute.t


def _bytes(tensor: Any) -> int:
    size = int(np.prod(tensor.dims, dtype=np.int64))
    return size * element_type(tensor.data_type).itemsize
