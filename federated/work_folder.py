"""The folder through which a simulation gives its engine and its clients their work."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edge_runtime.files import read_file, write_file
from federated.plan import Plan
from federated.samples import Samples
from federated.trainer import Weights

if TYPE_CHECKING:
    from flwr.app import Context

__all__ = ["WorkFolder"]

# Ray puts sockets under the folder, with names of about 70 characters; the path of a socket has at most 107 (unix(7)).
_LONGEST_PARENT = 17


@dataclass(frozen=True)
class WorkFolder:
    """Reads and writes the files at `path`; the samples of a client are read by that client alone."""

    path: Path

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[WorkFolder]:
        """A new folder, which is gone at the end."""
        usual = tempfile.gettempdir()
        parent = usual if len(usual) <= _LONGEST_PARENT else "/tmp"  # noqa: S108
        with tempfile.TemporaryDirectory(prefix="federated-", dir=parent) as path:
            yield cls(Path(path))

    def write(self, plan: Plan, trainable: bytes, held_back: Samples, clients: list[Samples]) -> None:
        """Writes the work of an engine: its settings, the model, and the samples of the server and each client."""
        write_file(self.path / "plan.json", msgspec.json.encode(plan))
        write_file(self.path / "trainable.tflite", trainable)
        held_back.save(self.path / "held-back.npz")
        for number, samples in enumerate(clients):
            samples.save(self._client_path(number))

    def plan(self) -> Plan:
        """The settings of the run."""
        return msgspec.json.decode(read_file(self.path / "plan.json"), type=Plan)

    def trainable(self) -> bytes:
        """The model that clients train."""
        return read_file(self.path / "trainable.tflite")

    def held_back(self) -> Samples:
        """The server's own samples."""
        return Samples.load(self.path / "held-back.npz")

    def client_samples(self, context: Context) -> Samples:
        """The samples of the client that `context` belongs to."""
        from federated.client_app import client_number

        return Samples.load(self._client_path(client_number(context)))

    def write_weights(self, weights: Weights) -> None:
        """Writes the result of an engine."""
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **weights)
        write_file(self.path / "weights.npz", content.getvalue())

    def weights(self) -> Weights:
        """The result of an engine."""
        with np.load(io.BytesIO(read_file(self.path / "weights.npz")), allow_pickle=False) as arrays:
            return dict(arrays)

    def _client_path(self, number: int) -> Path:
        return self.path / f"client-{number}.npz"
