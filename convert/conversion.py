"""A trained model in, a verified bundle out."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from convert.data import Dataset, DataSource, generate, load_dataset
from convert.sources.export import pinned
from convert.quantization.flatbuffer import operations
from convert.quantization.quantize import Coverage, coverage, quantize
from convert.recipes import ParityBounds, Recipe, find_recipe
from convert.sources.source import Source, open_source
from convert.verification import (
    check_informative,
    check_parity,
    measure_accuracy,
    measure_parity,
    run_converted,
)
from edge_runtime import __version__
from edge_runtime.bundle import Bundle
from edge_runtime.confidence import Scorer
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
from edge_runtime.preprocessing import Preprocessor
from edge_runtime.tensor_spec import Array

__all__ = ["Conversion", "convert", "default_name"]

# Enough to see what a conversion does to a model, few enough to wait for.
_GENERATED_SAMPLES = 32


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
    """

    bundle: Bundle
    recipe: Recipe
    coverage: Coverage
    parity: Parity
    size: Size
    accuracy: Accuracy | None

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
    labels: tuple[str, ...] = (),
    preprocessing: tuple[RawInput, ...] = (),
    confidence: Confidence | None = None,
    batch_size: int = 1,
    bounds: ParityBounds | None = None,
    progress: Callable[[str], None] | None = None,
) -> Conversion:
    """Converts a trained model, and checks on samples that it still computes the same.

    The same source, data and options give the same bytes.

    Args:
        source: A path to a `.keras` file, a built `keras.Model`, or a `Source`.
        recipe: A recipe, or the name of one.
        name: What to call the bundle; the file's or model's own name without it.
        version: Of the bundle.
        representative: Samples as the device will see them, from which `int8` reads the ranges of activations.
        evaluation: Samples to compare both models on; with an array ``label``, accuracy is measured too. Without it
            the representative samples serve, without those generated ones.
        labels: Names of the classes.
        preprocessing: Steps from what a caller has to what the model takes; data is then given raw.
        confidence: How to read a confidence; without it, the maximum softmax of a classifier's only output.
        batch_size: Size to which the first dimension is fixed.
        bounds: How far from the source the outputs may be, in place of the recipe's own bounds; without any limit in
            it, outputs need not depend on the inputs either.
        progress: Called with a line of text before each step.

    Raises:
        HybridgeError: `source-invalid`, `file-not-found`, `recipe-unknown`, `data-invalid`, `conversion-failed`,
            `parity-failed`, `confidence-invalid`, `extra-missing`, `usage`.

    Example:
        >>> conversion = convert("digits.keras", recipe="int8", representative="train.npz", evaluation="test.npz")
        >>> conversion.accuracy.drop
        0.0028
        >>> conversion.save("digits-1.edge")
    """
    report = progress or (lambda _: None)
    chosen = recipe if isinstance(recipe, Recipe) else find_recipe(recipe)
    _check_options(name, version, batch_size, preprocessing)
    report("loading the source model")
    opened = open_source(source)
    inputs = pinned(opened.inputs, batch_size, opened.name)
    _check_preprocessing(preprocessing, tuple(spec.name for spec in inputs))
    report("reading data")
    calibration = None if representative is None else load_dataset(representative, inputs, preprocessing)
    judged = None if evaluation is None else load_dataset(evaluation, inputs, preprocessing)
    report(f"converting with recipe {chosen.name}")
    content = quantize(
        opened.export(batch_size), chosen, calibration.batches(batch_size) if calibration is not None else ()
    )
    model = _sound(content, opened)
    report("comparing it with the source")
    samples = judged or calibration or generate(inputs, _GENERATED_SAMPLES, preprocessing)
    before, after = opened.predict(samples.inputs), run_converted(model, samples)
    bundle_name = name or default_name(opened.name)
    limits = bounds or chosen.bounds
    if limits != ParityBounds():
        check_informative(before, bundle_name)
    check_parity(before, after, limits, bundle_name)
    confidence = confidence or _confidence(before)
    scores = _scores(confidence, before, labels)
    parity = measure_parity(before, after, generated=judged is None and calibration is None, scores=scores)
    accuracy = _accuracy(judged, before, after, scores)
    size = Size(source=opened.weight_bytes, model=len(content), deflated=len(zlib.compress(content, 9)))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=bundle_name,
        version=version,
        signature=Signature(model.inputs, model.outputs, model.signature_key),
        preprocessing=preprocessing,
        labels=labels,
        confidence=confidence,
        metrics=Metrics(accuracy=accuracy, parity=parity, size=size),
        lineage=_lineage(opened, chosen, calibration if chosen.needs_representative else None),
        requirements=Requirements(
            operators=tuple(sorted({operation.name for operation in operations(content)}))
        ),
    )
    bundle = Bundle.create(manifest, {manifest.model: content})
    return Conversion(bundle, chosen, coverage(content, chosen), parity, size, accuracy)


def default_name(source: str) -> str:
    """The bundle name for a source of that name: without suffix, other characters than a name may have as ``-``."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", source.removesuffix(".keras")).strip("-._+") or "model"


def _check_options(
    name: str | None, version: str, batch_size: int, preprocessing: tuple[RawInput, ...]
) -> None:
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
    if batch_size < 1 or (preprocessing and batch_size != 1):
        raise HybridgeError(
            ErrorCode.USAGE,
            "batch size",
            received=str(batch_size),
            expected="1, as preprocessing makes one sample at a time" if preprocessing else "1 or more",
        )


def _check_preprocessing(preprocessing: tuple[RawInput, ...], inputs: tuple[str, ...]) -> None:
    Preprocessor(preprocessing)  # refuses steps that do not exist
    names = [raw.name for raw in preprocessing]
    if unknown := [name for name in names if name not in inputs or names.count(name) > 1]:
        raise HybridgeError(
            ErrorCode.CHAIN_INVALID,
            "preprocessing",
            received=f"steps for {', '.join(unknown)}",
            expected=f"steps for inputs among {', '.join(inputs)}, once each",
        )


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


def _confidence(outputs: dict[str, Array]) -> Confidence | None:
    """The maximum softmax of a model whose only output is a row of class scores."""
    (name, output), *others = outputs.items()
    if others or not _has_classes(output):
        return None
    probabilities = bool((output >= 0).all() and np.allclose(output.sum(axis=-1), 1.0, atol=1e-3))
    return Confidence(output=name, score="max-softmax", activation="softmax" if probabilities else "none")


def _scores(confidence: Confidence | None, outputs: dict[str, Array], labels: tuple[str, ...]) -> str | None:
    """The output with class scores, by which accuracy is judged."""
    if confidence is not None:
        Scorer(confidence, tuple(outputs))  # refuses one that the outputs do not fit
    name = confidence.output if confidence is not None and _has_classes(outputs[confidence.output]) else None
    if labels and name is not None and len(labels) != outputs[name].shape[-1]:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            "labels",
            received=f"{len(labels)} names",
            expected=f"{outputs[name].shape[-1]}, one for each class of output '{name}'",
            fix="give a name for each class, in the order of the classes",
        )
    return name


def _has_classes(output: Array) -> bool:
    return output.ndim == 2 and output.shape[-1] > 1 and output.dtype.kind == "f"


def _accuracy(
    data: Dataset | None, before: dict[str, Array], after: dict[str, Array], scores: str | None
) -> Accuracy | None:
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
    return measure_accuracy(before[scores], after[scores], data.labels)


def _lineage(source: Source, recipe: Recipe, calibration: Dataset | None) -> Lineage:
    from importlib import metadata

    tools = {tool: metadata.version(tool) for tool in (*source.tools, "litert-quantizer")}
    return Lineage(
        source=source.name,
        source_digest=source.digest,
        recipe=recipe.name,
        calibration_digest=None if calibration is None else calibration.digest,
        tools={"hybridge": __version__, **tools},
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
