"""The generated stubs: what the specification says, what the generator makes, and alone in their pool."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from cloud_fallback.open_inference import SERVICE_NAME, generate, open_inference_pb2
from cloud_fallback.open_inference.pool import POOL


def test_the_stubs_in_the_repository_are_those_that_the_generator_makes() -> None:
    made = generate.stubs()
    assert set(made) == {
        "open_inference_pb2.py",
        "open_inference_pb2.pyi",
        "open_inference_pb2_grpc.py",
        "open_inference_pb2_grpc.pyi",
    }
    for name, content in made.items():
        assert (generate._FOLDER / name).read_text() == content, f"{name} is out of date: run make stubs"


def test_the_service_has_the_calls_of_the_specification_and_of_the_repository_extension() -> None:
    service = POOL.FindServiceByName(SERVICE_NAME)
    assert [method.name for method in service.methods] == [
        "ServerLive",
        "ServerReady",
        "ModelReady",
        "ServerMetadata",
        "ModelMetadata",
        "ModelInfer",
        "RepositoryIndex",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
    ]


def test_every_field_has_the_number_and_type_that_triton_gives_it() -> None:
    from tritonclient.grpc import service_pb2

    theirs = service_pb2.DESCRIPTOR.message_types_by_name
    for name, message in open_inference_pb2.DESCRIPTOR.message_types_by_name.items():
        assert _fields(message) == _fields(theirs[name]), name


def _fields(message: Any) -> dict[str, Any]:
    own = {field.name: (field.number, field.type, field.is_repeated) for field in message.fields}
    nested = {inner.name: _fields(inner) for inner in message.nested_types}
    return own | nested


@pytest.mark.parametrize("implementation", ["upb", "python"])
@pytest.mark.parametrize(
    "imports",
    [
        ("tritonclient.grpc", "cloud_fallback.open_inference.open_inference_pb2_grpc"),
        ("cloud_fallback.open_inference.open_inference_pb2_grpc", "tritonclient.grpc"),
    ],
)
def test_the_stubs_and_tritonclient_live_in_one_process(
    implementation: str, imports: tuple[str, str]
) -> None:
    # Either order, and also where protobuf has no compiled part, as on 32-bit Arm.
    script = "\n".join(
        [
            *(f"import {module}" for module in imports),
            "from cloud_fallback.open_inference.open_inference_pb2 import ModelInferRequest as ours",
            "from tritonclient.grpc.service_pb2 import ModelInferRequest as theirs",
            "request = ours(model_name='m', raw_input_contents=[b'1234'])",
            "request.inputs.add(name='x', datatype='FP32', shape=[1]).parameters['p'].int64_param = 7",
            "read = theirs.FromString(request.SerializeToString())",
            "assert read.inputs[0].parameters['p'].int64_param == 7 and read.raw_input_contents[0] == b'1234'",
            "assert ours.FromString(read.SerializeToString()) == request",
            "assert isinstance(request.inputs[0], ours.InferInputTensor)",
            "from google.protobuf.internal import api_implementation",
            "print(api_implementation.Type())",
        ]
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == implementation
