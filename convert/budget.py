"""What a user allows a conversion to cost, and whether one keeps within it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.manifest import Accuracy, Parity, Size

__all__ = ["Budget", "parse_size"]

_UNITS = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits that a converted model must keep; None means no limit.

    Attributes:
        max_drop: Accuracy that may be lost, as a share: 0.01 is one point.
        max_size: Bytes of the `.tflite`.
        max_latency_ms: Median time of a run on this machine, on one thread.
        min_agreement: Share of samples on which source and converted model name the same class.
    """

    max_drop: float | None = None
    max_size: int | None = None
    max_latency_ms: float | None = None
    min_agreement: float | None = None

    def check_possible(self, *, labelled: bool) -> None:
        """Refuses a limit on accuracy without labels.

        Raises:
            HybridgeError: `usage`.
        """
        if self.max_drop is not None and not labelled:
            raise HybridgeError(
                ErrorCode.USAGE,
                "--max-drop",
                received="no labelled evaluation data",
                expected="samples with 'label' to measure accuracy on",
                fix="give --eval data with labels, or limit what needs none (--min-agreement)",
            )

    def misses(
        self, *, size: Size, accuracy: Accuracy | None, parity: Parity, latency_ms: float | None
    ) -> tuple[str, ...]:
        """What is out of bounds, a phrase each, such as ``drop 0.0213 (at most 0.01)``."""
        found: list[str] = []
        drop = None if accuracy is None else accuracy.drop
        # Shares of samples are fractions: what rounding adds must not decide.
        if self.max_drop is not None and (drop is None or drop > self.max_drop + 1e-9):
            found.append(f"drop {_shown(drop)} (at most {self.max_drop:g})")
        if self.max_size is not None and size.model > self.max_size:
            found.append(f"size {size.model:,} bytes (at most {self.max_size:,})")
        if self.max_latency_ms is not None and (latency_ms is None or latency_ms > self.max_latency_ms):
            found.append(f"latency {_shown(latency_ms)} ms (at most {self.max_latency_ms:g})")
        agreement = parity.label_agreement
        if self.min_agreement is not None and (agreement is None or agreement < self.min_agreement - 1e-9):
            found.append(f"agreement {_shown(agreement)} (at least {self.min_agreement:g})")
        return tuple(found)


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def parse_size(text: str) -> int:
    """Bytes from text such as ``300KB`` (1,000 bytes each), ``1.5MB``, ``512KiB`` or ``98496``.

    Raises:
        HybridgeError: `usage`.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS:
        raise HybridgeError(
            ErrorCode.USAGE, "size", received=f"'{text}'", expected="a number with B, KB, MB, KiB or MiB"
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])
