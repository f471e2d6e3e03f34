"""What `hybridge convert` adds to the bare libraries that do the same steps.

``HYBRIDGE_DATA=... python -m benchmarks.conversion.cost`` converts the Fashion-MNIST network to int8 in fresh
processes, in turn: the command, and a script of bare calls that loads the model, exports it, converts, calibrates and
quantises, and runs source and result over the same test images, as anyone who checks a conversion must.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.conversion.fashion import Fashion, make_fashion
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, say, table

__all__ = ["conversion_cost"]

# The bare steps, as the libraries' own documentation has them.
_BARE = """
import sys, tempfile
import numpy as np, keras, tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from litert_quantizer import Quantizer, recipe

model_path, calibration_path, test_path, out, precision = sys.argv[1:]
model = keras.models.load_model(model_path, compile=False)
archive = keras.export.ExportArchive()
archive.track(model)
signature = [tf.TensorSpec((1, 28, 28, 1), tf.float32, name="image")]
serve = lambda image: {"scores": model(image, training=False)}
archive.add_endpoint("serving_default", serve, input_signature=signature)
with tempfile.TemporaryDirectory() as folder:
    archive.write_out(folder, verbose=False)
    content = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
images = np.load(calibration_path)["image"]
if precision == "int8":
    quantizer = Quantizer(content, recipe.static_wi8_ai8())
    samples = [{"image": image[None]} for image in images]
    content = quantizer.quantize(quantizer.calibrate({"serving_default": samples})).quantized_model
test = np.load(test_path)
expected = model.predict(test["image"], batch_size=128, verbose=0)
interpreter = Interpreter(model_content=bytes(content))
run = interpreter.get_signature_runner()
got = []
for image in test["image"]:
    image = image[None]
    details = run.get_input_details()["image"]
    if details["dtype"] == np.int8:
        scale, zero = details["quantization"]
        image = np.clip(np.round(image / scale + zero), -128, 127).astype(np.int8)
    got.append(run(image=image)["scores"][0])
print((np.argmax(got, 1) == test["label"]).mean(), (expected.argmax(1) == test["label"]).mean())
open(out, "wb").write(content)
"""


@click.command()
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default="bench-out/fashion",
    show_default=True,
    help="Folder for the model and its data.",
)
@click.option("--pairs", default=5, show_default=True, type=click.IntRange(min=1), help="Pairs of runs.")
@format_option
def conversion_cost(work: Path, pairs: int) -> None:  # fmt: skip
    """Compares the command with the bare libraries."""
    fashion = make_fashion(work)
    results = {}
    with tempfile.TemporaryDirectory(prefix="hybridge-") as folder:
        for precision in ("float32", "int8"):
            seconds: list[tuple[float, float]] = []
            for pair in range(pairs):
                say(f"{precision}, pair {pair + 1} of {pairs}")
                ours, theirs = _ours(fashion, precision, folder), _bare(fashion, precision, folder)
                # Whoever goes second finds warmer caches: turns are taken.
                order = (ours, theirs) if pair % 2 else (theirs, ours)
                times = {id(command): _seconds(command) for command in order}
                seconds.append((times[id(ours)], times[id(theirs)]))
            results[precision] = {
                "ratio": statistics.median(mine / other for mine, other in seconds),
                "hybridge_s": statistics.median(mine for mine, _ in seconds),
                "bare_s": statistics.median(other for _, other in seconds),
            }
    emit(
        {"pairs": pairs, "cases": results},
        lambda: table(
            [
                (name, f"{each['hybridge_s']:.1f}", f"{each['bare_s']:.1f}", f"{each['ratio']:.2f}")
                for name, each in results.items()
            ],
            header=("recipe", "hybridge s", "bare s", f"ratio, median of {pairs}"),
        ),
    )


def _ours(fashion: Fashion, precision: str, folder: str) -> list[str]:
    return [
        sys.executable, "-m", "edge_runtime", "convert", str(fashion.model), "--recipe", precision,
        "--representative", str(fashion.calibration), "--eval", str(fashion.test),
        "-o", f"{folder}/ours.edge", "--overwrite",
    ]  # fmt: skip


def _bare(fashion: Fashion, precision: str, folder: str) -> list[str]:
    files = (fashion.model, fashion.calibration, fashion.test, Path(folder) / "bare.tflite")
    return [sys.executable, "-c", _BARE, *map(str, files), precision]


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    run_verb(conversion_cost)
