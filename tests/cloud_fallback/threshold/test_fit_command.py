"""`hybridge fallback fit` on real bundles: what it writes, what a chain then does, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cloud_fallback import Endpoint
from cloud_fallback.endpoint.served.onnx_model import OnnxModel
from cloud_fallback.threshold.cloud_answers import ask_cloud
from cloud_fallback.threshold.fit_command import fit
from edge_runtime import Bundle, Chain, ErrorCode, HybridgeError, Model, Stage
from edge_runtime.chain.tier import Tier
from tests.command import hybridge

Array = np.ndarray[Any, Any]
COUNT = 1200


@dataclass(frozen=True)
class Fitting:
    """A folder with two bundles, labelled data, and what a cloud says of it."""

    folder: Path
    images: Array

    @property
    def small(self) -> Path:
        return self.folder / "small.edge"

    @property
    def large(self) -> Path:
        return self.folder / "large.edge"

    @property
    def data(self) -> Path:
        return self.folder / "val.npz"

    @property
    def cloud(self) -> Path:
        return self.folder / "cloud.npz"

    def words(self, *more: object, bundles: tuple[Path, ...] = ()) -> list[str]:
        named = [word for path in bundles or (self.small,) for word in ("--bundle", path)]
        return [str(word) for word in (*named, "--data", self.data, *more)]


@pytest.fixture(scope="module")
def fitting(make_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory) -> Fitting:
    folder = tmp_path_factory.mktemp("fitting")
    rng = np.random.default_rng(0)
    fitting = Fitting(folder, rng.random((COUNT, 8, 8, 1), dtype=np.float32))
    make_bundle(model="classifier-int8", name="small", threshold=None).save(fitting.small)
    large = make_bundle(name="large", threshold=None)
    large.save(fitting.large)
    tier = Tier(Model(large))
    truth = []
    for image in fitting.images:
        answer = tier.run([{"image": image[np.newaxis]}], batch_size=1)[0]
        # Right as often as it is sure.
        best = tier.best(answer.outputs)
        own = int(str(best).removeprefix("class-"))
        truth.append(own if rng.random() < (answer.confidence or 0) ** 0.5 else (own + 1) % 10)
    labels = np.array(truth)
    np.savez(fitting.data, image=fitting.images, label=labels, extra=labels)
    np.savez(fitting.cloud, label=np.where(rng.random(COUNT) < 0.97, labels, (labels + 3) % 10))
    return fitting


def _run(*words: object) -> None:
    fit.main([str(word) for word in words], standalone_mode=False)


def test_the_command_fits_two_tiers_writes_them_and_a_chain_does_what_it_says(
    fitting: Fitting, tmp_path: Path
) -> None:
    words = fitting.words(
        "--cloud-predictions", fitting.cloud, "--target-accuracy", 0.9, "--format", "json",
        bundles=(fitting.small, fitting.large),
    )  # fmt: skip
    result = hybridge("fallback", "fit", *words, "--out", tmp_path / "a", "--plot", tmp_path / "curve.svg")
    assert result.exit_code == 0, result.stderr
    found = result.json
    assert "not used: extra" in result.stderr
    assert (tmp_path / "curve.svg").read_text().startswith("<?xml")
    guarantee = found["guarantee"]
    assert (guarantee["kind"], guarantee["target"], guarantee["confidence"]) == ("accuracy", 0.9, 0.95)
    assert guarantee["bound"] >= 0.9
    assert guarantee["tiers"] == ["small-1.0", "large-1.0"]
    fitted = [Bundle.open(tier["saved"]) for tier in found["tiers"]]
    for bundle, tier in zip(fitted, found["tiers"], strict=True):
        confidence = bundle.manifest.confidence
        assert confidence is not None
        assert (confidence.threshold, confidence.temperature) == (tier["threshold"], tier["temperature"])
        assert json.loads(msgspec.json.encode(confidence.guarantee)) == guarantee
        assert (found["offloaded"], found["accuracy"]) in {
            (point.offloaded, point.accuracy) for point in confidence.curve
        }
        assert len(confidence.curve) <= 32
    # The chain's own cascade, over the same examples.
    chain = Chain([Stage.from_tiers("s", [Tier(Model(bundle)) for bundle in fitted])])
    last = found["tiers"][1]["threshold"]
    by = []
    for image in fitting.images:
        prediction = chain.run({"image": image[np.newaxis]})
        tier = prediction.stages[0].tier
        by.append(2 if tier == 1 and (prediction.confidence or 0) < last else tier)
    shares = np.bincount(by, minlength=3) / COUNT
    assert shares.tolist() == [*(tier["answered"] for tier in found["tiers"]), found["offloaded"]]

    again = hybridge("fallback", "fit", *words, "--out", tmp_path / "b")
    assert again.exit_code == 0, again.stderr
    for name in ("small.edge", "large.edge"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_cloud_that_is_asked_counts_like_its_predictions(
    fitting: Fitting,
    onnx_models: Path,
    endpoint: Endpoint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = OnnxModel(onnx_models / "classifier.onnx")
    said = np.array(
        [model.infer({"image": image[np.newaxis]})["logits"].argmax() for image in fitting.images[:200]]
    )
    data, predictions = tmp_path / "few.npz", tmp_path / "said.npz"
    # The truth is what this cloud says, but for a few.
    labels = np.where(np.arange(200) % 40 == 0, (said + 1) % 10, said)
    np.savez(data, image=fitting.images[:200], label=labels)
    np.savez(predictions, logits=np.eye(10)[said])
    goal = ("--target-accuracy", 0.8, "--format", "json", "--bundle", fitting.small, "--data", data)
    _run(*goal, "--cloud", f"grpc://{endpoint.address}/classifier", "--out", tmp_path / "asked")
    asked = capsys.readouterr()
    _run(*goal, "--cloud-predictions", predictions, "--out", tmp_path / "given")
    given = json.loads(capsys.readouterr().out)
    assert "asked 200 of 200" in asked.err
    assert json.loads(asked.out)["cloud_accuracy"] == pytest.approx(0.975)
    assert json.loads(asked.out)["guarantee"] == given["guarantee"]
    assert (tmp_path / "asked/small.edge").read_bytes() == (tmp_path / "given/small.edge").read_bytes()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("grpc://{address}/nobody", ErrorCode.MODEL_UNKNOWN),
        ("grpc://127.0.0.1:1/classifier", ErrorCode.CLOUD_UNAVAILABLE),
        ("grpc://{address}/linear", ErrorCode.CLOUD_REFUSED),
        ("http://{address}/classifier", ErrorCode.FALLBACK_UNKNOWN),
    ],
)
def test_a_cloud_that_does_not_answer_ends_the_fit_and_nothing_is_written(
    fitting: Fitting, endpoint: Endpoint, tmp_path: Path, url: str, code: ErrorCode
) -> None:
    url = url.format(address=endpoint.address)
    with pytest.raises(HybridgeError) as caught:
        _run(*fitting.words("--cloud", url, "--target-accuracy", 0.8, "--out", tmp_path / "out"))
    assert caught.value.code is code
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("linear", {"x": np.zeros((2, 3), np.float32)}),
        ("logarithm", {"x": np.array([-1.0, 1.0], np.float32)}),
        ("strings", {"text": np.array(["a", "b"])}),
        ("doubles", {"x": np.zeros(2, np.float32)}),
    ],
    ids=["two rows", "not finite", "no numbers", "two outputs"],
)
def test_answers_that_are_no_scores_are_refused(
    endpoint: Endpoint, model: str, inputs: dict[str, Array]
) -> None:
    with pytest.raises(HybridgeError, match="example 0 of 1") as caught:
        ask_cloud(
            f"grpc://{endpoint.address}/{model}",
            [inputs],
            settings={},
            output="logits",
            progress=lambda _: None,
        )
    assert caught.value.code in (ErrorCode.CLOUD_REFUSED, ErrorCode.INPUT_DTYPE)


def test_what_cannot_be_promised_is_refused_with_its_curve_and_without_bundles(
    fitting: Fitting, tmp_path: Path
) -> None:
    plot = tmp_path / "curve.png"
    with pytest.raises(HybridgeError, match="examples that can promise at least") as caught:
        _run(*fitting.words("--cloud-predictions", fitting.cloud, "--target-accuracy", 0.995,
                            "--out", tmp_path / "out", "--plot", plot))  # fmt: skip
    assert caught.value.code is ErrorCode.CONFIDENCE_INVALID
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "out").exists()


def test_the_text_says_what_is_promised_and_what_each_does(
    fitting: Fitting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(*fitting.words("--cloud-predictions", fitting.cloud, "--max-offload", 0.3, "--confidence", 0.9,
                        "--out", tmp_path))  # fmt: skip
    printed = capsys.readouterr().out
    assert "promised: at most 30.00% offloaded with 90% confidence" in printed
    assert "small-1.0" in printed
    assert f"written: {tmp_path / 'small.edge'}" in printed


def test_raw_inputs_are_preprocessed_as_on_the_device(
    make_bundle: Callable[..., Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(name="raw", raw=True)
    bundle.save(tmp_path / "raw.edge")
    images = np.random.default_rng(1).integers(0, 17, (300, 8, 8, 1), np.uint8)
    tier = Tier(Model(bundle))
    own = [
        int(tier.run([{"image": image[None]}], batch_size=1)[0].outputs["logits"].argmax())
        for image in images
    ]
    np.savez(tmp_path / "val.npz", image=images, label=np.array(own))
    np.save(tmp_path / "cloud.npy", np.array(own))
    _run("--bundle", tmp_path / "raw.edge", "--data", tmp_path / "val.npz", "--cloud-predictions",
         tmp_path / "cloud.npy", "--target-accuracy", 0.95, "--out", tmp_path / "out", "--format", "json")  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert found["tiers"][0]["accuracy_alone"] == 1.0
    # Where all are right the examples do not say what the temperature is: it stays.
    assert found["tiers"][0]["temperature"] == 1.0
    assert found["offloaded"] == 0


def test_files_that_exist_are_not_replaced_unless_asked(fitting: Fitting, tmp_path: Path) -> None:
    words = fitting.words("--cloud-predictions", fitting.cloud, "--max-offload", 0.5, "--out", tmp_path)
    (tmp_path / "small.edge").write_bytes(b"mine")
    with pytest.raises(HybridgeError) as caught:
        _run(*words)
    assert caught.value.code is ErrorCode.FILE_EXISTS
    assert (tmp_path / "small.edge").read_bytes() == b"mine"
    _run(*words, "--overwrite")
    confidence = Bundle.open(tmp_path / "small.edge").manifest.confidence
    assert confidence is not None
    assert confidence.threshold is not None


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({"image": np.zeros((4, 8, 8, 1), np.float32)}, ErrorCode.DATA_INVALID),
        ({"label": np.zeros(4, int)}, ErrorCode.DATA_INVALID),
        ({"image": np.zeros((4, 8, 8, 1), np.float32), "label": np.zeros(5, int)}, ErrorCode.DATA_INVALID),
        ({"image": np.zeros((4, 8, 8, 1)), "label": np.zeros(4, int)}, ErrorCode.DATA_INVALID),
        ({"image": np.zeros((4, 9, 8, 1), np.float32), "label": np.zeros(4, int)}, ErrorCode.DATA_INVALID),
        ({"image": np.zeros((4, 8, 8, 1), np.float32), "label": np.eye(4)}, ErrorCode.DATA_INVALID),
        ({"image": np.zeros((4, 8, 8, 1), np.float32), "label": np.full(4, 12)}, ErrorCode.DATA_INVALID),
        (
            {"image": np.full((4, 8, 8, 1), np.nan, np.float32), "label": np.zeros(4, int)},
            ErrorCode.DATA_INVALID,
        ),
        ({"image": np.zeros((0, 8, 8, 1), np.float32), "label": np.zeros(0, int)}, ErrorCode.DATA_INVALID),
    ],
    ids=["no labels", "no input", "lengths", "type", "shape", "one-hot", "class", "not finite", "empty"],
)
def test_data_that_does_not_fit_is_refused(
    fitting: Fitting, tmp_path: Path, arrays: dict[str, Array], code: ErrorCode
) -> None:
    np.savez(tmp_path / "val.npz", **arrays)  # type: ignore[arg-type]
    np.savez(tmp_path / "cloud.npz", label=np.zeros(4, int))
    with pytest.raises(HybridgeError) as caught:
        _run("--bundle", fitting.small, "--data", tmp_path / "val.npz", "--cloud-predictions",
             tmp_path / "cloud.npz", "--target-accuracy", 0.9, "--out", tmp_path / "out")  # fmt: skip
    assert caught.value.code is code


@pytest.mark.parametrize(
    "arrays",
    [
        {"label": np.zeros(7, int)},
        {"label": np.zeros(COUNT)},
        {"other": np.zeros(COUNT, int)},
        {"logits": np.zeros((7, 10))},
        {"logits": np.full((COUNT, 10), np.nan)},
    ],
    ids=["lengths", "type", "name", "rows", "not finite"],
)
def test_predictions_that_do_not_fit_are_refused(
    fitting: Fitting, tmp_path: Path, arrays: dict[str, Array]
) -> None:
    np.savez(tmp_path / "cloud.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(HybridgeError) as caught:
        _run(*fitting.words("--cloud-predictions", tmp_path / "cloud.npz", "--target-accuracy", 0.9,
                            "--out", tmp_path / "out"))  # fmt: skip
    assert caught.value.code is ErrorCode.DATA_INVALID


def test_flags_that_do_not_go_together_are_refused(fitting: Fitting, tmp_path: Path) -> None:
    cloud, goal = ("--cloud-predictions", fitting.cloud), ("--target-accuracy", "0.9")
    (tmp_path / "small.edge").write_bytes(fitting.small.read_bytes())
    for words in (
        (*goal,),
        (*cloud, "--cloud", "grpc://h:1/m", *goal),
        (*cloud,),
        (*cloud, *goal, "--max-offload", "0.1"),
        (*cloud, *goal, "--bundle", tmp_path / "small.edge"),
        (*cloud, *goal, "--plot", tmp_path / "curve.gif"),
    ):
        with pytest.raises(HybridgeError) as caught:
            _run(*fitting.words(*words, "--out", tmp_path / "out"))
        assert caught.value.code is ErrorCode.USAGE, words


def test_bundles_that_no_threshold_fits_are_refused(
    fitting: Fitting, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    plain = make_bundle()
    without = msgspec.structs.replace(plain.manifest, confidence=None)
    Bundle.create(without, plain.files).save(tmp_path / "without.edge")
    make_bundle(raw=True).save(tmp_path / "raw.edge")
    rest = ("--cloud-predictions", fitting.cloud, "--max-offload", 0.5, "--out", tmp_path / "out")
    with pytest.raises(HybridgeError) as caught:
        _run(*fitting.words(*rest, bundles=(tmp_path / "without.edge",)))
    assert caught.value.code is ErrorCode.CONFIDENCE_INVALID
    with pytest.raises(HybridgeError) as caught:
        _run(*fitting.words(*rest, bundles=(fitting.small, tmp_path / "raw.edge")))
    assert caught.value.code is ErrorCode.CHAIN_INVALID
