"""The translator from end to end: trained, converted, run as a chain, and helped by an endpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.sign.translation import bundle_file, translation_bundle, translation_chain
from benchmarks.sign.translation.evaluation import Row, evaluate, held_out_examples
from benchmarks.sign.translation.phrase_book import phrase_book
from benchmarks.sign.translation.samples import other_signs
from benchmarks.sign.translation.training import Examples
from cloud_fallback import CloudFallback, EndpointProcess
from edge_runtime import Bundle, Chain, ErrorCode, HybridgeError, Source, Stage

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle trained on a third of the texts: it knows the phrases, though not yet every mistake."""
    said: list[str] = []
    trained = translation_bundle(per_phrase=40, say=said.append)
    assert any("epoch 3 of 3" in line for line in said)
    return trained.bundle.save(tmp_path_factory.mktemp("bundle"))


def test_the_bundle_says_what_it_is(bundle_path: Path) -> None:
    bundle, book = Bundle.open(bundle_path), phrase_book()
    assert bundle_path.name == bundle_file()
    assert bundle_path.stat().st_size < 500_000
    assert bundle.manifest.labels == tuple(phrase.spanish for phrase in book.phrases)
    confidence = bundle.manifest.confidence
    assert confidence is not None
    assert confidence.threshold is not None
    assert 0.1 < confidence.threshold < 0.9
    assert confidence.threshold in [point.threshold for point in confidence.curve]
    # Its largest likelihood is the confidence: likelihoods that do not add up to one must not be scaled to.
    assert (confidence.activation, confidence.temperature) == ("softmax", 1.0)


def test_it_finds_phrases_many_times_as_fast_as_looking_up_the_nearest(bundle_path: Path) -> None:
    network, _, nearest, exact = _measured(Bundle.open(bundle_path), 0.0, 0.1)
    assert network.right[0] > 0.97
    assert network.right[1] > 0.75 > exact.right[1]
    assert network.false_signs < 0.12
    # Ninety on a quiet machine.
    assert network.median_ms < nearest.median_ms / 20


@pytest.mark.heavy
def test_it_finds_more_phrases_than_looking_up_the_nearest() -> None:
    trained = translation_bundle(say=lambda _: None)
    network, strict, nearest, exact = _measured(trained.bundle, 0.0, 0.1, 0.2, every=1)
    for right, next_best, looked_up in zip(strict.right, nearest.right, exact.right, strict=True):
        assert right > next_best > looked_up
    assert strict.false_signs <= nearest.false_signs
    assert max(network.wrong) < 0.02
    assert network.false_signs < 0.05
    assert network.false_strangers < 0.05


def _measured(bundle: Bundle, *rates: float, every: int = 5) -> list[Row]:
    book = phrase_book()
    readings = [held_out_examples(book, rate) for rate in rates]
    some = [Examples(reading.texts[::every], reading.phrases[::every]) for reading in readings]
    return evaluate(bundle, book, some, other_signs(), made_up=500)


@pytest.mark.parametrize(
    ("text", "translation"),
    [
        ("N0 PARKING", "PROHIBIDO APARCAR"),
        ("Keep off the grass", "Prohibido pisar el césped"),
        ("PLATFORM 12", "ANDÉN 12"),
        ("OPEN 9:00 - 17:00", "ABIERTO DE 9:00 A 17:00"),
        ("07700 900123", None),
        ("", None),
        ("x" * 3000, None),
    ],
)
def test_the_chain_translates_what_is_in_the_book_and_leaves_the_rest(
    bundle_path: Path, text: str, translation: str | None
) -> None:
    outputs = translation_chain(bundle_path).run({"text": np.array(text)}).outputs
    assert outputs["translation"].item() == (text if translation is None else translation)
    assert outputs["translated"].item() is (translation is not None)


def test_a_chain_needs_a_threshold(bundle_path: Path, tmp_path: Path) -> None:
    import msgspec

    bundle = Bundle.open(bundle_path)
    bare = Bundle.create(msgspec.structs.replace(bundle.manifest, confidence=None), bundle.files)
    with pytest.raises(HybridgeError, match="no threshold") as caught:
        translation_chain(bare)
    assert caught.value.code is ErrorCode.CONFIDENCE_INVALID


def test_a_device_needs_nothing_that_trains(bundle_path: Path) -> None:
    script = (
        "import sys, numpy as np\n"
        "from benchmarks.sign.translation import translation_chain\n"
        "outputs = translation_chain(sys.argv[1]).run({'text': np.array('EXIT')}).outputs\n"
        "assert outputs['translation'].item() == 'SALIDA'\n"
        "print('\\n'.join(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, bundle_path], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert not loaded & {
        "tensorflow",
        "keras",
        "convert",
        "cloud_fallback",
        "grpc",
        "onnx",
        "PIL",
        "matplotlib",
    }


def test_an_unsure_device_asks_the_endpoint_for_each_line(bundle_path: Path) -> None:
    with EndpointProcess(["tests.benchmarks.sign.translation.shouting:model"]) as endpoint:
        translator = translation_chain(bundle_path)
        threshold = Bundle.open(bundle_path).manifest.confidence.threshold  # type: ignore[union-attr]
        fallback = CloudFallback(endpoint.address, model="shouting", deadline_s=10.0)
        stage = Stage.from_chain(
            "translate",
            translator,
            fallback=fallback,
            threshold=threshold,
            foreach="text",
            report={"source": "sources"},
        )
        unknown = next(
            sign
            for sign in other_signs()
            if not translator.run({"text": np.array(sign)}).outputs["translated"]
        )
        with Chain([stage], outputs=("translation", "translated", "sources")) as chain:
            outputs = chain.run({"text": np.array(["NO ENTRY", unknown, "Keep off the grass"])}).outputs
            assert outputs["translation"].tolist() == [
                "PROHIBIDO EL PASO",
                f"{unknown.upper()}!",
                "Prohibido pisar el césped",
            ]
            assert outputs["translated"].tolist() == [True, True, True]
            assert outputs["sources"].tolist() == [Source.DEVICE, Source.CLOUD, Source.DEVICE]
            endpoint.kill()
            outputs = chain.run({"text": np.array(["NO ENTRY", unknown])}).outputs
            assert outputs["translation"].tolist() == ["PROHIBIDO EL PASO", unknown]
            assert outputs["translated"].tolist() == [True, False]
