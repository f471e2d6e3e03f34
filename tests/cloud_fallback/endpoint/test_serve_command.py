"""`hybridge serve` as the process that it is: started, stopped, killed, and left by its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_fallback import CloudFallback, Endpoint, EndpointProcess
from edge_runtime import ErrorCode, HybridgeError, Reason, Source
from tests.cloud_fallback.conftest import unsure
from tests.cloud_fallback.onnx_models import LINEAR_WEIGHTS, write_linear

Array = np.ndarray[Any, Any]
Busy = Callable[[float], dict[str, Array]]
Start = Callable[..., EndpointProcess]

X = np.ones((1, 3), np.float32)
OWN_Y = np.zeros((1, 2), np.float32)
HYBRIDGE = [sys.executable, "-P", "-c", "from edge_runtime.command import main; main()"]


def test_it_says_where_it_listens_and_answers_there(endpoint_process: Start) -> None:
    process = endpoint_process()
    assert process.address == f"127.0.0.1:{process.port}"
    with CloudFallback(process.address, model="linear", deadline_s=10.0) as client:
        np.testing.assert_array_equal(client.infer({"x": X})["y"], X @ LINEAR_WEIGHTS)


@pytest.mark.parametrize("output_format", ["text", "json"])
def test_standard_output_has_the_address_and_nothing_else(onnx_models: Path, output_format: str) -> None:
    command = [
        *HYBRIDGE,
        "serve",
        f"first={onnx_models / 'linear.onnx'}",
        "--port",
        "0",
        "--format",
        output_format,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while output_format == "json" and lines[-1] != "}\n":
            lines.append(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    assert (process.returncode, rest) == (0, "")
    if output_format == "json":
        said = json.loads("".join(lines))
        assert said["models"] == [{"name": "first", "version": "1", "platform": "onnx_onnxv1"}]
        assert said["address"] == f"127.0.0.1:{said['port']}"
    else:
        assert lines[0].startswith("serving first 1 on 127.0.0.1:")


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["none.onnx"], "file-not-found", 3),
        (["rubbish.onnx"], "model-invalid", 2),
        (["model.pb"], "usage", 2),
        (["rubbish.onnx", "--port", "99999"], "usage", 2),
        ([], "usage", 2),
    ],
)
def test_what_cannot_be_served_ends_it_with_one_clear_error(
    tmp_path: Path, arguments: list[str], code: str, exit_code: int
) -> None:
    (tmp_path / "rubbish.onnx").write_bytes(b"rubbish")
    command = [*HYBRIDGE, "serve", "--format", "json", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert run.returncode == exit_code, run.stderr
    assert json.loads(run.stdout)["error"]["code"] == code
    assert "Traceback" not in run.stderr


def test_a_port_in_use_ends_it_with_its_code(endpoint: Endpoint, onnx_models: Path) -> None:
    with pytest.raises(HybridgeError, match="Address already in use") as caught:
        EndpointProcess([onnx_models / "linear.onnx"], arguments=["--port", str(endpoint.port)])
    assert caught.value.code is ErrorCode.ADDRESS_IN_USE


def test_a_process_that_is_not_ready_in_time_is_ended_and_reported(onnx_models: Path) -> None:
    with pytest.raises(HybridgeError, match=r"ready within 0\.01 s") as caught:
        EndpointProcess([onnx_models], ready_s=0.01)
    assert caught.value.code is ErrorCode.CLOUD_UNAVAILABLE


def test_a_server_killed_while_a_request_is_in_flight_keeps_the_devices_answer(
    endpoint_process: Start, busy: Busy
) -> None:
    process = endpoint_process("busy.onnx")
    with (
        CloudFallback(process.address, model="busy", deadline_s=30.0) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        client.infer(busy(0.01))
        under_way = pool.submit(client.resolve, unsure(busy(20.0), y=np.zeros(1, np.float32)))
        time.sleep(0.3)
        assert not under_way.done()
        start = time.perf_counter()
        process.kill()
        answer = under_way.result()
    assert time.perf_counter() - start < 1.0
    assert (answer.outputs, answer.source, answer.reason) == (None, Source.DEVICE, Reason.CLOUD_UNAVAILABLE)


def test_a_server_told_to_stop_finishes_the_request_in_flight(endpoint_process: Start, busy: Busy) -> None:
    process = endpoint_process("busy.onnx")
    with (
        CloudFallback(process.address, model="busy", deadline_s=30.0) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        client.infer(busy(0.01))
        under_way = pool.submit(client.resolve, unsure(busy(1.5), y=np.zeros(1, np.float32)))
        time.sleep(0.3)
        assert not under_way.done()
        assert process.stop() == 0
        answer = under_way.result()
        assert answer.outputs is not None
        assert answer.outputs["y"] == pytest.approx(3.0)
        assert (
            client.resolve(unsure(busy(0.01), y=np.zeros(1, np.float32))).reason is Reason.CLOUD_UNAVAILABLE
        )


def test_a_request_that_outlasts_the_grace_is_cut_off(endpoint_process: Start, busy: Busy) -> None:
    process = endpoint_process("busy.onnx", "--grace-s", "0.2")
    with (
        CloudFallback(process.address, model="busy", deadline_s=30.0) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        client.infer(busy(0.01))
        under_way = pool.submit(client.resolve, unsure(busy(3.0), y=np.zeros(1, np.float32)))
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGTERM)
        start = time.perf_counter()
        assert under_way.result().reason is Reason.CLOUD_UNAVAILABLE
        assert time.perf_counter() - start < 1.5


def test_an_endpoint_that_comes_up_later_is_found(endpoint_process: Start) -> None:
    first = endpoint_process("linear.onnx")
    client = CloudFallback(first.address, model="linear", deadline_s=5.0)
    first.kill()
    assert client.resolve(unsure({"x": X}, y=OWN_Y)).reason is Reason.CLOUD_UNAVAILABLE
    endpoint_process("linear.onnx", "--port", str(first.port))
    end = time.monotonic() + 10
    while (answer := client.resolve(unsure({"x": X}, y=OWN_Y))).source is not Source.CLOUD:
        assert answer.reason in (Reason.CLOUD_UNAVAILABLE, Reason.OFFLINE)
        assert time.monotonic() < end, "not found again within ten seconds"
        time.sleep(0.05)
    client.close()


def _is_running(pid: int) -> bool:
    try:
        # A process that ended and was not waited for is still there, as a zombie.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc which processes run")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_endpoint_ends_with_the_process_that_started_it(onnx_models: Path, number: signal.Signals) -> None:
    script = (
        "import sys, time\n"
        "from cloud_fallback import EndpointProcess\n"
        "with EndpointProcess([sys.argv[1]]) as endpoint:\n"
        "    print(endpoint.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, os.fspath(onnx_models / "linear.onnx")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _is_running(child)
        parent.send_signal(number)
        parent.wait(timeout=30)
    end = time.monotonic() + 10
    while _is_running(child):
        assert time.monotonic() < end, "the endpoint outlives its parent"
        time.sleep(0.05)


def _until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["SIGHUP", "--watch"])
def test_a_new_version_is_taken_up_while_it_runs(tmp_path: Path, how: str) -> None:
    def put(version: str, gain: float) -> None:
        folder = tmp_path / "models" / "linear" / version
        folder.mkdir(parents=True)
        write_linear(folder / "model.onnx", gain=gain)

    put("1", 1.0)
    with (
        EndpointProcess([tmp_path / "models"], arguments=["--watch"] if how == "--watch" else []) as process,
        CloudFallback(process.address, model="linear", deadline_s=10.0) as client,
    ):
        np.testing.assert_array_equal(client.infer({"x": X})["y"], X @ LINEAR_WEIGHTS)
        put("2", 3.0)
        if how == "SIGHUP":
            os.kill(process.pid, signal.SIGHUP)
        _until(lambda: np.array_equal(client.infer({"x": X})["y"], 3 * X @ LINEAR_WEIGHTS))
        assert process.stop() == 0


@pytest.mark.parametrize("how", ["SIGHUP", "--watch"])
def test_a_server_told_to_stop_while_it_loads_refuses_calls_at_once(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "models" / "linear"
    (folder / "1").mkdir(parents=True)
    write_linear(folder / "1" / "model.onnx")
    with EndpointProcess([tmp_path / "models"], arguments=["--watch"] if how == "--watch" else []) as process:
        # Reading this takes until the writer closes it.
        os.mkfifo(folder / "model.toml")
        if how == "SIGHUP":
            os.kill(process.pid, signal.SIGHUP)
        writer = _writer(folder / "model.toml")
        os.kill(process.pid, signal.SIGTERM)
        with CloudFallback(process.address, model="linear", deadline_s=1.0) as client:
            _until(lambda: _is_refused(client))
        os.close(writer)
        assert process._process.wait(10) == 0


def test_a_reload_that_is_asked_for_while_it_starts_is_done_then(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / "linear" / version).mkdir(parents=True)
    write_linear(tmp_path / "linear" / "1" / "model.onnx")
    os.mkfifo(tmp_path / "linear" / "model.toml")
    command = [*HYBRIDGE, "serve", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        writer = _writer(tmp_path / "linear" / "model.toml")
        process.send_signal(signal.SIGHUP)
        (tmp_path / "linear" / "model.toml").unlink()
        write_linear(tmp_path / "linear" / "2" / "model.onnx")
        os.write(writer, b'versions = ["1"]')
        os.close(writer)
        assert process.stdout.readline().startswith("serving linear 1 on ")
        assert process.stderr.readline() == "serving linear 2, linear 1\n"
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def _writer(fifo: Path) -> int:
    """The other end of a pipe, once somebody reads it."""
    opened: list[int] = []

    def is_read() -> bool:
        try:
            opened.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    _until(is_read)
    return opened[0]


def _is_refused(client: CloudFallback) -> bool:
    try:
        client.infer({"x": X})
    except HybridgeError as error:
        return error.code is ErrorCode.CLOUD_UNAVAILABLE
    return False


def test_requests_are_split_among_versions_as_it_is_told(tmp_path: Path) -> None:
    for version, gain in (("1", 1.0), ("2", 3.0)):
        folder = tmp_path / "linear" / version
        folder.mkdir(parents=True)
        write_linear(folder / "model.onnx", gain=gain)
    with (
        EndpointProcess([tmp_path], arguments=["--split", "linear=2:25,1:75"]) as process,
        CloudFallback(process.address, model="linear", deadline_s=10.0) as client,
    ):
        new = sum(np.array_equal(client.infer({"x": X})["y"], 3 * X @ LINEAR_WEIGHTS) for _ in range(400))
    assert 0.15 < new / 400 < 0.35


@pytest.mark.parametrize("split", ["linear", "linear=1", "linear=1:x", "other=1:1", "linear=7:1"])
def test_a_split_that_cannot_be_is_refused(onnx_models: Path, split: str) -> None:
    with pytest.raises(HybridgeError) as caught:
        EndpointProcess([onnx_models / "linear.onnx"], arguments=["--split", split])
    assert caught.value.code is ErrorCode.USAGE
