"""What is served: each format behind one protocol, found by name and version."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cloud_fallback import Repository
from cloud_fallback.endpoint.model_source import find_models
from cloud_fallback.endpoint.served.onnx_model import OnnxModel
from cloud_fallback.endpoint.served.tflite_model import TfliteModel
from edge_runtime import Bundle, ErrorCode, HybridgeError, Model
from tests.cloud_fallback.onnx_models import LINEAR_WEIGHTS

Array = np.ndarray[Any, Any]


def _code(call: Callable[[], Any]) -> ErrorCode:
    with pytest.raises(HybridgeError) as caught:
        call()
    return caught.value.code


def test_a_folder_gives_every_model_in_it(onnx_models: Path) -> None:
    repository = Repository.load([onnx_models])
    assert [model.name for model in repository.models] == sorted(path.stem for path in onnx_models.iterdir())
    assert {(model.version, model.platform) for model in repository.models} == {("1", "onnx_onnxv1")}


def test_a_file_may_be_given_another_name(onnx_models: Path) -> None:
    repository = Repository.load([f"first={onnx_models / 'linear.onnx'}", onnx_models / "linear.onnx"])
    assert [model.name for model in repository.models] == ["first", "linear"]


def test_an_equals_sign_in_a_path_is_no_name(onnx_models: Path, tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()
    path = shutil.copy(onnx_models / "linear.onnx", tmp_path / "a=b")
    assert Repository.load([path]).models[0].name == "linear"


@pytest.mark.parametrize(
    "hidden",
    [
        "..2026_01_01_00_00_00.1/linear/model.onnx",
        ".ipynb_checkpoints/1/model.onnx",
        "__MACOSX/1/model.onnx",
        "lost+found/1/model.onnx",
        "._linear.onnx",
        "linear/.ipynb_checkpoints/model.onnx",
        "linear/1/._model.onnx",
    ],
)
def test_what_is_hidden_in_a_folder_or_the_systems_own_is_no_model(
    onnx_models: Path, tmp_path: Path, hidden: str
) -> None:
    for path in (tmp_path / "linear" / "1" / "model.onnx", tmp_path / hidden):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(onnx_models / "linear.onnx", path)
    (model,) = Repository.load([tmp_path]).models
    assert (model.name, model.version) == ("linear", "1")


def test_a_path_that_is_no_text_is_one_clear_error(onnx_models: Path, tmp_path: Path) -> None:
    shutil.copy(onnx_models / "linear.onnx", tmp_path / os.fsdecode(b"\xff.onnx"))
    with pytest.raises(HybridgeError, match=r"\\udcff\.onnx', expected one in UTF-8") as caught:
        Repository.load([tmp_path])
    assert caught.value.code is ErrorCode.USAGE


def test_a_hidden_path_is_served_to_who_names_it(onnx_models: Path, tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    shutil.copy(onnx_models / "linear.onnx", tmp_path / ".cache" / ".linear.onnx")
    assert Repository.load([tmp_path / ".cache" / ".linear.onnx"]).models[0].name == ".linear"
    shutil.copy(onnx_models / "linear.onnx", tmp_path / ".cache" / "linear.onnx")
    assert [model.name for model in Repository.load([tmp_path / ".cache"]).models] == ["linear"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read as somebody else")
def test_a_folder_that_may_not_be_read_is_one_clear_error_but_for_the_file_systems_own(
    onnx_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models"
    (folder / "lost+found").mkdir(parents=True)
    (folder / "lost+found").chmod(0o700)
    shutil.copy(onnx_models / "linear.onnx", folder)
    # Others may not pass through the folders above.
    monkeypatch.chdir(folder)
    os.seteuid(65534)
    try:
        assert [source.title for source in find_models(".")] == ["linear"]
        os.seteuid(0)
        (folder / "secret").mkdir()
        (folder / "secret").chmod(0o700)
        os.seteuid(65534)
        with pytest.raises(HybridgeError, match=r"secret.*Permission denied") as caught:
            find_models(".")
    finally:
        os.seteuid(0)
    assert caught.value.code is ErrorCode.FILE_NOT_FOUND


def test_what_cannot_be_served_is_refused(onnx_models: Path, tmp_path: Path) -> None:
    linear = onnx_models / "linear.onnx"
    (tmp_path / "rubbish.onnx").write_bytes(b"rubbish")
    (tmp_path / "rubbish.tflite").write_bytes(b"rubbish")
    (tmp_path / "rubbish.edge").write_bytes(b"rubbish")
    (tmp_path / "empty").mkdir()
    refused: dict[ErrorCode, list[list[Any]]] = {
        ErrorCode.USAGE: [
            [],
            [linear, linear],
            [f"={linear}"],
            [""],
            ["name="],
            [f"name={onnx_models}"],
            [tmp_path / "model.pb"],
        ],
        ErrorCode.FILE_NOT_FOUND: [
            [tmp_path / "none.onnx"],
            [tmp_path / "none.tflite"],
            [tmp_path / "none.edge"],
            [tmp_path / ("long" * 100)],
            [tmp_path / "empty"],
        ],
        ErrorCode.MODEL_INVALID: [[tmp_path / "rubbish.onnx"], [tmp_path / "rubbish.tflite"]],
        ErrorCode.BUNDLE_DAMAGED: [[tmp_path / "rubbish.edge"]],
    }
    for code, sources in refused.items():
        for source in sources:
            assert _code(lambda source=source: Repository.load(source)) is code, source  # type: ignore[misc]


def test_an_unknown_name_or_version_is_an_error_that_lists_the_known(onnx_models: Path) -> None:
    repository = Repository.load([onnx_models / "linear.onnx"])
    assert repository.find("linear").name == repository.find("linear", "1").name == "linear"
    assert _code(lambda: repository.find("linnear")) is ErrorCode.MODEL_UNKNOWN
    with pytest.raises(HybridgeError, match="version '2', expected one of 1"):
        repository.find("linear", "2")


@pytest.mark.tensorflow
def test_the_newest_version_is_found_when_none_is_asked_for(
    make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = make_bundle()
    for version in ("1.9", "1.10", "1.10-rc1", "1.2.3"):
        manifest = msgspec.structs.replace(bundle.manifest, version=version)
        Bundle.create(manifest, bundle.files).save(tmp_path)
    repository = Repository.load([tmp_path], instances=1)
    assert repository.versions("digits") == ("1.10", "1.10-rc1", "1.9", "1.2.3")
    assert repository.find("digits").version == "1.10"
    assert repository.find("digits", "1.9").version == "1.9"


def test_an_onnx_model_shows_its_tensors_and_computes(onnx_models: Path) -> None:
    model = OnnxModel(onnx_models / "linear.onnx")
    assert [(spec.name, spec.shape, spec.dtype) for spec in model.inputs] == [("x", ("batch", 3), "float32")]
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(model.infer({"x": x})["y"], x @ LINEAR_WEIGHTS)


def test_an_onnx_model_of_strings_takes_bytes_and_gives_text(onnx_models: Path) -> None:
    model = OnnxModel(onnx_models / "strings.onnx")
    assert model.infer({"text": np.array(["é".encode(), b"b"], object)})["same"].tolist() == ["é", "b"]
    assert _code(lambda: model.infer({"text": np.array([b"\xff"], object)})) is ErrorCode.INPUT_INVALID


def test_an_onnx_model_refuses_what_it_does_not_take(onnx_models: Path) -> None:
    model = OnnxModel(onnx_models / "linear.onnx")
    x = np.zeros((1, 3), np.float32)
    assert _code(lambda: model.infer({})) is ErrorCode.INPUT_MISSING
    assert _code(lambda: model.infer({"x": x, "z": x})) is ErrorCode.INPUT_UNKNOWN
    assert _code(lambda: model.infer({"x": x.astype(np.float64)})) is ErrorCode.INPUT_DTYPE
    assert _code(lambda: model.infer({"x": x.astype(object)})) is ErrorCode.INPUT_DTYPE
    assert _code(lambda: model.infer({"x": x[0]})) is ErrorCode.INPUT_SHAPE
    assert _code(lambda: model.infer({"x": x[:, :2]})) is ErrorCode.INPUT_SHAPE


def test_a_failure_inside_an_onnx_model_is_one_clear_error(onnx_models: Path) -> None:
    model = OnnxModel(onnx_models / "ones.onnx")
    assert _code(lambda: model.infer({"shape": np.array([-1])})) is ErrorCode.INVOKE_FAILED


def test_a_request_that_nobody_waits_for_is_not_run(
    onnx_models: Path, busy: Callable[[float], dict[str, Array]]
) -> None:
    model = OnnxModel(onnx_models / "busy.onnx")
    start = time.perf_counter()
    assert _code(lambda: model.infer(busy(2.0), time_left=lambda: 0.0)) is ErrorCode.CLOUD_DEADLINE
    assert time.perf_counter() - start < 1.0


def test_waiting_for_a_turn_ends_with_the_time_that_is_left(
    onnx_models: Path, busy: Callable[[float], dict[str, Array]]
) -> None:
    model = OnnxModel(onnx_models / "busy.onnx", instances=1)
    first = threading.Thread(target=model.infer, args=(busy(1.5),))
    first.start()
    time.sleep(0.2)
    start = time.perf_counter()
    assert _code(lambda: model.infer(busy(0.1), time_left=lambda: 0.1)) is ErrorCode.CLOUD_DEADLINE
    assert time.perf_counter() - start < 0.8
    first.join()
    assert model.infer(busy(0.01))["y"] == pytest.approx(3.0)


@pytest.mark.tensorflow
def test_a_quantised_model_is_served_as_the_real_values_it_stands_for(models: Path, image: Array) -> None:
    served = TfliteModel(models / "classifier-int8.tflite", instances=2)
    assert (served.name, served.version, served.platform) == ("classifier-int8", "1", "litert_tflite")
    assert {(spec.dtype, spec.quantization) for spec in (*served.inputs, *served.outputs)} == {
        ("float32", None)
    }
    local = Model(models / "classifier-int8.tflite").run(image)
    np.testing.assert_array_equal(served.infer({"image": image})["logits"], local["logits"])


@pytest.mark.tensorflow
def test_a_bundle_is_served_with_its_preprocessing(make_bundle: Callable[..., Bundle]) -> None:
    served = TfliteModel(make_bundle(raw=True))
    assert (served.name, served.version) == ("digits", "1.0")
    assert [(spec.dtype, spec.shape) for spec in served.inputs] == [("uint8", (1, 8, 8, 1))]
    raw = np.random.default_rng(0).integers(0, 17, (1, 8, 8, 1), np.uint8)
    local = Model(make_bundle()).run(raw.astype(np.float32) * np.float32(0.0625))
    np.testing.assert_allclose(served.infer({"image": raw})["logits"], local["logits"], rtol=1e-6)


@pytest.mark.tensorflow
def test_an_empty_tensor_does_not_reach_the_kernels(models: Path) -> None:
    served = TfliteModel(models / "any-batch.tflite")
    assert served.infer({"x": np.zeros((4, 3), np.float32)})["y"].shape == (4, 2)
    assert _code(lambda: served.infer({"x": np.zeros((0, 3), np.float32)})) is ErrorCode.INPUT_SHAPE
