"""The verb `hybridge federated`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.console import EXIT_CODES, emit, format_option, say, table, usage_error
from edge_runtime.files import check_writable

if TYPE_CHECKING:
    from federated.plan import RoundReport
    from federated.simulation import SimulationResult

__all__ = ["federated"]

_POSITIVE = click.IntRange(min=1)


@click.group()
def federated() -> None:
    """Train a model on devices whose data stays with them."""


@federated.command()
@click.argument("model", type=click.Path(), required=False)
@click.option(
    "--data", type=click.Path(), help="Labelled samples, .npz with an array named as the input, and 'label'."
)
@click.option("--clients", type=_POSITIVE, default=10, show_default=True, help="Devices that share the data.")
@click.option(
    "--rounds", type=_POSITIVE, default=5, show_default=True, help="Times they train and are averaged."
)
@click.option(
    "--local-epochs",
    type=_POSITIVE,
    default=5,
    show_default=True,
    help="Passes over its samples a device makes a round.",
)
@click.option(
    "--batch-size", type=_POSITIVE, default=16, show_default=True, help="Samples of a training step."
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=0.1,
    show_default=True,
    help="Step size of the devices' gradient descent.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(min=0, min_open=True),
    help="Skew labels: 100 hardly, 1 a few classes a device, 0.1 about one.  [default: not skewed]",
)
@click.option(
    "--recipe", default="int8", show_default=True, help="How the result is converted; see 'hybridge convert'."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Who gets which samples, and when.",
)
@click.option(
    "-o", "--output", type=click.Path(), help="Bundle to write, or its folder.  [default: NAME-1.edge]"
)
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@format_option
def simulate(
    model: str | None,
    data: str | None,
    recipe: str,
    seed: int,
    output: str | None,
    overwrite: bool,
    **plan: Any,
) -> None:
    """Train MODEL (.keras) on simulated devices, average it with Flower, and convert the result.

    The devices run on this machine, in processes of their own, with the device runtime and without TensorFlow. A
    fifth of the data is kept back, to measure by. Without MODEL and --data, a small model learns handwritten digits.
    """
    if (model is None) != (data is None):
        raise usage_error("MODEL and --data go together: give both, or neither for the example of digits")
    from convert import default_name, hide_native_logs
    from federated.digits import DIGIT_LABELS, digits_data, digits_model
    from federated.simulation import simulate as run_simulation

    name = "digits" if model is None else default_name(Path(model).name)
    target = Path(output or ".")
    if target.is_dir():
        target /= f"{name}-1.edge"
    check_writable(target, overwrite=overwrite)
    start = time.perf_counter()
    with hide_native_logs():
        result = run_simulation(
            digits_model(seed=seed) if model is None else model,
            digits_data() if data is None else data,
            recipe=recipe,
            seed=seed,
            name=name,
            labels=DIGIT_LABELS if model is None else (),
            on_round=_say_round,
            progress=say,
            **plan,
        )
    result.bundle.save(target, overwrite=overwrite)
    report = {
        **plan,
        "seed": seed,
        "history": result.history,
        "accuracy": _accuracy(result),
        "samples": result.conversion.accuracy and result.conversion.accuracy.samples,
        "training_parity": result.parity,
        "recipe": result.conversion.recipe.name,
        "failure": result.failure and {"code": result.failure.code, "message": result.failure.message},
        "output": str(target),
        "bundle_bytes": target.stat().st_size,
        "digest": result.bundle.digest,
        "seconds": round(time.perf_counter() - start, 1),
    }
    emit(report, lambda: _text(report, result))
    if result.failure is not None:
        say(f"hybridge: recipe '{recipe}' failed, so the bundle is float32: {result.failure.message}")
        raise click.exceptions.Exit(EXIT_CODES[result.failure.code.kind])


def _say_round(report: RoundReport) -> None:
    say(f"round {report.round}: loss {report.loss:.4f}, accuracy {report.accuracy:.4f}")


def _accuracy(result: SimulationResult) -> dict[str, float | None]:
    measured = result.conversion.accuracy
    return {
        "before": result.history[0].accuracy,
        "after": result.history[-1].accuracy,
        "bundle": measured.converted if measured is not None else None,
    }


def _text(report: dict[str, Any], result: SimulationResult) -> str:
    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    rows = [
        (str(each.round), *map(cell, (each.train_loss, each.client_accuracy, each.loss, each.accuracy)))
        for each in result.history
    ]
    accuracy = report["accuracy"]
    return "\n".join(
        [
            table(
                rows,
                header=(
                    "round",
                    "loss in training",
                    "accuracy on devices",
                    "loss held back",
                    "accuracy held back",
                ),
            ),
            "",
            f"accuracy on {report['samples']} held-back samples: {cell(accuracy['before'])} before, "
            f"{cell(accuracy['after'])} after {report['rounds']} rounds with {report['clients']} clients, "
            f"{cell(accuracy['bundle'])} as {report['recipe']} bundle",
            f"written: {report['output']} ({report['bundle_bytes']:,} bytes) in {report['seconds']:.0f} s",
        ]
    )
