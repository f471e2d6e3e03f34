"""Ranges of what a float model computes, read once from representative samples and used by every recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from convert.libraries import load_library
from convert.quantization.activations import read_tensors
from convert.quantization.clipping import least_error_ranges
from convert.quantization.flatbuffer import operations
from convert.quantization.quiet import quiet
from convert.recipes import Calibration
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.model import Model
from edge_runtime.tensor_spec import Array

__all__ = ["Ranges", "calibrate"]

# Samples between two reports of progress.
_CHUNK = 32
# Enough to see how the inputs of a layer vary together; every one is kept in memory until a recipe asks.
_KEPT_SAMPLES = 256


@dataclass(frozen=True)
class Ranges:
    """The range of every tensor that a float model computes, over representative samples.

    Attributes:
        content: The float `.tflite`.
        samples: How many were read.
        bounds: Smallest and largest value of each tensor over all samples, by the tensor's name.
        averages: A moving average of each sample's own smallest and largest value, in the same form.
        kept: The first samples, for methods that need more than ranges.
    """

    content: bytes = field(repr=False)
    samples: int
    bounds: Mapping[str, tuple[float, float]] = field(repr=False)
    averages: Mapping[str, tuple[float, float]] = field(repr=False)
    kept: tuple[Mapping[str, Array], ...] = field(repr=False)

    def statistics(self, calibration: Calibration, *, bits: int, squares: bool) -> dict[str, dict[str, Any]]:
        """What litert-quantizer takes as the result of a calibration, by tensor name.

        Args:
            calibration: Which ranges.
            bits: Of an activation.
            squares: Whether to add the mean squares that OSCAR needs.
        """
        ranges = self.averages if calibration is Calibration.MOVING_AVERAGE else self.bounds
        if calibration is Calibration.MSE:
            ranges = least_error_ranges(self.content, self.kept, self.bounds, bits=bits)
        mean_squares = self._squares if squares else {}
        return {
            name: {
                "min": np.array([low], np.float32),
                "max": np.array([high], np.float32),
                **(
                    {"mu2": mean_squares[name], "num_samples": len(self.kept)} if name in mean_squares else {}
                ),
            }
            for name, (low, high) in ranges.items()
        }

    @cached_property
    def _squares(self) -> dict[str, Array]:
        """The mean square of each channel that a dense layer reads.

        litert-quantizer adds them up itself, and fails on models with loops.
        """
        layers = {
            each.inputs[0]: weight.shape[-1]
            for each in operations(self.content)
            if each.main and each.name == "FULLY_CONNECTED"
            for weight in each.weights
            if weight.position == 1
        }
        found: dict[str, list[Array]] = {name: [] for name in layers}
        for tensors in read_tensors(self.content, self.kept, tuple(layers)):
            for name, values in tensors.items():
                found[name].append(np.square(values.reshape(-1, layers[name]), dtype=np.float64).mean(axis=0))
        return {name: np.mean(each, axis=0) for name, each in found.items() if each}


def calibrate(
    content: bytes, samples: Iterable[Mapping[str, Array]], *, progress: Callable[[int], None] | None = None
) -> Ranges:
    """Runs a float model on representative samples and notes the range of every tensor.

    Args:
        content: The float `.tflite`, with one signature.
        samples: Inputs of the model as it is fed in use, an array for each name; read once.
        progress: Called with the number of samples read so far, now and then.

    Raises:
        HybridgeError: `data-invalid` for no samples, or samples that the model does not take.
    """
    library, key = _library(), Model(content).signature_key
    calibrator = library.Calibrator(
        content,
        num_threads=1,
        # Gathers ranges in the runtime instead of from a copy of every tensor: the same ranges, five times as fast.
        mode=library.CalibrationMode.CALIBRATION_PROFILER_BASED,
        qsv_update_func=_update,
    )
    manager = load_library("litert_quantizer.recipe_manager").RecipeManager()  # unused, and asked for
    count, kept = 0, list[Mapping[str, Array]]()
    for chunk in _chunks(samples):
        kept += chunk[: _KEPT_SAMPLES - len(kept)]
        try:
            with quiet():
                calibrator.calibrate({key: chunk}, manager)
        except (ValueError, RuntimeError) as error:
            raise _unfit(" ".join(str(error).split())) from error
        count += len(chunk)
        if progress is not None:
            progress(count)
    if not count:
        raise _unfit("no representative samples")
    found = calibrator.get_model_qsvs()
    return Ranges(
        content,
        count,
        bounds=_ranges(found, "min", "max"),
        averages=_ranges(found, "average_min", "average_max"),
        kept=tuple(kept),
    )


def _update(known: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    # The library's own moving average of each sample's range gives a sample of batch size one a weight of 5%: ranges
    # come out too narrow and depend on the order of the samples. The true minimum and maximum over all samples are
    # what a calibration means; both are kept, and a recipe chooses.
    updates = load_library("litert_quantizer.utils.qsv_utils")
    average = {"min": known.get("average_min", known["min"]), "max": known.get("average_max", known["max"])}
    moved = updates.moving_average_update(average, new)
    bounds: dict[str, Any] = updates.min_max_update(known, new)
    return {**bounds, "average_min": moved["min"], "average_max": moved["max"]}


def _ranges(found: Mapping[str, Mapping[str, Any]], low: str, high: str) -> dict[str, tuple[float, float]]:
    ranges = {
        name: (float(each.get(low, each["min"])[0]), float(each.get(high, each["max"])[0]))
        for name, each in found.items()
    }
    # Operators on tensors without a range stay float, such as a mask of minus infinity.
    return {name: bounds for name, bounds in sorted(ranges.items()) if np.isfinite(bounds).all()}


def _chunks(samples: Iterable[Mapping[str, Array]]) -> Iterator[list[dict[str, Array]]]:
    remaining = iter(samples)
    while chunk := [dict(sample) for sample in islice(remaining, _CHUNK)]:
        yield chunk


def _library() -> Any:
    return load_library("litert_quantizer.calibrator")


def _unfit(received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.DATA_INVALID,
        "calibration",
        received=received,
        expected="some hundred inputs as the device will see them",
        fix="give them (representative=, or --representative data.npz)",
    )
