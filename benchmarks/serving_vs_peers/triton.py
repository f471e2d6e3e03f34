"""Triton's server with its Python backend, from NVIDIA's package that carries both, in an environment of its own."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import peer_python
from benchmarks.serving_vs_peers.server_process import ServerProcess, free_port
from edge_runtime.console import say

__all__ = ["start_pytriton", "start_triton"]

_REQUIREMENTS = ("nvidia-pytriton==0.7.0",)


def start_triton(
    folder: Path,
    *,
    model: str,
    source: Path,
    configuration: str,
    files: Sequence[Path] = (),
    port: int | None = None,
) -> ServerProcess:
    """Serves one model with the Python backend, over gRPC alone, without metrics and logs.

    Args:
        folder: An empty folder for its model repository and its backends.
        model: What requests call it.
        source: The Python file with its `TritonPythonModel`.
        configuration: The model's `config.pbtxt`, without name and backend.
        files: What lies beside `source`.
        port: Where to listen, if not on any that is free.

    Raises:
        HybridgeError: `file-not-found` when the package cannot be installed, `cloud-unavailable` when it does not
            start.
    """
    packages = _packages()
    version = folder / "models" / model / "1"
    version.mkdir(parents=True)
    shutil.copy(source, version / "model.py")
    for file in files:
        shutil.copy(file, version)
    (version.parent / "config.pbtxt").write_text(f'backend: "python"\n{configuration}\n')
    port = port or free_port()
    return ServerProcess(
        [
            packages / "pytriton" / "tritonserver" / "bin" / "tritonserver",
            f"--model-repository={folder / 'models'}",
            f"--backend-directory={_backends(packages, folder)}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={port}",
            *("--allow-http=false", "--allow-metrics=false", "--log-info=false", "--log-warning=false"),
        ],
        model=model,
        port=port,
        folder=folder,
        environment=_environment(packages),
    )


def start_pytriton(folder: Path, *, model: str, source: Path, arguments: Sequence[str]) -> ServerProcess:
    """Serves a model with a program that binds a function to Triton by PyTriton.

    Args:
        folder: Where to run it.
        model: What requests call it.
        source: The program; it is given the port and `arguments`.
        arguments: More of its arguments.

    Raises:
        HybridgeError: As `start_triton`.
    """
    packages = _packages()
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    return ServerProcess(
        [packages.parents[2] / "bin" / "python", source, str(port), str(free_port()), *arguments],
        model=model,
        port=port,
        folder=folder,
        environment=_environment(packages),
    )


def _packages() -> Path:
    python = peer_python("triton", _REQUIREMENTS, say=say)
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    return packages


def _backends(packages: Path, folder: Path) -> Path:
    """The Python backend with the stub for this Python, which it looks for beside itself."""
    tree = packages / "pytriton" / "tritonserver"
    version = packages.parent.name.removeprefix("python")
    shutil.copytree(tree / "backends", folder / "backends")
    shutil.copy(
        tree / "python_backend_stubs" / version / "triton_python_backend_stub", folder / "backends" / "python"
    )
    return folder / "backends"


def _environment(packages: Path) -> dict[str, str]:
    # The stub is linked with Python's shared library, and does not find the package's own once it is copied.
    libraries = [sysconfig.get_config_var("LIBDIR"), str(packages / "nvidia_pytriton.libs")]
    return {
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "PATH": f"{packages.parents[2] / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(packages),
    }
