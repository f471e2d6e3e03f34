"""Models as an endpoint serves them: what each must have, the queue in front of it, and those for known formats."""

from cloud_fallback.endpoint.served.model_queue import Batching, ModelQueue
from cloud_fallback.endpoint.served.served_model import ServedModel, TimeLeft, no_limit

__all__ = ["Batching", "ModelQueue", "ServedModel", "TimeLeft", "no_limit"]
