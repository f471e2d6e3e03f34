"""One case of ONNX's conformance suite, through the importer and the device's interpreter."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert.onnx import OnnxFunction, prepared
from convert.sources.export import export_function
from edge_runtime.errors import HybridgeError
from edge_runtime.model import Model

__all__ = ["Result", "load_cases", "run_case"]

_PINNABLE = re.compile(r"its ([\w ]+) is computed as the model runs")


@dataclass(frozen=True)
class Result:
    """What became of a case.

    Attributes:
        name: Of the case.
        status: `passed`, `wrong` (other values than expected), `refused` (with a clear error), or `crashed`.
        reason: Why it did not pass.
        fixed: Inputs that had to be constants.
        seconds: Time for conversion and run.
    """

    name: str
    status: str
    reason: str
    fixed: tuple[str, ...]
    seconds: float


def load_cases() -> dict[str, Any]:
    """The `node` and `simple` cases that the `onnx` package ships, by name."""
    from onnx.backend.test.loader import load_model_tests

    return {case.name: case for kind in ("node", "simple") for case in load_model_tests(kind=kind)}


def data_of(case: Any) -> tuple[Any, list[tuple[list[Any], list[Any]]]]:
    """The model of a case, and pairs of inputs and expected outputs."""
    import onnx
    from onnx import numpy_helper

    def array(value: Any) -> Any:
        return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value

    if case.model is not None:
        sets = [tuple([array(each) for each in side] for side in pair) for pair in case.data_sets]
        return case.model, sets  # type: ignore[return-value]
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")

    def tensors(where: Path, kind: str) -> list[Any]:
        count = len(list(where.glob(f"{kind}_*.pb")))
        protos = [onnx.TensorProto.FromString((where / f"{kind}_{i}.pb").read_bytes()) for i in range(count)]
        return [numpy_helper.to_array(proto) for proto in protos]

    return model, [
        (tensors(each, "input"), tensors(each, "output")) for each in sorted(folder.glob("test_data_set_*"))
    ]


def run_case(case: Any) -> Result:
    """Converts a case's model, runs it, and compares."""
    start = time.perf_counter()
    fixed: tuple[str, ...] = ()

    def result(status: str, reason: str = "") -> Result:
        return Result(case.name, status, reason, fixed, round(time.perf_counter() - start, 3))

    try:
        proto, data_sets = data_of(case)
        model = prepared(proto, case.name)
    except HybridgeError as error:
        return result("refused", error.received)
    names = [spec.name for spec in model.inputs]
    for inputs, expected in data_sets:
        given = dict(zip(names, inputs, strict=False))
        try:
            fixed = ()
            try:
                outputs = _run(model, given, fixed)
            except HybridgeError as error:
                # What a device cannot take as it runs, such as axes, is fixed at the case's own value, and said so.
                fixed = _to_fix(given) if _PINNABLE.search(error.received) else ()
                if not fixed:
                    raise
                outputs = _run(model, given, fixed)
        except HybridgeError as error:
            return result("refused", error.received)
        except Exception as error:
            return result("crashed", f"{type(error).__name__}: {error}")
        for spec, want in zip(model.outputs, expected, strict=False):
            if reason := _difference(outputs[spec.name], np.asarray(want), case):
                return result("wrong", f"output '{spec.name}' {reason}")
    return result("passed")


def _to_fix(given: dict[str, Any]) -> tuple[str, ...]:
    """What parametrises the operator: inputs but the first of integers, truth values or single numbers, or so named."""
    return tuple(
        name
        for name, array in list(given.items())
        if (
            name != next(iter(given))
            and (
                np.asarray(array).dtype.kind in "iub"
                or np.asarray(array).size == 1
                or name in ("scales", "roi")
            )
        )
        or len(given) == 1
    )


def _run(model: Any, given: dict[str, Any], fixed: tuple[str, ...]) -> dict[str, Any]:
    from edge_runtime.tensor_spec import TensorSpec

    arrays = {name: np.asarray(array) for name, array in given.items()}
    constants = {name: arrays[name] for name in fixed}
    taken = {name: array for name, array in arrays.items() if name not in fixed}
    specs = tuple(TensorSpec(name, array.shape, array.dtype.name) for name, array in taken.items())
    function = OnnxFunction(model, constants=constants)
    names = tuple(spec.name for spec in model.outputs)
    content = export_function(function, specs, names, model.name, quantized=function.is_quantized)
    return Model(content).run(taken)


def _difference(got: Any, want: Any, case: Any) -> str:
    if got.shape != want.shape:
        return f"has shape {got.shape}, expected {want.shape}"
    if got.dtype != want.dtype:
        return f"has type {got.dtype}, expected {want.dtype}"
    if want.dtype.kind not in "fc":
        wrong = int((got != want).sum())
        return f"has {wrong} wrong elements of {want.size}" if wrong else ""
    try:
        np.testing.assert_allclose(got, want, rtol=case.rtol, atol=max(case.atol, _ATOL))
    except AssertionError as error:
        lines = [line for line in str(error).splitlines() if line.startswith("Max")]
        return f"differs: {'; '.join(lines) or str(error).splitlines()[-1]}"
    return ""


# Elementary functions of a device are right to some units in the last place, also near zero.
_ATOL = 1e-5
