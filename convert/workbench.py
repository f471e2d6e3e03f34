"""A source model and its data, opened once, on which recipes are tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from convert.data import Dataset, DataSource, generate, load_dataset
from convert.recipes import Recipe, Training
from convert.sources import Source, open_source, pinned
from convert.verification import check_informative
from edge_runtime.confidence import Scorer
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.manifest import Confidence, RawInput
from edge_runtime.preprocessing import Preprocessor
from edge_runtime.tensor_spec import Array, TensorSpec

if TYPE_CHECKING:
    from convert.quantization import Ranges
    from convert.training import FineTuned

__all__ = ["Workbench", "open_workbench"]

# Enough to see what a conversion does to a model, few enough to wait for.
_GENERATED_SAMPLES = 32
# Ranges of activations settle long before that many samples.
_CALIBRATION_SAMPLES = 1000


@dataclass
class Workbench:
    """A source with its data; what no recipe changes is computed once and kept.

    Attributes:
        source: The trained model.
        inputs: What it takes, every dimension fixed.
        calibration: Representative samples, if given.
        evaluation: Samples to judge by, if given.
        training: Samples to fine-tune on, if given.
        preprocessing: From what a caller has to what the model takes.
        labels: Names of the classes.
        batch_size: Size of the first dimension.
    """

    source: Source
    inputs: tuple[TensorSpec, ...]
    calibration: Dataset | None = None
    evaluation: Dataset | None = None
    training: Dataset | None = None
    preprocessing: tuple[RawInput, ...] = ()
    labels: tuple[str, ...] = ()
    batch_size: int = 1
    given_confidence: Confidence | None = None
    report: Callable[[str], None] = lambda _: None
    _trained: dict[tuple[Training, int], FineTuned] = field(default_factory=dict)
    _ranges: dict[str, Ranges] = field(default_factory=dict)

    @cached_property
    def judged(self) -> Dataset:
        """The samples that source and converted models are compared on."""
        return (
            self.evaluation
            or self.calibration
            or generate(self.inputs, _GENERATED_SAMPLES, self.preprocessing)
        )

    @property
    def generated(self) -> bool:
        """Whether those samples had to be generated."""
        return self.evaluation is None and self.calibration is None

    @cached_property
    def expected(self) -> dict[str, Array]:
        """The source's outputs for the samples that are compared."""
        return self.source.predict(self.judged.inputs)

    @cached_property
    def float_model(self) -> bytes:
        """The source as a float `.tflite`."""
        return self.source.export(self.inputs)

    @cached_property
    def confidence(self) -> Confidence | None:
        """How a confidence is read: as given, else the maximum softmax of a classifier's only output."""
        return self.given_confidence or _confidence(self.expected)

    @cached_property
    def scores(self) -> str | None:
        """The output with class scores, by which accuracy is judged.

        Raises:
            HybridgeError: `confidence-invalid`; `data-invalid` for labels that do not fit.
        """
        return _scores(self.confidence, self.expected, self.labels)

    def check_informative(self) -> None:
        """Refuses samples on which any conversion looks right; see `convert.verification`."""
        check_informative(self.expected, self.source.name)


def open_workbench(
    source: Any,
    *,
    representative: DataSource | None = None,
    evaluation: DataSource | None = None,
    training: DataSource | None = None,
    slices: tuple[str, ...] = (),
    preprocessing: tuple[RawInput, ...] = (),
    labels: tuple[str, ...] = (),
    confidence: Confidence | None = None,
    batch_size: int = 1,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    signature: str | None = None,
    custom: tuple[str, ...] = (),
    progress: Callable[[str], None] | None = None,
) -> Workbench:
    """Opens a source and its data; see `convert.convert` for the arguments.

    Raises:
        HybridgeError: `source-invalid`, `file-not-found`, `data-invalid`, `chain-invalid`, `extra-missing`, `usage`.
    """
    report = progress or (lambda _: None)
    report("loading the source model")
    opened = open_source(source, signature=signature, custom=custom)
    inputs = pinned(opened.inputs, batch_size, opened.name, shapes)
    batch_size = int(inputs[0].shape[0])
    _check_preprocessing(preprocessing, tuple(spec.name for spec in inputs), batch_size)
    if any(given is not None for given in (representative, evaluation, training)):
        report("reading data")

    def load(given: DataSource | None, limit: int | None = None) -> Dataset | None:
        if given is None:
            return None
        return load_dataset(given, inputs, preprocessing, slices=slices, limit=limit)

    return Workbench(
        source=opened,
        inputs=inputs,
        calibration=load(representative, _CALIBRATION_SAMPLES),
        evaluation=load(evaluation),
        training=load(training),
        preprocessing=preprocessing,
        labels=labels,
        batch_size=batch_size,
        given_confidence=confidence,
        report=report,
    )


def _check_preprocessing(
    preprocessing: tuple[RawInput, ...], inputs: tuple[str, ...], batch_size: int
) -> None:
    Preprocessor(preprocessing)  # refuses steps that do not exist
    names = [raw.name for raw in preprocessing]
    if unknown := [name for name in names if name not in inputs or names.count(name) > 1]:
        raise HybridgeError(
            ErrorCode.CHAIN_INVALID,
            "preprocessing",
            received=f"steps for {', '.join(unknown)}",
            expected=f"steps for inputs among {', '.join(inputs)}, once each",
        )
    if preprocessing and batch_size != 1:
        raise HybridgeError(
            ErrorCode.USAGE,
            "batch size",
            received=str(batch_size),
            expected="1, as preprocessing makes one sample at a time",
        )


def _confidence(outputs: dict[str, Array]) -> Confidence | None:
    (name, output), *others = outputs.items()
    if others or not _has_classes(output):
        return None
    probabilities = bool((output >= 0).all() and np.allclose(output.sum(axis=-1), 1.0, atol=1e-3))
    return Confidence(output=name, score="max-softmax", activation="softmax" if probabilities else "none")


def _scores(confidence: Confidence | None, outputs: dict[str, Array], labels: tuple[str, ...]) -> str | None:
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
