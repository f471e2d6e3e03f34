"""The verb `hybridge convert`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from convert.recipes import Calibration, Method
from edge_runtime.console import emit, format_option, say, usage_error
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import check_writable, read_file, write_file

if TYPE_CHECKING:
    from convert.budget import Budget
    from convert.progress import Progress
    from convert.recipes import ParityBounds, Precision, Recipe
    from convert.workbench import Workbench

__all__ = ["convert"]

_DEFAULT_RECIPE = "float32"

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _grouped(*options: Callable[[_Function], _Function]) -> Callable[[_Function], _Function]:
    def decorate(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_source_options = _grouped(
    click.option(
        "--input",
        multiple=True,
        metavar="NAME:SHAPE",
        help="Shape of an input, such as image:1,224,224,3; width=320 keeps a dimension free.",
    ),
    click.option(
        "--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Fixed batch size."
    ),
    click.option("--signature", help="Which signature of a SavedModel or .tflite."),
    click.option(
        "--custom", multiple=True, metavar="MODULE", help="Module that registers custom Keras classes."
    ),
    click.option(
        "--constant", multiple=True, metavar="NAME=VALUE", help="Input of an ONNX model that never changes."
    ),
    click.option(
        "--channels-last", is_flag=True, help="Take and give images channels-last, for an ONNX model."
    ),
    click.option(
        "--preprocessing", type=click.Path(), help="TOML file with the steps from raw inputs to the model's."
    ),
    click.option("--labels", type=click.Path(), help="Text file with a class name on each line."),
)
_data = "An .npz, a folder of images with a folder a class, or module:function."
_data_options = _grouped(
    click.option("--representative", metavar="DATA", help=f"Samples to calibrate on. {_data}"),
    click.option("--eval", metavar="DATA", help="Samples to compare on; 'label' holds the truth."),
    click.option("--train", metavar="DATA", help="Samples to fine-tune on, labelled or not."),
    click.option(
        "--slice",
        multiple=True,
        metavar="NAME",
        help="Break accuracy down by this array of --eval; or label.",
    ),
)
_recipe_options = _grouped(
    click.option(
        "--recipe",
        default=_DEFAULT_RECIPE,
        show_default=True,
        help="A name, a .toml file, or a bundle to repeat.",
    ),
    click.option(
        "--keep-float", multiple=True, metavar="PATTERN", help="Layers that stay float, a regular expression."
    ),
    click.option(
        "--method",
        type=click.Choice([each.value for each in Method]),
        help="How weights are chosen.  [default: gptq for int8 and int16x8, else min-max]",
    ),
    click.option(
        "--calibration",
        type=click.Choice([each.value for each in Calibration]),
        help="How ranges of activations are read.",
    ),
    click.option(
        "--equalize/--no-equalize",
        default=None,
        help="Bring channels to like ranges first, where activations are in integers.",
    ),
    click.option(
        "--sparsity", type=click.FloatRange(0, 1, True, True), help="Share of weights pruned to zero."
    ),
    click.option(
        "--clusters", type=click.IntRange(min=2), help="Distinct values a layer's weights may have."
    ),
    click.option(
        "--epochs", type=click.IntRange(min=1), help="Passes over the training data, for each part."
    ),
    click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Of the fine-tuning."),
    click.option("--seed", type=int, help="Of the fine-tuning."),
    click.option(
        "--train-function", metavar="MODULE:FUNCTION", help="Train with this instead of the built-in loop."
    ),
    click.option(
        "--min-snr-db", type=float, help="Smallest signal-to-noise ratio to accept.  [default: the recipe's]"
    ),
)
_budget_options = _grouped(
    click.option(
        "--max-drop", type=click.FloatRange(0, 1), help="Accuracy that may be lost; 0.01 is one point."
    ),
    click.option("--max-size", metavar="SIZE", help="Of the model, such as 300KB."),
    click.option(
        "--max-latency-ms", type=click.FloatRange(min=0, min_open=True), help="Of a run here, on one thread."
    ),
    click.option(
        "--min-agreement", type=click.FloatRange(0, 1), help="Share of samples that keep their class."
    ),
)
_search_options = _grouped(
    click.option("--search", is_flag=True, help="Try recipes, and keep the smallest within the budget."),
    click.option("--search-minutes", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True,
                 help="Time that a search may take."),
    click.option("--cache", type=click.Path(), help="Folder of finished trials.  [default: in the user's cache]"),
    click.option("--ray-address", help="Spread trials over this Ray cluster; 'local' starts one."),
    click.option("--explain", is_flag=True, help="Rank layers by what quantising each alone costs; writes no bundle."),
)  # fmt: skip
_output_options = _grouped(
    click.option("--name", help="Name of the bundle.  [default: the file's name]"),
    click.option("--version", default="1", show_default=True, help="Version of the bundle."),
    click.option(
        "-o", "--output", type=click.Path(), help="Bundle, or its folder.  [default: NAME-VERSION.edge]"
    ),
    click.option("--report", type=click.Path(), help="HTML page to write about it."),
    click.option("--overwrite", is_flag=True, help="Replace files that exist."),
)


@dataclass(frozen=True)
class _Flags:
    """The command line, one field a flag."""

    source: str
    input: tuple[str, ...]
    batch_size: int
    signature: str | None
    custom: tuple[str, ...]
    constant: tuple[str, ...]
    channels_last: bool
    preprocessing: str | None
    labels: str | None
    representative: str | None
    eval: str | None
    train: str | None
    slice: tuple[str, ...]
    recipe: str
    keep_float: tuple[str, ...]
    method: str | None
    calibration: str | None
    equalize: bool | None
    sparsity: float | None
    clusters: int | None
    epochs: int | None
    learning_rate: float | None
    seed: int | None
    train_function: str | None
    min_snr_db: float | None
    max_drop: float | None
    max_size: str | None
    max_latency_ms: float | None
    min_agreement: float | None
    search: bool
    search_minutes: float
    cache: str | None
    ray_address: str | None
    explain: bool
    name: str | None
    version: str
    output: str | None
    report: str | None
    overwrite: bool


@click.command()
@click.argument("source", type=click.Path())
@_source_options
@_data_options
@_recipe_options
@_budget_options
@_search_options
@_output_options
@format_option
@click.pass_context
def convert(context: click.Context, /, **given: Any) -> None:
    """Convert a trained model to a verified bundle.

    SOURCE is a .keras, .h5, .onnx or float .tflite file, or a SavedModel folder. The bundle is written only when its
    outputs, run on the device runtime, are as close to the source's as the recipe promises, and when it keeps the
    budget.
    """
    from convert.native_logs import hide_native_logs

    flags = _Flags(**given)
    if flags.search and flags.explain:
        raise usage_error("--search and --explain are two different questions; ask one at a time")
    repeat = _command_line(context)
    with hide_native_logs():
        if flags.explain:
            _explain(flags, repeat)
        elif flags.search:
            _search(flags, repeat)
        else:
            _convert(flags, repeat)


def _convert(flags: _Flags, repeat: str) -> None:
    from convert.conversion import (
        apply_recipe,
        check_budget,
        check_data,
        check_names,
        with_measured_latency,
    )
    from convert.outcome import as_data, as_text
    from convert.progress import Progress

    recipe, budget = _recipe(flags), _budget(flags)
    check_names(flags.name, flags.version)
    target = _target(flags)
    check_data(recipe, representative=flags.representative, training=flags.train)
    with Progress() as progress:
        workbench = _opened(flags, _workbench_options(flags), progress)
        budget.check_possible(labelled=workbench.labelled)
        conversion = apply_recipe(
            workbench,
            recipe,
            name=flags.name,
            version=flags.version,
            bounds=_bounds(flags),
            max_drop=budget.max_drop,
        )
        if budget.max_latency_ms is not None:
            progress("measuring its latency")
            conversion = with_measured_latency(conversion)
        if flags.report is not None:
            from convert.report_pages import conversion_page

            # A conversion that misses its budget is the one whose page is wanted most.
            _write_report(flags, conversion_page(conversion, budget, repeat, progress=progress))
    check_budget(conversion, budget)
    conversion.save(target, overwrite=flags.overwrite)
    emit(as_data(conversion, target), lambda: as_text(conversion, target))


def _search(flags: _Flags, repeat: str) -> None:
    from convert.conversion import check_names
    from convert.outcome import search_data, search_text
    from convert.progress import Progress
    from convert.recipe_options import own_training
    from convert.recipes import Precision, Rule
    from convert.search import TrialStore, WorkbenchSpec, search_workbench

    if flags.recipe != _DEFAULT_RECIPE:
        raise usage_error("--search chooses the recipe; leave --recipe out")
    budget = _budget(flags)
    check_names(flags.name, flags.version)
    target = _target(flags)
    options = _workbench_options(flags)
    with Progress() as progress:
        workbench = _opened(flags, options, progress)
        found = search_workbench(
            workbench,
            budget,
            name=flags.name,
            version=flags.version,
            bounds=_bounds(flags),
            rules=tuple(Rule(layers=each, precision=Precision.FLOAT32) for each in flags.keep_float),
            training=own_training(
                epochs=flags.epochs,
                learning_rate=flags.learning_rate,
                seed=flags.seed,
                train_function=flags.train_function,
            ),
            store=TrialStore(flags.cache) if flags.cache is not None else None,
            deadline_s=flags.search_minutes * 60,
            spec=WorkbenchSpec(source=flags.source, options=options),
            ray_address=flags.ray_address,
            progress=progress,
        )
    if flags.report is not None:
        from convert.report_pages import search_page

        _write_report(flags, search_page(found, workbench, repeat))
    if found.chosen is None or found.bundle is None:
        raise found.refusal()
    found.bundle.save(target, overwrite=flags.overwrite)
    emit(search_data(found, workbench, target), lambda: search_text(found, target))


def _explain(flags: _Flags, repeat: str) -> None:
    from convert.explanation import explain
    from convert.outcome import explanation_data, explanation_text
    from convert.progress import Progress

    if flags.report is not None:
        check_writable(flags.report, overwrite=flags.overwrite)
    precision = _explained_precision(flags)
    with Progress() as progress:
        workbench = _opened(flags, _workbench_options(flags), progress)
        explanation = explain(workbench, precision, progress=progress.advance)
    if flags.report is not None:
        from convert.report_pages import explanation_page

        _write_report(flags, explanation_page(explanation, workbench, repeat))
    emit(explanation_data(explanation), lambda: explanation_text(explanation))


def _explained_precision(flags: _Flags) -> Precision:
    """What layers are quantised to: the recipe's, where one is named, else int8."""
    from convert.recipes import Precision

    if flags.recipe == _DEFAULT_RECIPE:
        return Precision.INT8
    precision = _recipe(flags).quantization.precision
    if precision is Precision.FLOAT32:
        raise usage_error("--explain asks what quantising costs; name a recipe that quantises, such as int8")
    return precision


def _recipe(flags: _Flags) -> Recipe:
    from convert.recipe_options import with_options
    from convert.recipes import load_recipe

    return with_options(
        load_recipe(flags.recipe),
        keep_float=flags.keep_float,
        method=None if flags.method is None else Method(flags.method),
        calibration=None if flags.calibration is None else Calibration(flags.calibration),
        equalize=flags.equalize,
        sparsity=flags.sparsity,
        clusters=flags.clusters,
        epochs=flags.epochs,
        learning_rate=flags.learning_rate,
        seed=flags.seed,
        train_function=flags.train_function,
    )


def _budget(flags: _Flags) -> Budget:
    from convert.budget import Budget, parse_size

    return Budget(
        max_drop=flags.max_drop,
        max_size=None if flags.max_size is None else parse_size(flags.max_size),
        max_latency_ms=flags.max_latency_ms,
        min_agreement=flags.min_agreement,
    )


def _bounds(flags: _Flags) -> ParityBounds | None:
    from convert.recipes import ParityBounds

    return None if flags.min_snr_db is None else ParityBounds(min_snr_db=flags.min_snr_db)


def _workbench_options(flags: _Flags) -> dict[str, Any]:
    """Arguments of `open_workbench`, but for the source and its progress."""
    from convert.preprocessing_file import load_preprocessing
    from convert.sources import parse_input

    return {
        "representative": flags.representative,
        "evaluation": flags.eval,
        "training": flags.train,
        "slices": flags.slice,
        "preprocessing": load_preprocessing(flags.preprocessing) if flags.preprocessing is not None else (),
        "labels": _read_labels(flags.labels) if flags.labels is not None else (),
        "batch_size": flags.batch_size,
        "shapes": dict(map(parse_input, flags.input)),
        "signature": flags.signature,
        "custom": flags.custom,
        "channels_last": flags.channels_last,
        "constants": dict(map(_constant, flags.constant)),
    }


def _constant(text: str) -> tuple[str, str]:
    name, separator, value = text.rpartition("=")
    if not (name and separator and value):
        raise usage_error(f"--constant takes NAME=VALUE, such as sr=16000; received '{text}'")
    return name, value


def _opened(flags: _Flags, options: dict[str, Any], progress: Progress) -> Workbench:
    from convert.workbench import open_workbench

    workbench = open_workbench(flags.source, **options, progress=progress)
    for warning in workbench.warnings:
        progress(f"warning: {warning}")
    return workbench


def _write_report(flags: _Flags, page: str) -> None:
    if flags.report is not None:
        write_file(flags.report, page.encode(), overwrite=flags.overwrite)
        say(f"report: {flags.report}")


def _target(flags: _Flags) -> Path:
    """Where the bundle goes; refuses what cannot be written before anything is converted."""
    from convert.conversion import default_name

    target = Path(flags.output or ".")
    if target.is_dir():
        target /= f"{flags.name or default_name(Path(flags.source).name)}-{flags.version}.edge"
    check_writable(target, overwrite=flags.overwrite)
    if flags.report is not None:
        check_writable(flags.report, overwrite=flags.overwrite)
    return target


def _command_line(context: click.Context) -> str:
    """The command that repeats this one, with every flag that was given in any way."""
    words: list[str] = []
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        source = context.get_parameter_source(str(parameter.name))
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif (
            source is not None
            and source.name not in ("DEFAULT", "DEFAULT_MAP")
            and value not in (None, (), False)
        ):
            flag = f"--{parameter.name}".replace("_", "-")
            each = value if isinstance(value, tuple) else (value,)
            words += [flag] if value is True else [word for one in each for word in (flag, str(one))]
    return f"hybridge convert {shlex.join(words)}"


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
