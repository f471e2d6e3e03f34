"""MLServer, from its package, in an environment of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import peer_python
from benchmarks.serving_vs_peers.server_process import ServerProcess, free_port
from edge_runtime.console import say

__all__ = ["start_mlserver"]

# The newest uvloop has no loop for a process that has not made one, and MLServer's workers end on that.
_REQUIREMENTS = ("mlserver==1.7.1", "uvloop==0.21.0")


def start_mlserver(
    folder: Path,
    *,
    model: str,
    source: Path,
    implementation: str,
    settings: Mapping[str, Any] | None = None,
    server_settings: Mapping[str, Any] | None = None,
    files: Sequence[Path] = (),
    port: int | None = None,
) -> ServerProcess:
    """Serves one model, without metrics and access logs.

    Args:
        folder: An empty folder for its settings.
        model: What requests call it.
        source: The Python file of its runtime.
        implementation: The class in there.
        settings: More of the model's settings.
        server_settings: More of the server's. By default it runs the model in its own process.
        files: What lies beside `source`.
        port: Where to listen, if not on any that is free.

    Raises:
        HybridgeError: `file-not-found` when the package cannot be installed, `cloud-unavailable` when it does not
            start.
    """
    python = peer_python("mlserver", _REQUIREMENTS, say=say)
    folder.mkdir(parents=True, exist_ok=True)
    for file in (source, *files):
        shutil.copy(file, folder)
    port = port or free_port()
    model_settings = {"name": model, "implementation": f"{source.stem}.{implementation}", **(settings or {})}
    all_settings = {
        "debug": False,
        "host": "127.0.0.1",
        "grpc_port": port,
        "http_port": free_port(),
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "grpc_max_message_length": 64 * 2**20,
        **(server_settings or {}),
    }
    (folder / "model-settings.json").write_text(json.dumps(model_settings))
    (folder / "settings.json").write_text(json.dumps(all_settings))
    return ServerProcess(
        [python.with_name("mlserver"), "start", "."],
        model=model,
        port=port,
        folder=folder,
        # Not where this program's packages are.
        environment={"PYTHONPATH": ""},
    )
