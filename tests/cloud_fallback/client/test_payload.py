"""Questions are as small as the endpoint takes them, and nothing is lost that was not asked to be."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from cloud_fallback import CloudFallback
from cloud_fallback.client.payload import Payload
from cloud_fallback.open_inference.open_inference_pb2 import ModelMetadataResponse
from cloud_fallback.open_inference.tensors import decode_request
from edge_runtime import ErrorCode, HybridgeError, Source
from tests.cloud_fallback.client.peer import Peer, Serving, question
from tests.cloud_fallback.client.relay import Relay

Array = np.ndarray[Any, Any]
IMAGE = np.random.default_rng(0).integers(0, 256, (1, 24, 32, 3)).astype(np.float32)


def _code(call: Callable[..., Any], *arguments: Any, **options: Any) -> ErrorCode:
    with pytest.raises(HybridgeError) as caught:
        call(*arguments, **options)
    return caught.value.code


@pytest.mark.parametrize(
    ("array", "declared", "sent"),
    [
        (IMAGE, "UINT8", "uint8"),
        (IMAGE, "FP32", "float32"),
        (IMAGE, "FP64", "float64"),
        (IMAGE, "FP16", "float16"),
        (IMAGE, "BYTES", "float32"),
        (IMAGE, "BOOL", "float32"),
        (IMAGE, "no such type", "float32"),
        # Something would be lost.
        (IMAGE + 0.5, "UINT8", "float32"),
        (IMAGE - 1, "UINT8", "float32"),
        (IMAGE * 2, "UINT8", "float32"),
        (IMAGE / 3, "FP16", "float32"),
        (np.array([70000.0], np.float32), "FP16", "float32"),
        (np.array([np.nan], np.float32), "UINT8", "float32"),
        (np.array([np.inf], np.float32), "INT32", "float32"),
        (np.array([2**53 + 1], np.int64), "FP64", "int64"),
        (np.array([3, -3], np.int64), "INT8", "int8"),
        (np.array(["text"]), "UINT8", "<U4"),
        (np.zeros((0, 3), np.float32), "UINT8", "uint8"),
    ],
)
def test_an_array_goes_in_the_models_type_when_that_loses_nothing(
    array: Array, declared: str, sent: str
) -> None:
    shrunk = Payload().shrink({"x": array}, {"x": (declared, array.ndim), "other": ("UINT8", 1)})["x"]
    assert shrunk.dtype == np.dtype(sent)
    np.testing.assert_array_equal(shrunk, array)


def test_without_anything_to_do_the_inputs_are_the_same_objects() -> None:
    inputs = {"x": IMAGE}
    assert Payload().shrink(inputs, {}) is inputs
    assert Payload({"other": "uint8"}).shrink(inputs, {})["x"] is IMAGE


def test_uint8_is_whole_numbers_or_refused() -> None:
    payload = Payload({"x": "uint8"})
    np.testing.assert_array_equal(payload.shrink({"x": IMAGE}, {})["x"], IMAGE.astype(np.uint8))
    for array in (IMAGE / 255, IMAGE - 1, np.array([256]), np.array(["1"]), np.array([np.nan])):
        assert _code(payload.shrink, {"x": array}, {}) is ErrorCode.INPUT_DTYPE


def test_float16_loses_digits_and_nothing_else() -> None:
    payload = Payload({"x": "float16"})
    sent = payload.shrink({"x": IMAGE / 7}, {})["x"]
    assert sent.dtype == np.float16
    np.testing.assert_allclose(sent, IMAGE / 7, rtol=1e-3)
    assert np.isinf(payload.shrink({"x": np.array([np.inf])}, {})["x"]).all()
    for array in (np.array([65520.0]), np.array([1]), np.array(["1"])):
        assert _code(payload.shrink, {"x": array}, {}) is ErrorCode.INPUT_DTYPE


@pytest.mark.parametrize("shape", [(1, 24, 32, 3), (24, 32, 3), (24, 32, 1), (24, 32), (2, 24, 32, 1)])
def test_png_keeps_every_pixel(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    files = Payload({"x": "png"}).shrink({"x": image}, {})["x"]
    decoded: list[Any] = [cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED) for file in files]
    seen = np.stack([file[..., ::-1] if file.ndim == 3 else file[..., np.newaxis] for file in decoded])
    np.testing.assert_array_equal(seen.reshape(shape), image)


def test_jpeg_is_close_and_small() -> None:
    y, x = np.mgrid[:96, :96]
    image = np.stack([x * 2, y * 2, (x + y)], axis=-1).astype(np.float32)[np.newaxis]
    (good,), (bad,) = (Payload({"x": f"jpeg:{q}"}).shrink({"x": image}, {})["x"] for q in (95, 10))
    assert len(bad) < len(good) < image.nbytes / 10
    seen: Any = cv2.imdecode(np.frombuffer(good, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(seen.astype(np.float32) - image[0]).mean() < 3


def test_an_encoded_image_has_the_shape_that_the_model_declares() -> None:
    payload = Payload({"x": "png"})
    for declared, dtype, ndim in (
        (("BYTES", 1), object, 1),
        (("BYTES", 2), object, 2),
        (("UINT8", 1), np.uint8, 1),
        (("UINT8", 2), np.uint8, 2),
    ):
        sent = payload.shrink({"x": IMAGE}, {"x": declared})["x"]
        assert (sent.dtype, sent.ndim) == (dtype, ndim)


def test_what_is_no_image_and_no_form_is_refused() -> None:
    for form in ("jpg", "jpeg:0", "jpeg:101", "jpeg:", "int4", ""):
        assert _code(Payload, {"x": form}) is ErrorCode.USAGE
    for array in (np.zeros((2, 3, 4), np.uint8), np.zeros(3, np.uint8), np.zeros((0, 2, 3, 3), np.uint8)):
        assert _code(Payload({"x": "png"}).shrink, {"x": array}, {}) is ErrorCode.INPUT_SHAPE
    assert _code(lambda: Payload({"x": "png"}).shrink({"x": IMAGE / 255}, {})) is ErrorCode.INPUT_DTYPE


def _declares(**inputs: tuple[str, int]) -> ModelMetadataResponse:
    return ModelMetadataResponse(
        name="m",
        versions=["1"],
        inputs=[
            ModelMetadataResponse.TensorMetadata(name=name, datatype=kind, shape=[-1] * rank)
            for name, (kind, rank) in inputs.items()
        ],
    )


def test_the_endpoint_is_asked_once_what_it_takes_and_then_sent_that(
    ask: Callable[..., CloudFallback],
) -> None:
    peer = Peer(metadata=_declares(x=("UINT8", 1)))
    client = ask(peer)
    limit = time.monotonic() + 5
    while client.figures().bytes_saved == 0:
        answer = client.resolve(question(*range(200)))
        assert answer.source is Source.CLOUD
        assert time.monotonic() < limit
    assert answer.outputs is not None
    assert answer.outputs["y"][0] == 19900
    assert client.figures().bytes_saved == 600
    assert peer.seen[0].inputs[0].datatype == "FP32"
    assert decode_request(peer.seen[-1])["x"].dtype == np.uint8


def test_an_input_that_its_form_cannot_hold_keeps_the_devices_answer(
    ask: Callable[..., CloudFallback],
) -> None:
    peer = Peer()
    client = ask(peer, payload={"x": "uint8"})
    kept = client.resolve(question(0.5))
    assert (kept.source, "whole numbers" in kept.detail, peer.seen) == (Source.DEVICE, True, [])
    assert client.resolve(question(5.0)).source is Source.CLOUD


def test_gzip_is_understood_by_the_other_side_and_takes_fewer_bytes(
    serve: Callable[..., Serving], ask: Callable[..., CloudFallback]
) -> None:
    peer = Peer()
    sent = {}
    for compression in ("none", "gzip"):
        with Relay(serve(peer).port) as relay:
            client = ask(relay.address, compression=compression)
            answer = client.resolve(question(*[1.0] * 50_000))
            assert answer.outputs is not None
            assert answer.outputs["y"][0] == 50_000
            sent[compression] = relay.sent
    assert sent["none"] > 200_000 > 20 * sent["gzip"]
    assert _code(lambda: CloudFallback("h:1", model="m", compression="zip")) is ErrorCode.USAGE
