"""Triton's own server, from the package that carries it, on a model repository."""

from __future__ import annotations

import os
import shutil
import sysconfig
import venv
from pathlib import Path

from benchmarks.peers import peer_python
from benchmarks.serving_vs_peers.server_process import ServerProcess, free_port
from tests.cloud_fallback.deploy.manifests import DEPLOY

__all__ = ["serve_repository"]

# The server with its Python backend, and what the device runtime needs beside it.
_REQUIREMENTS = ("nvidia-pytriton==0.7.0", "ai-edge-litert>=2.1", "msgspec>=0.19")


def serve_repository(repository: Path, work: Path) -> ServerProcess:
    """Serves a repository on a port of the loopback until it is left.

    Args:
        repository: The folder with a folder for each model.
        work: An empty folder for the server's own files.
    """
    python = peer_python("triton-python-backend", _REQUIREMENTS, say=print)
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    port = free_port()
    return ServerProcess(
        [
            packages / "pytriton" / "tritonserver" / "bin" / "tritonserver",
            f"--model-repository={repository}",
            f"--backend-directory={_backends(packages, work)}",
            f"--grpc-port={port}",
            *("--grpc-address=127.0.0.1", "--allow-http=false", "--allow-metrics=false"),
        ],
        model=max(each.name for each in repository.iterdir()),
        port=port,
        folder=work,
        environment={
            # The stub is linked with Python's shared library, and does not find the package's own once it is copied.
            "LD_LIBRARY_PATH": f"{sysconfig.get_config_var('LIBDIR')}{os.pathsep}{packages / 'nvidia_pytriton.libs'}",
            "PATH": f"{_environment(packages, work / 'python') / 'bin'}{os.pathsep}{os.environ['PATH']}",
        },
    )


def _backends(packages: Path, work: Path) -> Path:
    """The Python backend with the stub for this Python, which it looks for beside itself."""
    source = packages / "pytriton" / "tritonserver"
    version = packages.parent.name.removeprefix("python")
    shutil.copytree(source / "backends", work / "backends")
    shutil.copy(
        source / "python_backend_stubs" / version / "triton_python_backend_stub", work / "backends" / "python"
    )
    return work / "backends"


def _environment(packages: Path, target: Path) -> Path:
    """A Python that finds the packages, and hybridge as it is here: the stub takes the first one on the path."""
    venv.create(target, with_pip=False)
    (own,) = target.glob("lib/python*/site-packages")
    (own / "peers.pth").write_text(f"{packages}\n{DEPLOY.parents[1]}\n")
    return target
