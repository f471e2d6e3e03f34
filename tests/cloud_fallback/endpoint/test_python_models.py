"""Models that a function makes, served beside files."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_fallback import CloudFallback, Endpoint, EndpointProcess, Repository
from cloud_fallback.endpoint.repository_watch import RepositoryWatch
from cloud_fallback.endpoint.served import TimeLeft, no_limit
from edge_runtime import ErrorCode, HybridgeError, Reason
from edge_runtime.tensor_spec import TensorSpec
from tests.cloud_fallback.conftest import unsure
from tests.cloud_fallback.onnx_models import write_linear

Array = np.ndarray[Any, Any]

closed: list[str] = []


class Reversing:
    """Gives a text backwards."""

    version, platform = "2", "python"
    inputs = (TensorSpec("text", (), "string"),)
    outputs = (TensorSpec("reversed", (), "string"),)

    def __init__(self, name: str):
        self.name = name

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:  # noqa: ARG002
        return {"reversed": np.array(inputs["text"].item().decode()[::-1], object)}

    def close(self) -> None:
        closed.append(self.name)


class Garbling(Reversing):
    """Gives bytes that are no text."""

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:  # noqa: ARG002
        return {"reversed": np.array(b"\xff\xfe", object)}


def reversing(*, name: str | None, instances: int, num_threads: int) -> Reversing:
    assert instances >= 1
    assert num_threads >= 1
    return Reversing(name or "reversing")


def garbling(*, name: str | None, instances: int, num_threads: int) -> Garbling:
    return Garbling(name or "garbling")


def raising(**options: Any) -> Reversing:
    raise KeyError("oh")


def nothing(**options: Any) -> None:
    return None


HERE = __name__


def test_a_function_stands_beside_files_and_may_be_given_a_name(onnx_models: Path) -> None:
    repository = Repository.load(
        [f"{HERE}:reversing", f"other={HERE}:reversing", onnx_models / "linear.onnx"], instances=2
    )
    assert [model.name for model in repository.models] == ["linear", "other", "reversing"]
    assert repository.find("reversing").version == "2"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (f"{HERE}:raising", "KeyError"),
        (f"{HERE}:nothing", "without name"),
        (f"{HERE}:missing", "AttributeError"),
        ("no_such_module:model", "ModuleNotFoundError"),
    ],
)
def test_a_function_that_makes_no_model_is_refused(source: str, said: str) -> None:
    closed.clear()
    with pytest.raises(HybridgeError, match=said) as caught:
        Repository.load([f"first={HERE}:reversing", source])
    assert caught.value.code is ErrorCode.MODEL_INVALID
    assert closed == ["first"]


def test_loading_another_model_leaves_it_as_it_is(onnx_models: Path) -> None:
    closed.clear()
    repository = Repository.load([f"{HERE}:reversing", onnx_models / "linear.onnx"])
    before = repository.find("reversing")
    repository.load_model("linear")
    assert repository.refresh() == []
    assert repository.find("reversing") is before
    assert closed == []


def test_it_is_made_anew_when_it_is_asked_for_and_comes_back_when_it_was_unloaded() -> None:
    closed.clear()
    repository = Repository.load([f"{HERE}:reversing", f"other={HERE}:reversing"])
    before = repository.find("reversing")
    repository.load_model("reversing")
    assert repository.find("reversing") is not before
    assert closed == ["reversing"]
    repository.unload_model("other")
    assert [model.name for model in repository.models] == ["reversing"]
    repository.load_model("other")
    assert [(each.name, each.is_ready) for each in repository.index()] == [
        ("other", True),
        ("reversing", True),
    ]


def test_files_beside_it_are_watched(tmp_path: Path) -> None:
    write_linear(tmp_path / "linear.onnx")
    repository = Repository.load([f"{HERE}:reversing", tmp_path])
    before = repository.find("linear")
    with RepositoryWatch(repository, interval_s=0.02):
        write_linear(tmp_path / "linear.new", gain=3.0)
        (tmp_path / "linear.new").replace(tmp_path / "linear.onnx")
        end = time.monotonic() + 10
        while repository.find("linear") is before:
            assert time.monotonic() < end, "not loaded within ten seconds"
            time.sleep(0.02)


def test_an_endpoint_that_stops_closes_its_models() -> None:
    closed.clear()
    with Endpoint([f"{HERE}:reversing"]):
        assert closed == []
    assert closed == ["reversing"]


def test_an_endpoint_that_cannot_start_closes_its_models(endpoint: Endpoint) -> None:
    closed.clear()
    with pytest.raises(HybridgeError):
        Endpoint([f"{HERE}:reversing"], port=endpoint.port).start()
    assert closed == ["reversing"]


def test_text_goes_out_and_comes_back_as_text() -> None:
    with (
        EndpointProcess([f"{HERE}:reversing"]) as endpoint,
        CloudFallback(endpoint.address, model="reversing", deadline_s=10.0) as fallback,
    ):
        answer = fallback.resolve(unsure({"text": np.array("año")}, reversed=np.array("")))
        assert answer.outputs is not None
        assert answer.outputs["reversed"].dtype.kind == "U"
        assert answer.outputs["reversed"].item() == "oña"


@pytest.mark.parametrize("own", [np.array(""), np.array(0.5), np.array([""])])
def test_an_answer_that_cannot_be_the_devices_text_is_refused(
    own: Array, fallback: Callable[..., CloudFallback]
) -> None:
    model = "reversing" if own.dtype.kind != "U" or own.shape else "garbling"
    with Endpoint([f"{HERE}:{model}"]) as endpoint:
        answer = fallback(model, target=endpoint.address).resolve(
            unsure({"text": np.array("a")}, reversed=own)
        )
        assert (answer.outputs, answer.reason) == (None, Reason.CLOUD_REFUSED)
