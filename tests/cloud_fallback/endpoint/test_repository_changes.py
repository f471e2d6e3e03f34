"""Models that are loaded, replaced and unloaded while requests go on."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cloud_fallback import Repository
from cloud_fallback.endpoint.repository import State
from cloud_fallback.endpoint.repository_watch import RepositoryWatch
from cloud_fallback.endpoint.served import TimeLeft, no_limit
from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import TensorSpec
from tests.cloud_fallback.onnx_models import LINEAR_WEIGHTS, write_linear

Array = np.ndarray[Any, Any]
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def _code(call: Callable[[], Any]) -> ErrorCode:
    with pytest.raises(HybridgeError) as caught:
        call()
    return caught.value.code


def _put(folder: Path, *versions: str, name: str = "linear", gain: float = 1.0) -> None:
    """Puts versions of a linear model into a repository; each is replaced at once, as a rename does."""
    for version in versions:
        target = folder / name / version / "model.onnx"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_linear(target.with_suffix(".new"), gain=gain)
        os.replace(target.with_suffix(".new"), target)


def _gain(repository: Repository, version: str = "", name: str = "linear") -> float:
    y = repository.find(name, version).infer({"x": X})["y"]
    return float(y.sum() / (X @ LINEAR_WEIGHTS).sum())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _put(tmp_path / "models", "1", "2", "10")
    return tmp_path / "models"


def test_a_repository_has_a_folder_for_each_version_of_each_model(folder: Path) -> None:
    _put(folder, "1", name="other")
    repository = Repository.load([folder])
    assert repository.versions("linear") == ("10", "2", "1")
    assert repository.versions("other") == ("1",)


@pytest.mark.parametrize(
    ("settings", "versions"),
    [
        ('versions = "latest"', ("10",)),
        ('versions = "latest:2"', ("10", "2")),
        ('versions = ["1", "2"]', ("2", "1")),
        ("instances = 3\nbatching = { max_batch_size = 8 }", ("10", "2", "1")),
    ],
)
def test_a_models_settings_choose_its_versions(
    folder: Path, settings: str, versions: tuple[str, ...]
) -> None:
    (folder / "linear" / "model.toml").write_text(settings)
    assert Repository.load([folder]).versions("linear") == versions


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ('versions = "newest"', ErrorCode.USAGE),
        ('versions = ["3"]', ErrorCode.USAGE),
        ('split = { "3" = 1.0 }', ErrorCode.USAGE),
        ("instances = 0", ErrorCode.DATA_INVALID),
        ("instance = 1", ErrorCode.DATA_INVALID),
        ("rubbish", ErrorCode.DATA_INVALID),
    ],
)
def test_settings_that_cannot_be_are_refused(folder: Path, settings: str, code: ErrorCode) -> None:
    (folder / "linear" / "model.toml").write_text(settings)
    assert _code(lambda: Repository.load([folder])) is code


def test_two_files_in_a_version_are_refused(folder: Path) -> None:
    shutil.copy(folder / "linear" / "1" / "model.onnx", folder / "linear" / "1" / "again.onnx")
    assert _code(lambda: Repository.load([folder])) is ErrorCode.USAGE


def test_requests_without_a_version_are_split_by_weight_and_stick_to_their_key(folder: Path) -> None:
    (folder / "linear" / "model.toml").write_text('split = { "10" = 5, "2" = 95 }')
    repository = Repository.load([folder])
    found = {key: repository.find("linear", sticky_key=key).version for key in map(str, range(2000))}
    assert 0.03 < list(found.values()).count("10") / 2000 < 0.07
    assert "1" not in found.values()
    assert all(repository.find("linear", sticky_key=key).version == found[key] for key in found)
    assert repository.find("linear", "1").version == "1"


def test_a_split_that_changes_is_seen_on_refresh_and_loads_no_model_anew(folder: Path) -> None:
    settings = folder / "linear" / "model.toml"
    settings.write_text('split = { "10" = 0, "2" = 1 }')
    repository = Repository.load([folder])
    models, states = repository.models, repository.file_states()
    assert repository.find("linear").version == "2"
    settings.write_text('split = { "10" = 1, "2" = 0 }')
    assert repository.file_states() != states
    assert repository.refresh() == []
    assert repository.find("linear").version == "10"
    settings.unlink()
    _put(folder, "11")
    assert repository.refresh() == []
    assert repository.find("linear").version == "11"
    assert all(model in repository.models for model in models)


def test_a_model_whose_settings_change_is_loaded_anew(folder: Path) -> None:
    _put(folder, "1", name="other")
    repository = Repository.load([folder])
    linear, other = repository.find("linear"), repository.find("other")
    (folder / "linear" / "model.toml").write_text("instances = 3")
    assert repository.refresh() == []
    assert repository.find("linear") is not linear
    assert repository.find("other") is other


def test_what_is_new_changed_or_gone_is_seen_on_refresh(folder: Path) -> None:
    repository = Repository.load([folder])
    _put(folder, "2", gain=5.0)
    _put(folder, "11", gain=7.0)
    shutil.rmtree(folder / "linear" / "1")
    assert repository.refresh() == []
    assert repository.versions("linear") == ("11", "10", "2")
    assert [_gain(repository, version) for version in ("2", "10", "11")] == pytest.approx([5.0, 1.0, 7.0])
    assert [state.version for state in repository.index()] == ["10", "11", "2"]


def test_weights_in_a_file_of_their_own_are_part_of_their_version(folder: Path) -> None:
    def put(gain: float) -> None:
        path = folder / "linear" / "2" / "model.onnx"
        write_linear(path, gain=gain)
        onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)

    put(1.0)
    repository = Repository.load([folder])
    others = [repository.find("linear", version) for version in ("1", "10")]
    graph = (folder / "linear" / "2" / "model.onnx").stat()
    (folder / "linear" / "2" / "weights.bin").unlink()
    put(5.0)
    os.utime(folder / "linear" / "2" / "model.onnx", ns=(graph.st_atime_ns, graph.st_mtime_ns))
    assert repository.refresh() == []
    assert _gain(repository, "2") == pytest.approx(5.0)
    assert [repository.find("linear", version) for version in ("1", "10")] == others


def test_rubbish_in_a_models_place_leaves_the_model_that_was_there(folder: Path) -> None:
    repository = Repository.load([folder])
    (folder / "linear" / "10" / "model.onnx").write_bytes(b"rubbish")
    _put(folder, "2", gain=5.0)
    (failure,) = repository.refresh()
    assert failure.code is ErrorCode.MODEL_INVALID
    assert _gain(repository) == pytest.approx(1.0)
    assert _gain(repository, "2") == pytest.approx(5.0)
    (state,) = [state for state in repository.index() if state.version == "10"]
    assert state.state is State.READY
    assert "rubbish" in state.reason or "model" in state.reason
    _put(folder, "10", gain=3.0)
    assert repository.refresh() == []
    assert _gain(repository) == pytest.approx(3.0)
    assert all(not state.reason for state in repository.index())


def test_a_model_is_unloaded_and_loaded_by_request(folder: Path) -> None:
    _put(folder, "1", name="other")
    repository = Repository.load([folder])
    repository.unload_model("linear")
    assert _code(lambda: repository.find("linear")) is ErrorCode.MODEL_UNKNOWN
    assert _code(lambda: repository.unload_model("linear")) is ErrorCode.MODEL_UNKNOWN
    assert [state.state for state in repository.index()] == [State.UNAVAILABLE] * 3 + [State.READY]
    repository.refresh()
    assert repository.versions("linear") == ()
    repository.load_model("linear")
    assert repository.versions("linear") == ("10", "2", "1")
    assert {state.state for state in repository.index()} == {State.READY}
    assert _code(lambda: repository.load_model("nothing")) is ErrorCode.MODEL_UNKNOWN


def test_loading_anew_by_request_says_why_it_failed_and_keeps_the_old(folder: Path) -> None:
    repository = Repository.load([folder])
    (folder / "linear" / "2" / "model.onnx").write_bytes(b"rubbish")
    assert _code(lambda: repository.load_model("linear")) is ErrorCode.MODEL_INVALID
    assert repository.versions("linear") == ("10", "2", "1")
    assert _gain(repository, "2") == pytest.approx(1.0)


def test_no_request_is_dropped_while_models_are_replaced(folder: Path) -> None:
    repository = Repository.load([folder])
    stop, failures, seen = threading.Event(), [], set()

    def ask() -> None:
        while not stop.is_set():
            try:
                with repository.use("linear", "10") as model:
                    y = model.infer({"x": X})["y"]
                gain = float(y.sum() / (X @ LINEAR_WEIGHTS).sum())
                np.testing.assert_allclose(y, gain * (X @ LINEAR_WEIGHTS), rtol=1e-3)
                seen.add(round(gain))
            except BaseException as error:
                failures.append(error)
                raise

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ask) for _ in range(4)]
        for gain in range(2, 22):
            _put(folder, "10", gain=gain)
            assert repository.refresh() == []
        stop.set()
        for future in futures:
            future.result(10)
    assert not failures
    assert 21 in seen or _gain(repository) == pytest.approx(21.0)
    assert len(seen) > 3


class Closing:
    """A model made in Python that must not be used once it was closed."""

    platform = "python"
    inputs = outputs = (TensorSpec("x", (), "float32"),)

    def __init__(self, name: str = "closing", version: str = "1"):
        self.name, self.version, self.closed = name, version, 0
        self.running = threading.Semaphore(0)
        self.gate = threading.Event()

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:  # noqa: ARG002
        self.running.release()
        assert self.gate.wait(10)
        assert not self.closed
        return dict(inputs)

    def close(self) -> None:
        self.closed += 1


def test_a_model_is_closed_once_its_last_request_is_answered() -> None:
    model = Closing()
    repository = Repository([model, Closing("other")])

    def ask() -> None:
        with repository.use("closing") as used:
            used.infer({"x": np.zeros((), np.float32)})

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(ask) for _ in range(3)]
        for _ in range(3):
            assert model.running.acquire(timeout=10)
        repository.unload_model("closing")
        assert model.closed == 0
        model.gate.set()
        for future in futures:
            future.result(10)
    assert model.closed == 1
    repository.close()
    assert model.closed == 1
    with pytest.raises(HybridgeError, match="model 'other'") as caught, repository.use("other"):
        raise AssertionError("a closed model was used")
    assert caught.value.code is ErrorCode.CLOUD_UNAVAILABLE


@pytest.fixture
def watched(folder: Path) -> Iterator[Repository]:
    repository = Repository.load([folder])
    with RepositoryWatch(repository, interval_s=0.02):
        yield repository


def test_a_watch_loads_what_appears(folder: Path, watched: Repository) -> None:
    _put(folder, "11", gain=4.0)
    give_up = time.monotonic() + 10
    while watched.versions("linear")[0] != "11":
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert _gain(watched) == pytest.approx(4.0)


def test_a_watch_survives_rubbish_and_a_folder_that_is_gone(folder: Path, watched: Repository) -> None:
    (folder / "linear" / "10" / "model.onnx").write_bytes(b"rubbish")
    give_up = time.monotonic() + 10
    while not any(state.reason for state in watched.index()):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert _gain(watched) == pytest.approx(1.0)
    os.rename(folder, folder.with_name("elsewhere"))
    time.sleep(0.1)
    assert _gain(watched) == pytest.approx(1.0)
    os.rename(folder.with_name("elsewhere"), folder)
    _put(folder, "10", gain=9.0)
    while _gain(watched) != pytest.approx(9.0):
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.mark.parametrize("model", ["linear.onnx", "linear/1/model.onnx"])
def test_a_watch_follows_the_links_that_kubernetes_replaces_at_once(tmp_path: Path, model: str) -> None:
    def mount(moment: str, gain: float) -> None:
        """Writes a volume as the kubelet does: a folder of this moment, and one rename of the link to it."""
        folder = tmp_path / f"..{moment}"
        (folder / model).parent.mkdir(parents=True)
        write_linear(folder / model, gain=gain)
        (tmp_path / "..data_tmp").symlink_to(folder.name)
        os.replace(tmp_path / "..data_tmp", tmp_path / "..data")

    mount("2026_01_01_00_00_00.1", 1.0)
    top = Path(model).parts[0]
    (tmp_path / top).symlink_to(Path("..data") / top)
    repository = Repository.load([tmp_path])
    with RepositoryWatch(repository, interval_s=0.02):
        assert _gain(repository) == pytest.approx(1.0)
        mount("2026_01_02_00_00_00.2", 4.0)
        shutil.rmtree(tmp_path / "..2026_01_01_00_00_00.1")
        give_up = time.monotonic() + 10
        while _gain(repository) != pytest.approx(4.0):
            assert time.monotonic() < give_up
            time.sleep(0.01)
    assert [state.name for state in repository.index()] == ["linear"]


def test_a_watch_says_once_what_it_cannot_look_for(
    folder: Path, watched: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    settings = folder / "linear" / "model.toml"
    settings.write_text("rubbish")
    give_up = time.monotonic() + 10
    while "model.toml" not in caplog.text:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(caplog.records) == 1
    settings.write_text('versions = "latest"')
    while watched.versions("linear") != ("10",):
        assert time.monotonic() < give_up
        time.sleep(0.01)
