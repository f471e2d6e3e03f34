"""A trained model in, a verified bundle out."""

from __future__ import annotations

import os
import re
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec

from convert.budget import Budget
from convert.data import DataSource
from convert.quantization import Coverage, SparsityReport, coverage, encode_sparse, operations, quantize
from convert.recipes import ParityBounds, Precision, Recipe, load_recipe
from convert.sources import Shape, Source
from convert.training import FineTuned
from convert.verification import check_parity, measure_accuracy, measure_parity, run_converted
from convert.workbench import Workbench, open_workbench
from edge_runtime import __version__
from edge_runtime.bundle import Bundle
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.manifest import (
    SCHEMA_VERSION,
    Accuracy,
    Confidence,
    Lineage,
    Manifest,
    Metrics,
    Name,
    Parity,
    RawInput,
    Requirements,
    Signature,
    Size,
)
from edge_runtime.model import Model
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["Conversion", "apply_recipe", "convert", "default_name"]


@dataclass(frozen=True)
class Conversion:
    """A converted model, checked against its source.

    Attributes:
        bundle: The bundle; its manifest holds what was measured.
        recipe: What made the model smaller.
        coverage: Which operators were quantised, and which stayed float.
        parity: How far its outputs are from the source's.
        size: Bytes of the source's weights and of the model.
        accuracy: Before and after, where labelled data was given.
        sparsity: Which weights are stored sparse, and why others are not.
        fine_tuned: What training did, for a recipe that trains.
        outputs: Outputs of the converted model for the samples that it was compared on.
        workbench: The source and the data that it was made and judged with.
    """

    bundle: Bundle
    recipe: Recipe
    coverage: Coverage
    parity: Parity
    size: Size
    accuracy: Accuracy | None
    sparsity: SparsityReport
    fine_tuned: FineTuned | None
    outputs: Mapping[str, Array]
    workbench: Workbench = field(repr=False)

    @property
    def latency_ms(self) -> float | None:
        """Median time of a run on this machine, where it was measured."""
        latency = self.bundle.manifest.metrics.latency
        return latency[0].median_ms if latency else None

    def misses(self, budget: Budget) -> tuple[str, ...]:
        """What it costs beyond a budget, a phrase each."""
        return budget.misses(
            size=self.size, accuracy=self.accuracy, parity=self.parity, latency_ms=self.latency_ms
        )

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes the bundle; see `edge_runtime.Bundle.save`."""
        return self.bundle.save(path, overwrite=overwrite)


def convert(
    source: Any,
    *,
    recipe: str | Recipe = "float32",
    name: str | None = None,
    version: str = "1",
    representative: DataSource | None = None,
    evaluation: DataSource | None = None,
    training: DataSource | None = None,
    slices: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
    preprocessing: tuple[RawInput, ...] = (),
    confidence: Confidence | None = None,
    batch_size: int = 1,
    shapes: Mapping[str, Shape] | None = None,
    signature: str | None = None,
    custom: tuple[str, ...] = (),
    channels_last: bool = False,
    constants: Mapping[str, Any] | None = None,
    bounds: ParityBounds | None = None,
    budget: Budget | None = None,
    progress: Callable[[str], None] | None = None,
) -> Conversion:
    """Converts a trained model, and checks on samples that it still computes the same.

    The same source, data and options give the same bytes, when the recipe does not train.

    Args:
        source: A path to a `.keras`, `.h5`, `.onnx` or float `.tflite` file or a SavedModel folder, a built Keras
            model, or a `Source`.
        recipe: A recipe, the name of one, a TOML file that holds one, or a bundle that was made by one.
        name: What to call the bundle; the file's or model's own name without it.
        version: Of the bundle.
        representative: Samples as the device will see them, from which ranges of activations are read.
        evaluation: Samples to compare both models on; with an array ``label``, accuracy is measured too. Without it
            the representative samples serve, without those generated ones.
        training: Samples to fine-tune on, labelled or not, for recipes that train.
        slices: Arrays of the evaluation data by whose values accuracy is broken down; ``label`` is one.
        labels: Names of the classes.
        preprocessing: Steps from what a caller has to what the model takes; data is then given raw.
        confidence: How to read a confidence; without it, the maximum softmax of a classifier's only output.
        batch_size: Size to which the first dimension is fixed.
        shapes: Whole shapes of inputs with dimensions that may vary, by name; one given as ``width=320`` stays free.
        signature: Which signature of a SavedModel or `.tflite`.
        custom: Modules that register the classes a Keras file names.
        channels_last: Whether an ONNX model shall take and give images channels-last.
        constants: Values of inputs of an ONNX model that never change, which the converted model does not take.
        bounds: How far from the source the outputs may be, in place of the recipe's own bounds; without any limit in
            it, outputs need not depend on the inputs either. After training the reference is the trained model.
        budget: What the conversion may cost.
        progress: Called with a line of text before each step.

    Raises:
        HybridgeError: `source-invalid`, `file-not-found`, `recipe-unknown`, `data-invalid`, `training-failed`,
            `conversion-failed`, `parity-failed`, `budget-missed`, `confidence-invalid`, `extra-missing`, `usage`.

    Example:
        >>> conversion = convert("digits.keras", recipe="int8", representative="train.npz", evaluation="test.npz")
        >>> conversion.accuracy.drop
        0.0028
        >>> conversion.save("digits-1.edge")
    """
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    check_names(name, version)
    check_data(chosen, representative=representative, training=training)
    workbench = open_workbench(
        source,
        representative=representative,
        evaluation=evaluation,
        training=training,
        slices=slices,
        preprocessing=preprocessing,
        labels=labels,
        confidence=confidence,
        batch_size=batch_size,
        shapes=shapes,
        signature=signature,
        custom=custom,
        channels_last=channels_last,
        constants=constants,
        progress=progress,
    )
    limits = budget or Budget()
    limits.check_possible(labelled=workbench.labelled)
    conversion = apply_recipe(
        workbench, chosen, name=name, version=version, bounds=bounds, max_drop=limits.max_drop
    )
    if limits.max_latency_ms is not None:
        conversion = with_measured_latency(conversion)
    check_budget(conversion, limits)
    return conversion


def apply_recipe(
    workbench: Workbench,
    recipe: Recipe,
    *,
    name: str | None = None,
    version: str = "1",
    bounds: ParityBounds | None = None,
    max_drop: float | None = None,
) -> Conversion:
    """Makes and checks one bundle.

    Args:
        workbench: The source and its data.
        recipe: What to do.
        name: What to call the bundle; the source's own name without it.
        version: Of the bundle.
        bounds: In place of the recipe's own.
        max_drop: Accuracy that may be lost: training stops early once it keeps well within.

    Raises:
        HybridgeError: As `convert`.
    """
    bundle_name = name or default_name(workbench.source.name)
    source, tuned = workbench.source, None
    if recipe.training is not None:
        workbench.report(f"fine-tuning for recipe {recipe.name}")
        in_int4 = recipe.quantization.precision in (Precision.INT4, Precision.INT4_BLOCK32)
        # Only rounding in training asks for it; other trainings are the same for every ending.
        bits = 4 if recipe.training.qat and in_int4 else 8
        tuned = workbench.fine_tuned(recipe.training, weight_bits=bits, max_drop=max_drop)
        source = source.with_weights(tuned.weights)
    workbench.report(f"converting with recipe {recipe.name}")
    float_model = (
        workbench.float_model if tuned is None else source.export(workbench.exported or workbench.inputs)
    )
    if recipe.quantization.equalizes:
        float_model = workbench.equalized(float_model)
    ranges = workbench.ranges(float_model) if recipe.needs_representative else None
    content, sparsity = encode_sparse(quantize(float_model, recipe.quantization, ranges))
    model = _sound(content, source)
    workbench.report("comparing it with the source")
    samples, expected = workbench.judged, workbench.expected
    received = run_converted(model, samples)
    limits = bounds or recipe.bounds
    if limits != ParityBounds():
        workbench.check_informative()
    # What conversion may change is bounded beside the model that was converted; what training changed, accuracy shows.
    reference = expected if tuned is None else source.predict(samples.inputs)
    check_parity(reference, received, limits, bundle_name)
    scores = workbench.scores
    parity = measure_parity(expected, received, generated=workbench.generated, scores=scores)
    accuracy = _accuracy(workbench, received)
    size = Size(
        source=workbench.source.weight_bytes,
        model=len(content),
        deflated=len(zlib.compress(content, 9)),
    )
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=bundle_name,
        version=version,
        signature=_signature(model, workbench),
        preprocessing=workbench.preprocessing,
        labels=workbench.labels,
        confidence=workbench.confidence,
        metrics=Metrics(accuracy=accuracy, parity=parity, size=size),
        lineage=_lineage(workbench, recipe),
        metadata=dict(getattr(workbench.source, "metadata", {})),
        requirements=Requirements(
            operators=tuple(sorted({operation.name for operation in operations(content)}))
        ),
    )
    bundle = Bundle.create(manifest, {manifest.model: content})
    return Conversion(
        bundle=bundle,
        recipe=recipe,
        coverage=coverage(content, recipe.quantization),
        parity=parity,
        size=size,
        accuracy=accuracy,
        sparsity=sparsity,
        fine_tuned=tuned,
        outputs=received,
        workbench=workbench,
    )


def check_budget(conversion: Conversion, budget: Budget) -> None:
    """Refuses a conversion that costs more than it may.

    Raises:
        HybridgeError: `budget-missed`, with what it reached.
    """
    if misses := conversion.misses(budget):
        raise HybridgeError(
            ErrorCode.BUDGET_MISSED,
            f"recipe '{conversion.recipe.name}'",
            received=", ".join(misses),
            expected="a model within the budget",
            fix="use another recipe, or let --search find one",
        )


def with_measured_latency(conversion: Conversion) -> Conversion:
    """The conversion with the latency of its bundle on this machine, one thread, in the manifest."""
    from edge_runtime.latency import measure_latency, with_latency

    with tempfile.TemporaryDirectory(prefix="hybridge-") as folder:
        probes = measure_latency(conversion.save(Path(folder) / "model.edge"), runs=50)
    return replace(conversion, bundle=with_latency(conversion.bundle, probes))


def default_name(source: str) -> str:
    """The bundle name for a source of that name: without suffix, other characters than a name may have as ``-``."""
    stem = re.sub(r"\.(keras|h5|hdf5|onnx|tflite)$", "", source)
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", stem).strip("-._+") or "model"


def check_data(recipe: Recipe, *, representative: object | None, training: object | None) -> None:
    """Refuses a recipe whose data was not given, before anything is loaded.

    Raises:
        HybridgeError: `data-invalid`.
    """
    if recipe.needs_representative and representative is None:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            f"recipe '{recipe.name}'",
            received="no representative dataset",
            expected="some hundred inputs as the device will see them",
            fix="give them (representative=, or --representative data.npz)",
        )
    if recipe.training is not None and training is None and representative is None:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            f"recipe '{recipe.name}'",
            received="no samples to train on",
            expected="some thousand samples, labelled or not",
            fix="give them (training=, or --train data.npz)",
        )


def check_names(name: str | None, version: str) -> None:
    """Refuses a name or version that a bundle cannot have.

    Raises:
        HybridgeError: `usage`.
    """
    for what, text in (("name", name), ("version", version)):
        try:
            msgspec.convert(text, Name | None)
        except msgspec.ValidationError as error:
            raise HybridgeError(
                ErrorCode.USAGE,
                f"bundle {what}",
                received=f"'{text}'",
                expected="letters, digits and . _ + -, beginning with a letter or digit, at most 128",
            ) from error


def _sound(content: bytes, source: Source) -> Model:
    """The converted model, loaded, with the names and types of its source."""
    model = Model(content)
    for kind, wanted, got in (
        ("inputs", source.inputs, model.inputs),
        ("outputs", source.outputs, model.outputs),
    ):
        if {spec.name for spec in wanted} != {spec.name for spec in got}:
            raise HybridgeError(
                ErrorCode.CONVERSION_FAILED,
                f"{kind} of the converted model",
                received=", ".join(spec.name for spec in got),
                expected=", ".join(spec.name for spec in wanted),
                fix="leave out what the model does not use",
            )
    return model


def _signature(model: Model, workbench: Workbench) -> Signature:
    """What the bundle takes and returns; dimensions that stayed free have the names that the caller or source gave."""
    source = workbench.source
    return Signature(
        _named(model.inputs, workbench.exported),
        _named(model.outputs, source.outputs),
        model.signature_key,
        getattr(source, "layout", None),
        {
            name: int(size)
            for free, fixed in zip(workbench.exported, workbench.inputs, strict=False)
            for name, size in zip(free.shape, fixed.shape, strict=True)
            if isinstance(name, str)
        },
    )


def _named(specs: tuple[TensorSpec, ...], sources: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    shapes = {spec.name: spec.shape for spec in sources}
    return tuple(
        replace(
            spec,
            shape=tuple(
                name if isinstance(size, str) and isinstance(name, str) else size
                for size, name in zip(spec.shape, shapes.get(spec.name, ()), strict=True)
            ),
        )
        if len(shapes.get(spec.name, ())) == len(spec.shape)
        else spec
        for spec in specs
    )


def _accuracy(workbench: Workbench, received: Mapping[str, Array]) -> Accuracy | None:
    data, scores = workbench.evaluation, workbench.scores
    if data is None or data.labels is None:
        return None
    if scores is None:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            "evaluation data",
            received="labels, for a model without one output of class scores",
            expected="labels for a classifier",
            fix="leave 'label' out, or name the output in confidence",
        )
    return measure_accuracy(workbench.expected[scores], received[scores], data.labels, slices=data.slices)


def _lineage(workbench: Workbench, recipe: Recipe) -> Lineage:
    from importlib import metadata

    source, calibration, evaluation = workbench.source, workbench.calibration, workbench.evaluation
    tools = [*source.tools, "litert-quantizer"]
    trained_on = None
    if recipe.training is not None:
        tools += ["tensorflow-model-optimization", "tf-keras"]
        trained_on = workbench.training or calibration
    return Lineage(
        source=source.name,
        source_digest=source.digest,
        recipe=recipe.name,
        recipe_definition=recipe.to_builtins(),
        calibration_digest=calibration.digest
        if calibration is not None and recipe.needs_representative
        else None,
        training_digest=None if trained_on is None else trained_on.digest,
        evaluation_digest=None if evaluation is None else evaluation.digest,
        tools={"hybridge": __version__, **{tool: metadata.version(tool) for tool in tools}},
        time=_time(source),
    )


def _time(source: Source) -> str | None:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return source.saved_at
    try:
        return datetime.fromtimestamp(int(epoch), UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError) as error:
        raise HybridgeError(
            ErrorCode.USAGE, "SOURCE_DATE_EPOCH", received=f"'{epoch}'", expected="seconds since 1970"
        ) from error
