"""Triton's own server, from the package that carries it, on a model repository."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
import venv
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from benchmarks.peers import peer_python
from cloud_fallback.open_inference.open_inference_pb2 import ServerReadyRequest
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.cloud_fallback.deploy.manifests import DEPLOY, free_port

__all__ = ["Triton"]

ROOT = DEPLOY.parents[1]
# The server with its Python backend, and what the device runtime needs beside it.
REQUIREMENTS = ("nvidia-pytriton==0.7.0", "ai-edge-litert>=2.1", "msgspec>=0.19")


class Triton:
    """Serves a repository on a port of the loopback until it is left; a minute later it ends by itself.

    Args:
        repository: The folder with a folder for each model.
        work: An empty folder for the server's own files.
    """

    def __init__(self, repository: Path, work: Path):
        python = peer_python("triton-python-backend", REQUIREMENTS, say=print)
        (packages,) = python.parents[1].glob("lib/python*/site-packages")
        server = _assembled(packages, work / "tritonserver")
        self.address = f"127.0.0.1:{free_port()}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the server
        self._process = subprocess.Popen(
            [
                *("timeout", "--kill-after=5", "120", server / "bin" / "tritonserver"),
                f"--model-repository={repository}",
                f"--backend-directory={server / 'backends'}",
                f"--grpc-port={self.address.partition(':')[2]}",
                *("--grpc-address=127.0.0.1", "--allow-http=false", "--allow-metrics=false"),
            ],
            env={
                "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
                "PATH": f"{_environment(packages, work / 'python')}/bin:/usr/bin:/bin",
            },
            cwd=work,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 90
        with grpc.insecure_channel(self.address) as channel:
            stub = GRPCInferenceServiceStub(channel)
            while time.monotonic() < deadline and self._process.poll() is None:
                try:
                    if stub.ServerReady(ServerReadyRequest(), timeout=1).ready:
                        return self
                except grpc.RpcError:
                    time.sleep(0.2)
        said = self._stop()
        raise AssertionError(f"Triton did not get ready:\n{said}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> str:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.seek(0)
        with self._log:
            return self._log.read().decode(errors="replace")


def _assembled(packages: Path, target: Path) -> Path:
    """The server with the stub for this Python where its Python backend looks for it."""
    source = packages / "pytriton" / "tritonserver"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("python_backend_stubs"))
    version = packages.parent.name.removeprefix("python")
    stub = source / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, target / "backends" / "python")
    return target


def _environment(packages: Path, target: Path) -> Path:
    """A Python that finds the packages, and hybridge as it is here: the stub takes the first one on the path."""
    venv.create(target, with_pip=False)
    (own,) = target.glob("lib/python*/site-packages")
    (own / "peers.pth").write_text(f"{packages}\n{ROOT}\n")
    return target
