"""What an endpoint says of a model: the types that it takes, and the versions that there are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cloud_fallback.client.connection import Connection
from cloud_fallback.client.payload import Declared
from cloud_fallback.open_inference.open_inference_pb2 import ModelMetadataResponse

__all__ = ["ModelCard", "declared_inputs"]

_AGAIN_AFTER_S = 30.0


class ModelCard:
    """A model's metadata, asked for in the background: once, and again when another version answers.

    Args:
        connection: To the endpoint.
        model: The model's name.
        version: Its version, or empty.
        on_change: Called when there are other versions than before.

    Attributes:
        declared: Datatype and rank of each input; empty while they are not known.
        versions: Versions that there are; empty while, or where, they are not known.
    """

    def __init__(self, connection: Connection, model: str, version: str, *, on_change: Callable[[], None]):
        self._connection = connection
        self._model = model
        self._version = version
        self._on_change = on_change
        self._lock = threading.Lock()
        # When to ask; None when there is nothing to ask.
        self._due: float | None = 0.0
        self.declared: Declared = {}
        self.versions: frozenset[str] = frozenset()

    @property
    def has_to_learn(self) -> bool:
        """Whether it is still to be asked for, now or later."""
        return self._due is not None

    def learn(self) -> None:
        """Asks for it, if that is still to be done; called after each question."""
        if self._due is None or time.monotonic() < self._due:
            return
        with self._lock:
            if self._due is None or time.monotonic() < self._due:
                return
            self._due = None
        self._connection.describe(self._model, self._version, self._told)

    def saw(self, version: str) -> None:
        """A version answered: an unknown one means that there are others now."""
        if version and self.versions and version not in self.versions and self._due is None:
            with self._lock:
                self.versions |= {version}
                self._due = time.monotonic()

    def _told(self, metadata: ModelMetadataResponse | None, is_worth_asking_again: bool) -> None:
        if metadata is None:
            if is_worth_asking_again:
                self._due = time.monotonic() + _AGAIN_AFTER_S
            return
        self.declared = declared_inputs(metadata)
        before, self.versions = self.versions, frozenset(metadata.versions)
        if before and before != self.versions:
            self._on_change()


def declared_inputs(metadata: ModelMetadataResponse) -> Declared:
    """Datatype and rank of each input that a model's metadata names."""
    return {tensor.name: (tensor.datatype, len(tensor.shape)) for tensor in metadata.inputs}
