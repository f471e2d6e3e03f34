from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from convert import convert
from convert.quantization import operations
from convert.sources import freed, open_source, parse_input, pinned
from edge_runtime.bundle import Bundle
from edge_runtime.model import Model
from tests.convert.onnx.models import convnet, model, saved, tensor
from tests.convert.sources.conftest import exported, open_refusal, refusal

NODE = helper.make_node


@pytest.fixture(scope="module")
def convnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(convnet(), tmp_path_factory.mktemp("onnx") / "net.onnx")


def test_a_convnet_converts_with_its_names_and_order(convnet_file: Path) -> None:
    exported(
        open_source(convnet_file),
        inputs=["image"],
        outputs=["features", "classes"],
        shapes={"image": (1, 3, 17, 20)},
        tolerance=1e-5,
    )


def test_nothing_is_transposed_between_convolutions(convnet_file: Path) -> None:
    source = open_source(convnet_file, channels_last=True)
    assert source.inputs[0].shape == ("batch", "height", "width", 3)
    content = source.export(pinned(source.inputs, 1, source.name, {"image": (1, 16, 16, 3)}))
    assert "TRANSPOSE" not in {each.name for each in operations(content)}
    image = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)
    received, expected = Model(content).run({"image": image}), source.predict({"image": image})
    assert received["features"].shape == (1, 4, 4, 6)
    for name, array in expected.items():
        np.testing.assert_allclose(received[name], array, atol=1e-5)


def test_inputs_and_outputs_keep_their_layout_and_the_manifest_says_which(convnet_file: Path) -> None:
    first = convert(convnet_file, shapes={"image": (1, 3, 16, 16)}).bundle.manifest.signature
    assert (first.inputs[0].shape, first.outputs[0].shape) == ((1, 3, 16, 16), (1, 6, 4, 4))
    assert first.layout == "channels-first"
    last = convert(
        convnet_file, shapes={"image": (1, 16, 16, 3)}, channels_last=True
    ).bundle.manifest.signature
    assert (last.inputs[0].shape, last.layout) == ((1, 16, 16, 3), "channels-last")


def test_dimensions_stay_free_under_their_names(convnet_file: Path) -> None:
    shapes = dict([parse_input("image:1,3,16,width=16")])
    bundle = convert(convnet_file, shapes=shapes).bundle
    assert bundle.manifest.signature.inputs[0].shape == (1, 3, 16, "width")
    assert bundle.manifest.signature.sizes == {"width": 16}
    source, device = open_source(convnet_file), Model(bundle)
    for width in (16, 33, 8):
        image = np.random.default_rng(width).normal(size=(1, 3, 16, width)).astype(np.float32)
        received, expected = device.run({"image": image}), source.predict({"image": image})
        for name, array in expected.items():
            np.testing.assert_allclose(received[name], array, atol=1e-5)


def test_arithmetic_on_shapes_is_folded_and_keeps_what_is_known_of_a_free_one(tmp_path: Path) -> None:
    int64 = {name: onnx.numpy_helper.from_array(np.array(values, np.int64), name) for name, values in {
        "zero": [0], "two": [2], "end": [9], "minus": [-1]}.items()}  # fmt: skip
    nodes = [
        NODE("Conv", ["x", "w"], ["c"]),
        NODE("Shape", ["c"], ["shape"]),
        NODE("Slice", ["shape", "zero", "two", "zero"], ["lead"]),
        NODE("Concat", ["lead", "minus"], ["wanted"], axis=0),
        NODE("Reshape", ["c", "wanted"], ["flat"]),
        NODE("Transpose", ["flat"], ["y"], perm=[0, 2, 1]),
    ]
    made = model(
        nodes, {"x": (1, 3, 8, "width")}, {"y": (1, "steps", 4)}, [tensor("w", 4, 3, 3, 3), *int64.values()]
    )
    source = open_source(saved(made, tmp_path / "m.onnx"))
    fixed = pinned(source.inputs, 1, source.name, {"x": (1, 3, 8, 8)})
    counts = Counter(each.name for each in operations(source.export(fixed)))
    assert counts["TRANSPOSE"] <= 1
    assert not counts["SHAPE"]
    assert not counts["CONCATENATION"]
    shapes = {"x": (1, 3, 8, "width=8")}
    device = Model(source.export(freed(source.inputs, fixed, shapes)))
    x = np.random.default_rng(1).normal(size=(1, 3, 8, 11)).astype(np.float32)
    np.testing.assert_allclose(device.run({"x": x})["y"], source.predict({"x": x})["y"], atol=1e-5)


def test_inputs_without_a_common_batch_and_constants(tmp_path: Path) -> None:
    nodes = [
        NODE("Mul", ["x", "rate"], ["scaled"]),
        NODE("Add", ["scaled", "state"], ["y"]),
        NODE("Relu", ["y"], ["next:state"]),
    ]
    made = model(
        nodes,
        {"x": ("batch", 4), "state": (2, "batch", 4), "rate": ()},
        {"y": (2, "batch", 4), "next:state": (2, "batch", 4)},
    )
    path = saved(made, tmp_path / "m.onnx")
    bundle = convert(path, constants={"rate": "0.5"}).bundle
    assert [spec.name for spec in bundle.manifest.signature.inputs] == ["x", "state"]
    assert [spec.name for spec in bundle.manifest.signature.outputs] == ["y", "next:state"]
    x, state = np.ones((1, 4), np.float32), np.full((2, 1, 4), 3, np.float32)
    np.testing.assert_allclose(Model(bundle).run({"x": x, "state": state})["y"], np.full((2, 1, 4), 3.5))
    code, message = open_refusal(path, constants={"speed": "1"})
    assert code == "usage"
    assert "rate (float32 of shape ())" in message


def test_metadata_is_carried_and_names_the_classes(convnet_file: Path, tmp_path: Path) -> None:
    made = onnx.load(convnet_file)
    del made.graph.output[0]
    helper.set_model_props(made, {"character": "ant\nbee\ncat\ndog\nelk", "author": "someone"})
    bundle = convert(saved(made, tmp_path / "m.onnx"), shapes={"image": (1, 3, 16, 16)}).bundle
    assert Bundle.from_bytes(bundle.to_bytes()).manifest.metadata["author"] == "someone"
    assert bundle.manifest.labels == ("ant", "bee", "cat", "dog", "elk")


def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    made = model([NODE("MatMul", ["x", "w"], ["y"])], {"x": (1, 64)}, {"y": (1, 64)}, [tensor("w", 64, 64)])
    onnx.save(made, path, save_as_external_data=True, location="weights.bin", size_threshold=16)
    exported(open_source(path), inputs=["x"], outputs=["y"], tolerance=1e-5)
    (tmp_path / "weights.bin").unlink()
    code, message = open_refusal(path)
    assert code == "source-invalid"
    assert "'weights.bin'" in message


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    made = model([NODE("MatMul", ["x", "w"], ["y"])], {"x": (1, 4)}, {"y": (1, 4)}, [tensor("w", 4, 4)])
    onnx.external_data_helper.set_external_data(made.graph.initializer[0], "../secret")
    made.graph.initializer[0].ClearField("raw_data")
    made.graph.initializer[0].data_location = TensorProto.EXTERNAL
    code, message = open_refusal(saved(made, tmp_path / "m.onnx"))
    assert code == "source-invalid"
    assert "'../secret'" in message


def _shapes_that_contradict() -> Any:
    return model([NODE("MatMul", ["x", "w"], ["y"])], {"x": (1, 3)}, {"y": (1, 4)}, [tensor("w", 4, 4)])


def _from_the_future() -> Any:
    made = convnet()
    made.opset_import[0].version = 999
    return made


def _with_an_unknown_domain() -> Any:
    return model(
        [
            NODE("Warp", ["x"], ["a"], name="one", domain="acme"),
            NODE("Weft", ["a"], ["y"], name="two", domain="acme"),
        ],
        {"x": (1, 3)},
        {"y": (1, 3)},
        domains=["acme"],
    )


def _refused_by_the_checker() -> Any:
    return model([NODE("Relu", ["nothing"], ["y"])], {"x": (1, 3)}, {"y": (1, 3)})


@pytest.mark.parametrize(
    ("made", "code", "words"),
    [
        (_shapes_that_contradict, "source-invalid", ("MatMul",)),
        (_from_the_future, "source-invalid", ("version 999", "at most")),
        (_with_an_unknown_domain, "conversion-failed", ("acme.Warp 'one'", "acme.Weft 'two'", "2 nodes")),
        (_refused_by_the_checker, "source-invalid", ("nothing",)),
    ],
)
def test_unsound_models_are_refused(made: Any, code: str, words: tuple[str, ...], tmp_path: Path) -> None:
    received, message = open_refusal(saved(made(), tmp_path / "m.onnx"))
    assert received == code
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "content", [b"", b"\x08\x07garbage", b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_files_that_are_no_models_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert open_refusal(path)[0] == "source-invalid"


def test_a_truncated_file_is_refused(convnet_file: Path, tmp_path: Path) -> None:
    content = convnet_file.read_bytes()
    path = tmp_path / "m.onnx"
    path.write_bytes(content[: len(content) // 2])
    code, message = open_refusal(path)
    assert code == "source-invalid"
    assert "no whole ONNX model" in message


def test_all_that_cannot_be_converted_is_named_at_once(tmp_path: Path) -> None:
    nodes = [
        NODE("ImageDecoder", ["bytes"], ["picture"], name="decode"),
        NODE("Cast", ["picture"], ["x"], to=TensorProto.FLOAT),
        NODE("RegexFullMatch", ["text"], ["matches"], name="match", pattern="a.*"),
    ]
    weights = [helper.make_tensor("text", TensorProto.STRING, [1], [b"abc"])]
    made = model(
        nodes, {"bytes": (64,)}, {"x": ("h", "w", 3), "matches": (1,)}, weights, opset=20,
        types={"bytes": TensorProto.UINT8, "matches": TensorProto.BOOL},
    )  # fmt: skip
    source = open_source(saved(made, tmp_path / "m.onnx"))
    code, message = refusal(lambda: source.export(source.inputs))
    assert code == "conversion-failed"
    for word in ("2 nodes", "'decode'", "'match'"):
        assert word in message


def test_a_scale_and_shift_go_into_the_next_convolution(tmp_path: Path) -> None:
    scalars = [
        onnx.numpy_helper.from_array(np.array([value], np.float32), name)
        for name, value in (("s", 0.7), ("t", -0.3))
    ]
    nodes = [
        NODE("Conv", ["x", "w1"], ["a"]), NODE("Sigmoid", ["a"], ["b"]), NODE("Mul", ["b", "s"], ["c"]),
        NODE("Add", ["c", "t"], ["d"]), NODE("Conv", ["d", "w2"], ["e"]),
        NODE("Conv", ["d", "w3"], ["y"], pads=[1] * 4),
        NODE("Add", ["e", "y"], ["z"]),
    ]  # fmt: skip
    weights = [tensor("w1", 4, 3, 1, 1), tensor("w2", 4, 4, 1, 1), tensor("w3", 4, 4, 3, 3), *scalars]
    path = saved(model(nodes, {"x": (1, 3, 6, 6)}, {"z": (1, 4, 6, 6)}, weights), tmp_path / "m.onnx")
    device = exported(open_source(path), inputs=["x"], outputs=["z"], tolerance=1e-5)
    assert device is not None
    content = open_source(path).export(open_source(path).inputs)
    counts = Counter(each.name for each in operations(content))
    assert counts["MUL"] == 0
    assert counts["ADD"] == 2  # the sum of both branches, and the shift where zeros surround it


def test_what_onnxruntime_cannot_run_is_compared_with_the_reference_and_says_so(tmp_path: Path) -> None:
    taken: dict[str, Sequence[Any]] = {"x": (1, 8)}
    given: dict[str, Sequence[Any]] = {"y": (1, 8)}
    refused = saved(model([NODE("Swish", ["x"], ["y"])], taken, given, opset=25), tmp_path / "swish.onnx")
    conversion = convert(refused)
    assert any("Could not find an implementation for Swish" in each for each in conversion.workbench.warnings)
    assert conversion.parity.max_abs_error < 1e-6
    known = convert(saved(model([NODE("Relu", ["x"], ["y"])], taken, given), tmp_path / "relu.onnx"))
    assert not known.workbench.warnings
