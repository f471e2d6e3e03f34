"""Makes the stubs beside this file from `open_inference.proto`, or checks that they are what it makes.

Run as ``python -m cloud_fallback.open_inference.generate [--check]``; it needs grpcio-tools, which the `dev` extra
installs. What comes out depends on the version of grpcio-tools: the one that `constraints.txt` pins is the one meant.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import click

from edge_runtime.command import run_verb
from edge_runtime.console import say
from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra
from edge_runtime.files import read_file, write_file

__all__ = ["generate", "stubs"]

_FOLDER = Path(__file__).parent
_PACKAGE = "cloud_fallback/open_inference"
_PROTO = f"{_PACKAGE}/open_inference.proto"

# What protoc writes, and what stands there instead; `pool.py` says why.
_PRIVATE_POOL = (
    (
        r"^from google\.protobuf import descriptor_pool as _descriptor_pool$",
        "from cloud_fallback.open_inference import pool as _pool",
    ),
    (r"^from google\.protobuf import symbol_database as _symbol_database\n", ""),
    (r"^_sym_db = _symbol_database\.Default\(\)\n", ""),
    (r"_descriptor_pool\.Default\(\)\.AddSerializedFile\(", "_pool.POOL.AddSerializedFile("),
    (r"^_builder\.BuildTopDescriptorsAndMessages\(", "_pool.build_messages("),
)


def stubs() -> dict[str, str]:
    """Content of each generated file, by name.

    Raises:
        HybridgeError: `extra-missing` without grpcio-tools, `conversion-failed` when protoc refuses the file or
            writes something that the post-processing does not know.
    """
    if find_spec("grpc_tools") is None:
        raise missing_extra("dev", "grpc_tools")
    with tempfile.TemporaryDirectory() as folder:
        flags = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        # In a process of its own: protoc and TensorFlow bring the same C++ symbols, and crash in one.
        run = subprocess.run(
            [sys.executable, "-P", "-m", "grpc_tools.protoc", f"-I{_FOLDER.parents[1]}", *flags, _PROTO],
            capture_output=True,
            text=True,
        )
        if run.returncode != 0:
            raise HybridgeError(ErrorCode.CONVERSION_FAILED, _PROTO, received=run.stderr.strip())
        made = {path.name: path.read_text() for path in sorted(Path(folder, _PACKAGE).iterdir())}
    made["open_inference_pb2.py"] = _in_private_pool(made["open_inference_pb2.py"])
    made["open_inference_pb2_grpc.pyi"] = _grpc_types()
    return made


def _in_private_pool(source: str) -> str:
    for pattern, replacement in _PRIVATE_POOL:
        source, count = re.subn(pattern, replacement, source, flags=re.MULTILINE)
        if count != 1:
            raise HybridgeError(
                ErrorCode.CONVERSION_FAILED,
                "stubs written by protoc",
                received=f"{count} places that match {pattern!r}",
                expected="one",
                fix="adapt the post-processing in generate.py to this version of grpcio-tools",
            )
    return source


def _grpc_types() -> str:
    """Types for the service module, which protoc leaves without any."""
    methods = re.findall(
        r"rpc (\w+)\((\w+)\) returns \((\w+)\)", read_file(_FOLDER / "open_inference.proto").decode()
    )
    names = sorted({name for _, *pair in methods for name in pair})
    return "\n".join(
        [
            "from typing import Any, Generic, TypeVar",
            "",
            "from cloud_fallback.open_inference.open_inference_pb2 import (",
            *(f"    {name}," for name in names),
            ")",
            "",
            '_Request = TypeVar("_Request", contravariant=True)',
            '_Response = TypeVar("_Response", covariant=True)',
            "",
            "class _Method(Generic[_Request, _Response]):",
            "    def __call__(",
            "        self,",
            "        request: _Request,",
            "        timeout: float | None = ...,",
            "        metadata: tuple[tuple[str, str], ...] | None = ...,",
            "        credentials: Any = ...,",
            "        wait_for_ready: bool | None = ...,",
            "        compression: Any = ...,",
            "    ) -> _Response: ...",
            "    def future(",
            "        self,",
            "        request: _Request,",
            "        timeout: float | None = ...,",
            "        metadata: tuple[tuple[str, str], ...] | None = ...,",
            "        credentials: Any = ...,",
            "        wait_for_ready: bool | None = ...,",
            "        compression: Any = ...,",
            "    ) -> Any: ...",
            "",
            "class GRPCInferenceServiceStub:",
            *(f"    {name}: _Method[{request}, {response}]" for name, request, response in methods),
            "    def __init__(self, channel: Any) -> None: ...",
            "",
            "class GRPCInferenceServiceServicer:",
            *(
                f"    def {name}(self, request: {request}, context: Any) -> {response}: ..."
                for name, request, response in methods
            ),
            "",
            "def add_GRPCInferenceServiceServicer_to_server(servicer: GRPCInferenceServiceServicer, server: Any)"
            " -> None: ...",
            "",
        ]
    )


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; fail when a stub is not what would be written.")
def generate(check: bool) -> None:
    """Makes the Open Inference Protocol stubs from their .proto file."""
    for name, content in stubs().items():
        path = _FOLDER / name
        current = path.read_text() if path.exists() else None
        if current == content:
            continue
        if check:
            raise click.ClickException(f"{path} is out of date; run: make stubs")
        write_file(path, content.encode(), overwrite=True)
        say(f"wrote {path}")


if __name__ == "__main__":
    run_verb(generate, name="generate")
