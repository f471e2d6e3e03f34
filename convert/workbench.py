"""A source model and its data, opened once, on which recipes are tried."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from convert.batch import batch_of
from convert.data import Dataset, DataSource, generate, load_dataset
from convert.recipes import Training
from convert.sources import Shape, Source, freed, open_source, pinned
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
# So do the widths of channels beside each other.
_WIDTH_SAMPLES = 128


@dataclass
class Workbench:
    """A source with its data; what no recipe changes is computed once and kept.

    Attributes:
        source: The trained model.
        inputs: What it takes, every dimension fixed.
        exported: The same with the dimensions free that stay so in the converted model.
        calibration: Representative samples, if given.
        evaluation: Samples to judge by, if given.
        training: Samples to fine-tune on, if given.
        preprocessing: From what a caller has to what the model takes.
        labels: Names of the classes.
        batch_size: Size of the first dimension; None where inputs share none, and a sample is a whole run.
    """

    source: Source
    inputs: tuple[TensorSpec, ...]
    exported: tuple[TensorSpec, ...] = ()
    calibration: Dataset | None = None
    evaluation: Dataset | None = None
    training: Dataset | None = None
    preprocessing: tuple[RawInput, ...] = ()
    labels: tuple[str, ...] = ()
    batch_size: int | None = 1
    given_confidence: Confidence | None = None
    report: Callable[[str], None] = lambda _: None
    _trained: dict[tuple[Training, int], FineTuned] = field(default_factory=dict)
    _equalized: dict[str, bytes] = field(default_factory=dict)
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

    @property
    def labelled(self) -> bool:
        """Whether accuracy can be measured."""
        return self.evaluation is not None and self.evaluation.labels is not None

    @cached_property
    def float_model(self) -> bytes:
        """The source as a float `.tflite`."""
        return self.source.export(self.exported or self.inputs)

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

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What about the data a reader must know, or looks wrong without being an error, a sentence each."""
        from convert.data import scale_warnings

        given = {"representative": self.calibration, "evaluation": self.evaluation, "training": self.training}
        notes = [f"{name} data: {note}" for name, data in given.items() if data for note in data.notes]
        model = getattr(self.source, "model", None)
        notes += getattr(self.source, "notes", ())
        return (*notes, *scale_warnings(self.calibration, self.evaluation, self.training, model=model))

    def check_informative(self) -> None:
        """Refuses samples on which any conversion looks right; see `convert.verification`."""
        check_informative(self.expected, self.source.name)

    def equalized(self, content: bytes) -> bytes:
        """A float `.tflite` of this model with its channels brought to like ranges; as it is without samples."""
        from convert.quantization import equalized

        if self.calibration is None:
            return content
        key = hashlib.sha256(content).hexdigest()
        if key not in self._equalized:
            samples = list(islice(self.calibration.batches(self.batch_size), _WIDTH_SAMPLES))
            self._equalized[key] = equalized(content, samples)
        return self._equalized[key]

    def ranges(self, content: bytes) -> Ranges:
        """Ranges of every tensor of a float `.tflite` of this model over the representative samples.

        Raises:
            HybridgeError: `data-invalid` without representative samples, or with samples that are all the same.
        """
        from convert.data import check_varied
        from convert.quantization import calibrate

        if self.calibration is None:
            raise HybridgeError(
                ErrorCode.DATA_INVALID,
                f"calibration of '{self.source.name}'",
                received="no representative dataset",
                expected="some hundred inputs as the device will see them",
                fix="give them (representative=, or --representative data.npz)",
            )
        key = hashlib.sha256(content).hexdigest()
        if key not in self._ranges:
            check_varied(self.calibration)
            self.report(f"calibrating on {len(self.calibration)} samples")
            self._ranges[key] = calibrate(content, self.calibration.batches(self.batch_size))
        return self._ranges[key]

    def fine_tuned(
        self, training: Training, *, weight_bits: int = 8, max_drop: float | None = None
    ) -> FineTuned:
        """The model's weights after fine-tuning, by distillation from the source and from labels where there are any.

        Raises:
            HybridgeError: `source-invalid` for a source that is no Keras model; `data-invalid` without samples;
                `training-failed`.
        """
        from convert.training import fine_tune

        key = (training, weight_bits)
        if key in self._trained:
            return self._trained[key]
        architecture = self.source.architecture
        if architecture is None:
            raise HybridgeError(
                ErrorCode.SOURCE_INVALID,
                f"source model '{self.source.name}'",
                received="a model that cannot be built again to train it",
                expected="a functional or sequential Keras model",
                fix="convert the Keras model that it was saved from, or use a recipe that does not train",
            )
        data = self.training or self.calibration
        if data is None:
            raise HybridgeError(
                ErrorCode.DATA_INVALID,
                "fine-tuning",
                received="no samples to train on",
                expected="some thousand samples, labelled or not",
                fix="give them (training=, or --train data.npz)",
            )
        targets = self.source.predict(data.inputs)
        self._trained[key] = fine_tune(
            architecture,
            training,
            inputs=data.inputs,
            targets=targets,
            labels=data.labels,
            scores=self.scores,
            weight_bits=weight_bits,
            max_drop=max_drop,
            progress=self.report,
        )
        return self._trained[key]


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
    shapes: Mapping[str, Shape] | None = None,
    signature: str | None = None,
    custom: tuple[str, ...] = (),
    channels_last: bool = False,
    constants: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Workbench:
    """Opens a source and its data; see `convert.convert` for the arguments.

    Raises:
        HybridgeError: `source-invalid`, `file-not-found`, `data-invalid`, `chain-invalid`, `extra-missing`, `usage`.
    """
    report = progress or (lambda _: None)
    report("loading the source model")
    opened = open_source(
        source, signature=signature, custom=custom, channels_last=channels_last, constants=constants
    )
    inputs = pinned(opened.inputs, batch_size, opened.name, shapes)
    batch = batch_of(inputs)
    fixed = None if batch is None else int(batch)
    _check_preprocessing(preprocessing, tuple(spec.name for spec in inputs), fixed)
    labels = labels or getattr(opened, "labels", ())
    if any(given is not None for given in (representative, evaluation, training)):
        report("reading data")

    def load(
        given: DataSource | None, *, limit: int | None = None, slices: tuple[str, ...] = ()
    ) -> Dataset | None:
        if given is None:
            return None
        return load_dataset(given, inputs, preprocessing, slices=slices, limit=limit, labels=labels)

    return Workbench(
        source=opened,
        inputs=inputs,
        exported=freed(opened.inputs, inputs, shapes),
        calibration=load(representative, limit=_CALIBRATION_SAMPLES),
        evaluation=load(evaluation, slices=slices),
        training=load(training),
        preprocessing=preprocessing,
        labels=labels,
        batch_size=fixed,
        given_confidence=confidence,
        report=report,
    )


def _check_preprocessing(
    preprocessing: tuple[RawInput, ...], inputs: tuple[str, ...], batch_size: int | None
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
    if (batch_size is not None and batch_size < 1) or (preprocessing and batch_size != 1):
        raise HybridgeError(
            ErrorCode.USAGE,
            "batch size",
            received=str(batch_size),
            expected="1, as preprocessing makes one sample at a time" if preprocessing else "1 or more",
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
