"""The model repository of `docs/deploy/triton`, run by Triton itself and asked by our client."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from benchmarks.serving_vs_peers.server_process import ServerProcess
from cloud_fallback import CloudFallback
from cloud_fallback.endpoint.served.tflite_model import TfliteModel
from cloud_fallback.open_inference.open_inference_pb2 import ModelMetadataRequest
from cloud_fallback.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from edge_runtime import Bundle, Chain, ErrorCode, HybridgeError, Source
from tests.cloud_fallback.deploy.manifests import DEPLOY
from tests.cloud_fallback.deploy.triton import serve_repository

pytestmark = pytest.mark.heavy

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def bundles(make_bundle: Callable[..., Bundle]) -> dict[str, Bundle]:
    """A bundle with preprocessing, a quantised one, and one that takes any batch."""
    return {
        "raw": make_bundle(raw=True, threshold=1.0),
        "int8": make_bundle(model="classifier-int8"),
        "any-batch": make_bundle(model="classifier-any-batch"),
    }


@pytest.fixture(scope="module")
def triton(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Triton with a model for each of them, made as the how-to says: the folder copied, the bundle put beside it."""
    work = tmp_path_factory.mktemp("triton")
    repository = work / "models"
    for name, bundle in bundles.items():
        shutil.copytree(DEPLOY / "triton" / "bundle", repository / name)
        bundle.save(repository / name / "1")
    with serve_repository(repository, work) as triton:
        yield triton


@pytest.mark.parametrize("model", ["raw", "int8", "any-batch"])
def test_triton_answers_as_our_endpoint_does(
    triton: ServerProcess, bundles: dict[str, Bundle], model: str
) -> None:
    ours = TfliteModel(bundles[model])
    inputs = {spec.name: _values(spec.shape, spec.dtype) for spec in ours.inputs}
    with CloudFallback(triton.address, model=model, deadline_s=10) as fallback:
        answered = fallback.infer(inputs)
    expected = ours.infer(inputs)
    assert answered.keys() == expected.keys()
    for name, array in expected.items():
        assert answered[name].dtype == array.dtype
        np.testing.assert_allclose(answered[name], array, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", ["raw", "int8", "any-batch"])
def test_triton_describes_the_bundle_that_it_was_not_told_of(
    triton: ServerProcess, bundles: dict[str, Bundle], model: str
) -> None:
    ours = TfliteModel(bundles[model])
    with grpc.insecure_channel(triton.address) as channel:
        theirs = GRPCInferenceServiceStub(channel).ModelMetadata(ModelMetadataRequest(name=model), timeout=10)
    kinds = {"float32": "FP32", "uint8": "UINT8"}
    for specs, described in ((ours.inputs, theirs.inputs), (ours.outputs, theirs.outputs)):
        assert [(each.name, each.datatype, list(each.shape)) for each in described] == [
            (spec.name, kinds[spec.dtype], [-1 if isinstance(size, str) else size for size in spec.shape])
            for spec in specs
        ]


def test_a_chain_that_is_unsure_takes_triton_s_answer(
    triton: ServerProcess, bundles: dict[str, Bundle]
) -> None:
    with (
        CloudFallback(triton.address, model="raw", deadline_s=10) as fallback,
        Chain.from_bundle(bundles["raw"], fallback=fallback) as chain,
    ):
        prediction = chain.run({"image": _values((1, 8, 8, 1), "uint8")})
    assert prediction.source is Source.CLOUD, prediction.detail


def test_what_a_bundle_does_not_take_is_said_by_the_bundle(triton: ServerProcess) -> None:
    with CloudFallback(triton.address, model="any-batch", deadline_s=10) as fallback:
        with pytest.raises(HybridgeError, match=r"batch|shape") as caught:
            fallback.infer({"image": np.zeros((0, 8, 8, 1), np.float32)})
        assert caught.value.code is ErrorCode.CLOUD_REFUSED
        # And the instance goes on.
        assert fallback.infer({"image": np.zeros((3, 8, 8, 1), np.float32)})["logits"].shape == (3, 10)


def test_many_at_once_get_each_its_own_answer(triton: ServerProcess, bundles: dict[str, Bundle]) -> None:
    ours = TfliteModel(bundles["raw"])
    images = [_values((1, 8, 8, 1), "uint8", seed=seed) for seed in range(64)]
    with CloudFallback(triton.address, model="raw", deadline_s=10) as fallback, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda image: fallback.infer({"image": image})["logits"], images))
    for image, answer in zip(images, answers, strict=True):
        np.testing.assert_allclose(answer, ours.infer({"image": image})["logits"], rtol=1e-5, atol=1e-6)


def _values(shape: tuple[int | str, ...], dtype: str, seed: int = 3) -> Array:
    sizes = [2 if isinstance(size, str) else size for size in shape]
    return (np.random.default_rng(seed).random(sizes) * (16 if dtype == "uint8" else 1)).astype(dtype)
