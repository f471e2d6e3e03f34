"""What `Model.run` adds to the interpreter's own set, invoke and get.

``HYBRIDGE_DATA=... python -m benchmarks.model_overhead`` compares, in one process and in turn, on the int8 DS-CNN of
MLPerf Tiny: with integers in, where both do the same, and with real values in, where the bare interpreter needs the
quantisation that its documentation shows.
"""

from __future__ import annotations

from collections.abc import Callable

import click
import numpy as np

from benchmarks.data import data_file
from edge_runtime import Model
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, table
from edge_runtime.interpreter import load_interpreter
from edge_runtime.tensor_spec import Array
from edge_runtime.timing import paired_ratio

__all__ = ["model_overhead"]

_MODEL = "mlperf_tiny/kws_ref_model.tflite"


@click.command()
@click.option("--pairs", default=41, show_default=True, type=click.IntRange(min=3), help="Pairs of blocks.")
@click.option("--calls", default=200, show_default=True, type=click.IntRange(min=10), help="Calls a block.")
@format_option
def model_overhead(pairs: int, calls: int) -> None:
    """Compares Model.run with the bare interpreter on the int8 DS-CNN."""
    content = data_file(_MODEL).read_bytes()
    model = Model(content)
    raw_model = Model(content, dequantize=False)
    spec = model.inputs[0]
    shape = tuple(1 if isinstance(size, str) else size for size in spec.shape)
    integers = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
    assert spec.quantization is not None  # noqa: S101 - what this very file is known to be
    scale, zero_point = spec.quantization.scale[0], spec.quantization.zero_point[0]
    real = ((integers.astype(np.float32) - zero_point) * scale).astype(np.float32)
    name = spec.name
    cases: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "int8 in, int8 out": (lambda: raw_model.run({name: integers}), _bare(content, integers)),
        "int8 in, float32 out": (lambda: model.run({name: integers}), _bare(content, integers)),
        "float32 in, float32 out": (lambda: model.run({name: real}), _bare_quantizing(content, real)),
    }
    results = {}
    for case, (ours, theirs) in cases.items():
        ratio, mine, other = paired_ratio(ours, theirs, pairs=pairs, calls=calls)
        results[case] = {"ratio": ratio, "model_ms": mine.median_ms, "interpreter_ms": other.median_ms}
    emit(
        {"model": _MODEL, "pairs": pairs, "calls": calls, "cases": results},
        lambda: table(
            [
                (case, f"{r['model_ms'] * 1e3:.1f}", f"{r['interpreter_ms'] * 1e3:.1f}", f"{r['ratio']:.3f}")
                for case, r in results.items()
            ],
            header=("DS-CNN, one thread", "Model.run us", "interpreter us", "ratio"),
        ),
    )


def _bare(content: bytes, integers: Array) -> Callable[[], Array]:
    interpreter = load_interpreter(content)
    into = interpreter.get_input_details()[0]["index"]
    out = interpreter.get_output_details()[0]["index"]

    def run() -> Array:
        interpreter.set_tensor(into, integers)
        interpreter.invoke()
        return interpreter.get_tensor(out)

    return run


def _bare_quantizing(content: bytes, real: Array) -> Callable[[], Array]:
    interpreter = load_interpreter(content)
    into, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run() -> Array:
        scale, zero_point = into["quantization"]
        integers = np.clip(np.rint(real / scale + zero_point), -128, 127).astype(into["dtype"])
        interpreter.set_tensor(into["index"], integers)
        interpreter.invoke()
        scale, zero_point = out["quantization"]
        result: Array = (interpreter.get_tensor(out["index"]).astype(np.float32) - zero_point) * scale
        return result

    return run


if __name__ == "__main__":
    run_verb(model_overhead)
