"""What a chain adds to the stages that it runs.

``HYBRIDGE_DATA=... python -m benchmarks.chain_overhead``: twenty cheap operators as a chain beside the same functions
called one by one, and DS-CNN as a chain of one beside `Model.run`; and `Model.run` beside the bare interpreter on a
model of about ten milliseconds, where two per cent is what it may add.
"""

from __future__ import annotations

import click
import numpy as np

from benchmarks.data import data_file
from edge_runtime import Chain, Model, Stage
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, table
from edge_runtime.interpreter import load_interpreter
from edge_runtime.operators import find_operator
from edge_runtime.tensor_spec import Array
from edge_runtime.timing import Timing, paired_ratio

__all__ = ["chain_overhead"]

_STAGES = 20


@click.command()
@click.option("--pairs", default=31, show_default=True, type=click.IntRange(min=3), help="Pairs of blocks.")
@format_option
def chain_overhead(pairs: int) -> None:
    """Compares chains with their stages called directly."""
    cases = {
        f"{_STAGES} operators": (*_operators(pairs), _STAGES),
        "DS-CNN, a chain of one": (*_one_model(pairs), 1),
    }
    ratio, ours, theirs = _large_model(pairs)
    result = {
        "microseconds_a_stage": {
            name: (chain.median_ms - alone.median_ms) * 1e3 / stages
            for name, (chain, alone, stages) in cases.items()
        },
        "model_of_ten_ms": {"ratio": ratio, "model_ms": ours.median_ms, "interpreter_ms": theirs.median_ms},
    }
    rows = [
        (name, f"{chain.median_ms * 1e3:.1f}", f"{alone.median_ms * 1e3:.1f}", f"{added:.1f} us a stage")
        for (name, (chain, alone, _)), added in zip(
            cases.items(), result["microseconds_a_stage"].values(), strict=True
        )
    ]
    rows.append(
        (
            "MobileNet v2, Model.run",
            f"{ours.median_ms * 1e3:.0f}",
            f"{theirs.median_ms * 1e3:.0f}",
            f"{ratio:.4f} times",
        )
    )
    emit(result, lambda: table(rows, header=("one thread", "us", "directly", "added")))


def _operators(pairs: int) -> tuple[Timing, Timing]:
    chain = Chain(
        [
            Stage.from_operator(
                f"s{index}", "scale", inputs={"array": f"t{index}"}, outputs={"array": f"t{index + 1}"}
            )
            for index in range(_STAGES)
        ]
    )
    values = np.ones(16, np.float32)
    scale = find_operator("scale").function

    def directly() -> Array:
        array = values
        for _ in range(_STAGES):
            array = scale(array)
        return array

    _, ours, theirs = paired_ratio(lambda: chain.run({"t0": values}), directly, pairs=pairs, calls=50)
    return ours, theirs


def _one_model(pairs: int) -> tuple[Timing, Timing]:
    model = Model(data_file("mlperf_tiny/kws_ref_model.tflite"))
    chain = Chain.from_bundle(model)
    inputs = {model.inputs[0].name: np.zeros((1, 49, 10, 1), np.int8)}
    _, ours, theirs = paired_ratio(
        lambda: chain.run(inputs), lambda: model.run(inputs), pairs=pairs, calls=100
    )
    return ours, theirs


def _large_model(pairs: int) -> tuple[float, Timing, Timing]:
    content = data_file("imagenet_ladder/mobilenet_v2_1.0_224_quant.tflite").read_bytes()
    model = Model(content, dequantize=False)
    interpreter = load_interpreter(content)
    into = interpreter.get_input_details()[0]["index"]
    out = interpreter.get_output_details()[0]["index"]
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3)).astype(np.uint8)
    inputs = {model.inputs[0].name: image}

    def directly() -> Array:
        interpreter.set_tensor(into, image)
        interpreter.invoke()
        return interpreter.get_tensor(out)

    return paired_ratio(lambda: model.run(inputs), directly, pairs=pairs, calls=10)


if __name__ == "__main__":
    run_verb(chain_overhead)
