"""Models that are taken away, or replaced by rubbish, while they are asked."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from cloud_fallback import EndpointProcess
from cloud_fallback.open_inference.open_inference_pb2 import (
    RepositoryIndexRequest,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
)
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from cloud_fallback.open_inference.tensors import decode_response, encode_request
from tests.cloud_fallback.faults.attacked import X, until
from tests.cloud_fallback.faults.fault_table import FaultTable
from tests.cloud_fallback.onnx_models import LINEAR_WEIGHTS

OK, NOT_FOUND = grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND


@pytest.fixture(scope="module")
def folder(onnx_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("changing") / "models"
    folder.mkdir()
    shutil.copy(onnx_models / "linear.onnx", folder)
    shutil.copy(onnx_models / "doubles.onnx", folder)
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[EndpointProcess]:
    process = EndpointProcess([folder])
    yield process
    process.kill()


@contextmanager
def _asking(address: str, threads: int = 4) -> Iterator[Counter[grpc.StatusCode]]:
    """Asks `linear` without pause and counts what comes of it; a wrong answer counts as DATA_LOSS."""
    statuses: Counter[grpc.StatusCode] = Counter()
    is_over, lock = threading.Event(), threading.Lock()

    def ask() -> None:
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = GRPCInferenceServiceStub(channel)
            while not is_over.is_set():
                call = stub.ModelInfer.future(encode_request("linear", {"x": X}), timeout=20)
                status = call.code()
                if status is OK and not np.array_equal(
                    decode_response(call.result())["y"], X @ LINEAR_WEIGHTS
                ):
                    status = grpc.StatusCode.DATA_LOSS
                with lock:
                    statuses[status] += 1
                time.sleep(0.002)

    running = [threading.Thread(target=ask) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        until(lambda: statuses[OK] > 20, 20)
        yield statuses
    finally:
        is_over.set()
        for thread in running:
            thread.join()


def _reason(stub: GRPCInferenceServiceStub) -> str:
    """Why the file of `linear` is not in use, as the repository tells it."""
    models = stub.RepositoryIndex(RepositoryIndexRequest(), timeout=10).models
    return next(each.reason for each in models if each.name == "linear")


def test_a_model_whose_file_becomes_rubbish_goes_on_as_it_was(
    served: EndpointProcess, folder: Path, onnx_models: Path, fault_table: FaultTable
) -> None:
    path = folder / "linear.onnx"
    good = path.read_bytes()
    with _asking(served.address) as statuses, grpc.insecure_channel(served.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        load = RepositoryModelLoadRequest(model_name="linear")
        for rubbish in (b"rubbish", b"", good[: len(good) // 2], bytes(len(good)), good[:-1] + b"\xff"):
            path.write_bytes(rubbish)
            with pytest.raises(grpc.RpcError) as caught:
                stub.RepositoryModelLoad(load, timeout=20)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "linear" in _reason(stub)
        path.write_bytes(good)
        stub.RepositoryModelLoad(load, timeout=20)
        assert _reason(stub) == ""
        path.write_bytes(b"rubbish")
        os.kill(served.pid, signal.SIGHUP)
        until(lambda: bool(_reason(stub)), 10)
        path.write_bytes(good)
        stub.RepositoryModelLoad(load, timeout=20)
        before = statuses[OK]
        until(lambda: statuses[OK] > before + 20, 20)
    assert set(statuses) == {OK}
    fault_table(
        "a model's file replaced by rubbish, by half of it, by nothing, while it is loaded anew",
        f"loading refused, and {statuses[OK]} requests meanwhile answered by the model that was there",
    )


def test_a_model_that_is_unloaded_and_loaded_answers_whom_it_took(
    served: EndpointProcess, fault_table: FaultTable
) -> None:
    with _asking(served.address) as statuses, grpc.insecure_channel(served.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for _ in range(10):
            stub.RepositoryModelUnload(RepositoryModelUnloadRequest(model_name="linear"), timeout=20)
            time.sleep(0.02)
            stub.RepositoryModelLoad(RepositoryModelLoadRequest(model_name="linear"), timeout=20)
            time.sleep(0.05)
    assert set(statuses) == {OK, NOT_FOUND}
    fault_table(
        "a model unloaded and loaded ten times while it is asked",
        f"{statuses[OK]} requests answered, {statuses[NOT_FOUND]} told that there is no such model; none cut off",
    )


def test_a_model_that_is_replaced_again_and_again_answers_everybody(
    served: EndpointProcess, folder: Path, fault_table: FaultTable
) -> None:
    copy = folder.parent / "linear.onnx"
    shutil.copy(folder / "linear.onnx", copy)
    with _asking(served.address) as statuses, grpc.insecure_channel(served.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for _ in range(15):
            Path(shutil.copy(copy, folder / "next")).replace(folder / "linear.onnx")
            stub.RepositoryModelLoad(RepositoryModelLoadRequest(model_name="linear"), timeout=20)
    assert set(statuses) == {OK}
    fault_table("a model loaded anew 15 times while it is asked", f"all {statuses[OK]} requests answered")
