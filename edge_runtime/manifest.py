"""The manifest of a bundle: what a device must know about a model, as typed, versioned JSON.

Read with `Manifest.from_json`, which checks every field once; nothing behind it checks again. Unknown fields are
ignored, so that an older runtime reads the manifest of a newer minor release; what an older runtime must not
misread raises `schema_version`.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from edge_runtime import __version__
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import TensorSpec

__all__ = [
    "SCHEMA_VERSION",
    "Accuracy",
    "Confidence",
    "CurvePoint",
    "File",
    "Guarantee",
    "Latency",
    "Lineage",
    "Manifest",
    "Metrics",
    "Parity",
    "Positive",
    "PreprocessingStep",
    "RawInput",
    "Requirements",
    "Signature",
    "Size",
    "Slice",
]

SCHEMA_VERSION = 1

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=128)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Release = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=32)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
# Not `gt=0`, which msgspec keeps as the smallest subnormal: tflite-runtime's 32-bit Arm wheel turns subnormals off in
# the whole process, and 0 would pass.
Positive = Annotated[float, Meta(ge=sys.float_info.min)]


class Signature(Struct, frozen=True, omit_defaults=True):
    """Inputs and outputs of a model, in order, under the key that the `.tflite` gives them.

    `layout` says where images have their channels, for a source that may have them in either place; `sizes` at which
    size of each free dimension the bundle was compared, and is measured.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    key: str = "serving_default"
    layout: Literal["channels-first", "channels-last"] | None = None
    sizes: dict[str, Annotated[int, Meta(ge=1)]] = {}


class PreprocessingStep(Struct, frozen=True, omit_defaults=True):
    """One operator with its parameters."""

    operator: str
    params: dict[str, Any] = {}


class RawInput(Struct, frozen=True, omit_defaults=True):
    """What a caller gives for one model input, and the operators that turn it into the model's tensor."""

    name: str
    takes: TensorSpec
    steps: tuple[PreprocessingStep, ...]


class CurvePoint(Struct, frozen=True, omit_defaults=True):
    """Accuracy of device and cloud together, and the share offloaded, at one threshold."""

    threshold: Fraction
    accuracy: Fraction
    offloaded: Fraction


class Guarantee(Struct, frozen=True, omit_defaults=True):
    """What thresholds promise of examples of the kind that they were fitted on.

    Device and cloud together reach an accuracy of at least `target`, or at most that share is offloaded: with
    `confidence`, over draws of the `samples`, of which `tested` were tested by `method`. `bound` is the exact bound, at
    that confidence, that the test gave for these thresholds. The promise is that of all `tiers` together, in this
    order, with their thresholds of this fit, and with the cloud that was asked: `data_digest` is the SHA-256 of the
    samples and its answers.
    """

    kind: Literal["accuracy", "offload"]
    target: Fraction
    confidence: Fraction
    bound: Fraction
    samples: Annotated[int, Meta(ge=1)]
    tested: Annotated[int, Meta(ge=1)]
    method: str
    data_digest: Sha256
    tiers: tuple[str, ...] = ()


class Confidence(Struct, frozen=True, omit_defaults=True):
    """How one number in 0..1 is read from an output, and below which the cloud is asked.

    `score` names a function of `edge_runtime.confidence`; `activation` says whether `output` holds logits
    (``"none"``) or probabilities (``"softmax"``). `curve` is what the threshold was chosen from: that of this model
    and the cloud, or of several tiers together at this one's thresholds.
    """

    output: str
    score: str = "max-softmax"
    activation: str = "none"
    temperature: Positive = 1.0
    threshold: Fraction | None = None
    curve: tuple[CurvePoint, ...] = ()
    guarantee: Guarantee | None = None


class Slice(Struct, frozen=True, omit_defaults=True):
    """Top-1 accuracy on the examples whose array `name` has this `value`."""

    name: str
    value: str
    source: Fraction
    converted: Fraction
    samples: int

    @property
    def drop(self) -> float:
        """Accuracy lost on this slice, in -1..1."""
        return self.source - self.converted


class Accuracy(Struct, frozen=True, omit_defaults=True):
    """Top-1 accuracy of source and converted model on the same `samples` labelled examples, in total and by slice."""

    source: Fraction
    converted: Fraction
    samples: int
    slices: tuple[Slice, ...] = ()

    @property
    def drop(self) -> float:
        """Accuracy lost in conversion, in 0..1; negative when the converted model is the better one."""
        return self.source - self.converted


class Parity(Struct, frozen=True, omit_defaults=True):
    """How far the converted outputs are from the source's, over all outputs of `samples` inputs.

    `snr_db` and `cosine` are None where they are undefined: identical outputs, or outputs that are all zero.
    `data` says whether the inputs were the user's or generated.
    """

    max_abs_error: float
    mean_abs_error: float
    samples: int
    data: str
    snr_db: float | None = None
    cosine: float | None = None
    label_agreement: Fraction | None = None


class Size(Struct, frozen=True, omit_defaults=True):
    """Bytes of the source's weights in memory, of the `.tflite`, and of the `.tflite` deflated (over the air)."""

    source: int
    model: int
    deflated: int


class Latency(Struct, frozen=True, omit_defaults=True):
    """Time of one run in milliseconds, and the machine it was measured on."""

    machine: str
    runtime: str
    num_threads: int
    median_ms: float
    p95_ms: float
    runs: int


class Metrics(Struct, frozen=True, omit_defaults=True):
    """What was measured; a field that nobody measured is absent."""

    accuracy: Accuracy | None = None
    parity: Parity | None = None
    size: Size | None = None
    latency: tuple[Latency, ...] = ()


class Lineage(Struct, frozen=True, omit_defaults=True):
    """Where the model came from, enough to make it again: `recipe_definition` is the whole recipe as plain tables.

    `time` is not read from a clock: it is `SOURCE_DATE_EPOCH` where that is set, else the time that the source
    file itself records, so that the same input gives the same bytes.
    """

    source: str
    source_digest: str
    recipe: str
    recipe_definition: dict[str, Any] = {}
    calibration_digest: str | None = None
    training_digest: str | None = None
    evaluation_digest: str | None = None
    tools: dict[str, str] = {}
    time: str | None = None


class Requirements(Struct, frozen=True, omit_defaults=True):
    """What a device must have: the operators in the model, and the oldest hybridge that can read the bundle."""

    operators: tuple[str, ...] = ()
    hybridge: Release = "0.1"


class File(Struct, frozen=True, omit_defaults=True):
    """One member of the bundle beside the manifest."""

    path: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=255)]
    size: Annotated[int, Meta(ge=0)]
    sha256: Sha256


class Manifest(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Everything a device must know about the model in a bundle.

    `metadata` is what the source's file says of itself, text by key, such as a recogniser's characters.

    Example:
        >>> Bundle.open("digits-1.0.edge").manifest.signature.inputs[0].shape
        (1, 8, 8, 1)
    """

    schema_version: int
    name: Name
    version: Name
    signature: Signature
    model: str = "model.tflite"
    preprocessing: tuple[RawInput, ...] = ()
    labels: tuple[str, ...] = ()
    confidence: Confidence | None = None
    metrics: Metrics = Metrics()
    lineage: Lineage | None = None
    metadata: dict[str, str] = {}
    requirements: Requirements = Requirements()
    files: tuple[File, ...] = ()

    def to_json(self) -> bytes:
        """The manifest as JSON, the same bytes for the same content."""
        # Whole numbers and keys in one order; NaN would come back as null, so it is refused here.
        encoded = msgspec.json.encode(_finite(msgspec.to_builtins(self), "manifest"), order="deterministic")
        return msgspec.json.format(encoded, indent=1) + b"\n"

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """Reads and checks a manifest.

        Raises:
            HybridgeError: `bundle-too-new` for a schema this runtime does not know, or a bundle that asks for a later
                release; `bundle-invalid` for content that does not follow the schema.
        """
        try:
            version = msgspec.json.decode(content, type=_Versioned).schema_version
            if version > SCHEMA_VERSION:
                raise _too_new(f"schema version {version}", f"at most {SCHEMA_VERSION}")
            manifest = msgspec.json.decode(content, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HybridgeError(
                ErrorCode.BUNDLE_INVALID,
                "manifest.json",
                received=str(error),
                expected=f"a bundle manifest of schema version {SCHEMA_VERSION}",
                fix="convert the model again",
            ) from error
        needed = manifest.requirements.hybridge
        if _release(needed) > _release(__version__):
            raise _too_new(f"a bundle for hybridge {needed} or later", f"hybridge {__version__} or earlier")
        return manifest


class _Versioned(Struct):
    schema_version: int


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _too_new(received: str, expected: str) -> HybridgeError:
    fix = "update hybridge on this device"
    return HybridgeError(
        ErrorCode.BUNDLE_TOO_NEW, "manifest.json", received=received, expected=expected, fix=fix
    )


def _finite(value: Any, where: str) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        raise HybridgeError(
            ErrorCode.BUNDLE_INVALID,
            where,
            received=str(value),
            expected="a finite number",
            fix="leave it out",
        )
    if isinstance(value, dict):
        return {key: _finite(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item, f"{where}[{index}]") for index, item in enumerate(value)]
    return value
