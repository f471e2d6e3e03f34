"""What a fleet of devices predicts in an hour, and how unevenly over the day."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Traffic", "read_profile"]

_MOST_PER_S = 1e9
# One in a century, and far from where a cost for each would have no number.
_LEAST_PER_HOUR = 1e-6
_FORM = "lines of an hour and its load, such as '8,350', none negative and not all 0"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Predictions of all devices together.

    Args:
        devices: How many there are.
        requests_per_hour: Predictions that one device makes in an hour, on average over the day.
        peak_factor: Load of the busiest hour over that average.
        hours: Load of each hour over the average; empty where it is not known.
        surge: How many times as many questions as usual the endpoint gets in the worst of times: devices that ask
            again, and outboxes that drain at once after an outage. An outbox that sends d in a second, of a device that
            otherwise asks r, makes 1 + d / r.

    Raises:
        HybridgeError: `usage` for numbers that are not of this kind.
    """

    devices: int
    requests_per_hour: float
    peak_factor: float = 1.0
    hours: tuple[float, ...] = ()
    surge: float = 1.0

    def __post_init__(self) -> None:
        rules = (
            ("devices", self.devices, 1.0),
            ("requests per hour", self.requests_per_hour, _LEAST_PER_HOUR),
            ("peak factor", self.peak_factor, 1.0),
            ("surge", self.surge, 1.0),
        )
        for name, value, least in rules:
            if not least <= value < math.inf:
                raise HybridgeError(
                    ErrorCode.USAGE,
                    f"{name} of the traffic",
                    received=f"{value:g}",
                    expected=f"{least:g} or more",
                )
        if self.arrivals_per_s(1.0) > _MOST_PER_S:
            raise HybridgeError(
                ErrorCode.USAGE,
                "traffic at its peak",
                received=f"{self.arrivals_per_s(1.0):.3g} predictions in a second",
                expected=f"at most {_MOST_PER_S:.0e}",
            )

    @classmethod
    def by_the_hour(
        cls, devices: int, requests_per_hour: float, *, hours: tuple[float, ...], surge: float = 1.0
    ) -> Traffic:
        """Traffic with a profile, whose peak is its busiest hour.

        Args:
            devices: As for the class.
            requests_per_hour: As for the class.
            hours: Load of each hour of a day or a week in any unit, none negative and not all 0.
            surge: As for the class.
        """
        # Of the peak first: the sum of the loads themselves may be too large for a number, and their mean too small.
        highest = max(hours)
        mean = sum(load / highest for load in hours) / len(hours)
        relative = tuple(load / highest / mean for load in hours)
        return cls(devices, requests_per_hour, max(relative), relative, surge)

    @property
    def predictions_per_s(self) -> float:
        """Predictions in a second, on average over the day."""
        return self.devices * self.requests_per_hour / 3600

    def arrivals_per_s(self, offloaded: float, factor: float | None = None) -> float:
        """Questions that reach the endpoint in a second.

        Args:
            offloaded: Share of predictions for which the cloud is asked, in 0..1.
            factor: Load over the average; by default that of the busiest hour.
        """
        return (
            self.predictions_per_s * offloaded * self.surge * (self.peak_factor if factor is None else factor)
        )


def read_profile(content: bytes, name: str) -> tuple[float, ...]:
    """The loads of a CSV file: the last column of each line, below a heading or none.

    Args:
        content: The file.
        name: What to call it in an error.

    Raises:
        HybridgeError: `data-invalid`, with the line.
    """
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise _invalid(name, str(error)) from error
    loads: list[float] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        cell = line.split(",")[-1].strip()
        try:
            load = float(cell)
        except ValueError:
            if not loads and number == 1:
                continue
            raise _invalid(name, f"'{cell}' in line {number}") from None
        if not 0 <= load < math.inf:
            raise _invalid(name, f"{load:g} in line {number}")
        loads.append(load)
    if not any(loads):
        raise _invalid(name, "no load at all")
    return tuple(loads)


def _invalid(name: str, received: str) -> HybridgeError:
    return HybridgeError(ErrorCode.DATA_INVALID, f"profile '{name}'", received=received, expected=_FORM)
