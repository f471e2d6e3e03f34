"""What a request to the cloud costs, and what a wrong answer does."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["Cost"]

_Amount = Annotated[float, Meta(ge=0)]


class Cost(Struct, frozen=True, forbid_unknown_fields=True):
    """Prices in any one currency, for the rule that asking must be worth it.

    Asking pays when the errors that it is expected to spare are worth more than the request: Chow's rule ("On optimum
    recognition error and reject tradeoff", IEEE Transactions on Information Theory 16, 1970) with a cloud that is
    not free of errors either. It takes the confidence for a probability, so it needs a calibrated one.

    Attributes:
        error: What a wrong answer costs.
        request: What a request costs.
        megabyte: What a million bytes sent cost.
        cloud_accuracy: Share of the cloud's answers that are right, for inputs such as are asked about.
    """

    error: _Amount
    request: _Amount = 0.0
    megabyte: _Amount = 0.0
    cloud_accuracy: Annotated[float, Meta(ge=0, le=1)] = 1.0

    def is_worth(self, confidence: float, request_bytes: int) -> bool:
        """Whether a request of so many bytes is expected to save more than it costs."""
        spared = max(self.cloud_accuracy - confidence, 0.0) * self.error
        return spared > self.request + self.megabyte * request_bytes / 1e6
