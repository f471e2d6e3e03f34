"""Models as an endpoint serves them: what each must have, and those for the formats that are known."""

from cloud_fallback.endpoint.served.served_model import ServedModel, TimeLeft, no_limit
from cloud_fallback.endpoint.served.turns import Turns

__all__ = ["ServedModel", "TimeLeft", "Turns", "no_limit"]
