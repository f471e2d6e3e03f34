"""How long a slow network may take, and when it is not slow but stalls."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Patience"]


@dataclass(frozen=True, slots=True)
class Patience:
    """Time for a body to come or to go.

    Attributes:
        grace_s: Seconds that any has.
        bytes_per_s: How many more it has one second more for; a modem of the last century was faster.
    """

    grace_s: float = 20.0
    bytes_per_s: float = 1000.0

    def time_for(self, size: int) -> float:
        """Seconds for a body of so many bytes."""
        return self.grace_s + size / self.bytes_per_s
