"""The verb `hybridge convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.console import emit, format_option, say, table
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import check_writable, read_file

if TYPE_CHECKING:
    from convert.conversion import Conversion

__all__ = ["convert"]


@click.command()
@click.argument("source", type=click.Path())
@click.option(
    "--recipe", default="float32", show_default=True, help="float32, float16, dynamic-int8 or int8."
)
@click.option(
    "--representative",
    type=click.Path(),
    help="Representative samples for int8, .npz with arrays named as inputs.",
)
@click.option("--eval", type=click.Path(), help="Samples to compare on, .npz; 'label' holds the truth.")
@click.option("--name", help="Name of the bundle.  [default: the file's name]")
@click.option("--version", default="1", show_default=True, help="Version of the bundle.")
@click.option("--labels", type=click.Path(), help="Text file with a class name on each line.")
@click.option(
    "--preprocessing", type=click.Path(), help="TOML file with the steps from raw inputs to the model's."
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Fixed batch size."
)
@click.option(
    "--min-snr-db", type=float, help="Smallest signal-to-noise ratio to accept.  [default: the recipe's]"
)
@click.option(
    "-o", "--output", type=click.Path(), help="Bundle to write, or its folder.  [default: NAME-VERSION.edge]"
)
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@format_option
def convert(
    source: str,
    recipe: str,
    representative: str | None,
    eval: str | None,  # noqa: A002 - a flag's name is also its key in the environment and in a file
    name: str | None,
    version: str,
    labels: str | None,
    preprocessing: str | None,
    batch_size: int,
    min_snr_db: float | None,
    output: str | None,
    overwrite: bool,
) -> None:
    """Convert a trained model (.keras) to a verified bundle.

    The bundle is written only when its outputs, run on the device runtime, are as close to the source's as the recipe
    promises.
    """
    from convert.conversion import convert as run_conversion
    from convert.conversion import default_name
    from convert.native_logs import hide_native_logs
    from convert.preprocessing_file import load_preprocessing
    from convert.recipes import ParityBounds, find_recipe

    chosen = find_recipe(recipe)
    target = Path(output or ".")
    if target.is_dir():
        target /= f"{name or default_name(Path(source).name)}-{version}.edge"
    check_writable(target, overwrite=overwrite)
    names = _read_labels(labels) if labels is not None else ()
    steps = load_preprocessing(preprocessing) if preprocessing is not None else ()
    with hide_native_logs():
        conversion = run_conversion(
            source,
            recipe=chosen,
            name=name,
            version=version,
            representative=representative,
            evaluation=eval,
            labels=names,
            preprocessing=steps,
            batch_size=batch_size,
            bounds=None if min_snr_db is None else ParityBounds(min_snr_db=min_snr_db),
            progress=say,
        )
    conversion.save(target, overwrite=overwrite)
    emit(_result(conversion, target), lambda: _text(conversion, target))


def _read_labels(path: str) -> tuple[str, ...]:
    try:
        return tuple(read_file(path).decode().splitlines())
    except UnicodeDecodeError as error:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            f"labels '{path}'",
            received="bytes that are no UTF-8",
            expected="a text file",
        ) from error


def _result(conversion: Conversion, target: Path) -> dict[str, Any]:
    manifest = conversion.bundle.manifest
    accuracy = conversion.accuracy
    return {
        "name": manifest.name,
        "version": manifest.version,
        "recipe": conversion.recipe.name,
        "source_size_bytes": conversion.size.source,
        "size_bytes": conversion.size.model,
        "deflated_size_bytes": conversion.size.deflated,
        "accuracy": accuracy and {"source": accuracy.source, "converted": accuracy.converted},
        "drop": accuracy and accuracy.drop,
        "parity": conversion.parity,
        "operators": manifest.requirements.operators,
        "coverage": conversion.coverage,
        "digest": conversion.bundle.digest,
        "output": str(target),
    }


def _text(conversion: Conversion, target: Path) -> str:
    size, parity, accuracy = conversion.size, conversion.parity, conversion.accuracy
    rows = [("weights, source to model (bytes)", f"{size.source:,}", f"{size.model:,}")]
    if accuracy is not None:
        rows.append(
            (f"accuracy on {accuracy.samples} samples", f"{accuracy.source:.4f}", f"{accuracy.converted:.4f}")
        )
    measured = f"{parity.samples} {'generated' if parity.data == 'generated' else 'given'} samples"
    lines = [table(rows, header=("", "source", "converted")), ""]
    snr = "identical" if parity.snr_db is None else f"SNR {parity.snr_db:.1f} dB"
    lines.append(f"parity on {measured}: {snr}, largest error {parity.max_abs_error:.3g}")
    if parity.label_agreement is not None:
        lines.append(f"the same class on {parity.label_agreement:.2%} of them")
    if conversion.coverage.left_float and conversion.recipe.name != "float32":
        left = ", ".join(f"{name} x{count}" for name, count in conversion.coverage.left_float.items())
        lines.append(f"stayed float: {left}")
    lines.append(f"operators: {', '.join(conversion.bundle.manifest.requirements.operators)}")
    lines.append(f"digest: {conversion.bundle.digest}")
    lines.append(f"written: {target}")
    return "\n".join(lines)
