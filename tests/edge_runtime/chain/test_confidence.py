from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import Chain, ErrorCode, HybridgeError, Model, Stage, load_chain
from edge_runtime.fallback import Answer, Query
from edge_runtime.manifest import Confidence
from edge_runtime.prediction import Reason, Source
from edge_runtime.tensor_spec import Array

Calling = Callable[..., Stage]


class Oracle:
    """Answers whatever it is asked about with less than the threshold."""

    def __init__(self) -> None:
        self.asked: list[Query] = []

    def resolve(self, query: Query) -> Answer:
        assert query.threshold is not None
        if query.confidence is not None and query.confidence >= query.threshold:
            return Answer.keep(Reason.CONFIDENT)
        self.asked.append(query)
        return Answer(dict(query.outputs), Source.CLOUD, Reason.UNSURE)

    def close(self) -> None: ...


def _reading(models: Path, calling: Calling, sureness: Callable[[Array], Any]) -> Chain:
    """A chain whose model is sure of itself, and whose last stage says how sure the answer is."""
    model = Model(models / "classifier.tflite")
    read = Stage.from_model("read", model, confidence=Confidence("logits", threshold=0.0))
    return Chain(
        [read, calling("judge", sureness, "logits", "sureness")],
        outputs=("logits", "sureness"),
        confidence="sureness",
    )


@pytest.mark.parametrize(
    ("sureness", "confidence"),
    [
        (np.float32(0.25), 0.25),
        (np.array([0.75, 0.5, 1.0], np.float32), 0.5),
        ([np.array([0.75]), np.array(0.125)], 0.125),
        (np.array([0.5, np.nan]), 0.0),
        (np.empty(0, np.float32), None),
        ([], None),
        (np.array(1), 1.0),
    ],
)
def test_the_least_of_the_named_tensor_is_the_chain_s_confidence(
    models: Path, calling: Calling, image: Array, sureness: Any, confidence: float | None
) -> None:
    with _reading(models, calling, lambda _: sureness) as chain:
        prediction = chain.run(image)
    assert prediction.confidence == confidence
    scored = next(trace for trace in prediction.stages if trace.stage == "read")
    assert scored.confidence is not None
    assert scored.confidence != confidence


def test_a_fallback_of_the_chain_is_asked_by_it(models: Path, calling: Calling, image: Array) -> None:
    cloud, sureness = Oracle(), [0.9]
    inner = _reading(models, calling, lambda _: np.float32(sureness[0]))
    with Chain([Stage.from_chain("inner", inner, fallback=cloud, threshold=0.8)]) as chain:
        assert chain.run(image).source is Source.DEVICE
        sureness[0] = 0.7
        assert chain.run(image).source is Source.CLOUD
    assert [round(query.confidence or 0, 3) for query in cloud.asked] == [0.7]


def test_a_chain_that_scores_nothing_else_has_it_too(calling: Calling) -> None:
    with Chain([calling("judge", lambda x: x * 0.5, "x", "y")], confidence="y") as chain:
        prediction = chain.run(np.ones(2, np.float32))
    assert (prediction.confidence, prediction.label, prediction.reason) == (0.5, None, Reason.NO_FALLBACK)


def test_what_is_no_number_is_refused_when_it_comes(calling: Calling) -> None:
    with (
        Chain([calling("judge", lambda _: np.array("sure"), "x", "y")], confidence="y") as chain,
        pytest.raises(HybridgeError) as caught,
    ):
        chain.run(np.ones(2, np.float32))
    assert caught.value.code is ErrorCode.CHAIN_INVALID
    assert "confidence 'y': received str_" in caught.value.message
    assert chain.metrics.figures().errors == {ErrorCode.CHAIN_INVALID: 1}


CHAIN = """
outputs = ["y"]
confidence = "{confidence}"

[[stages]]
name = "count"
operator = "count"
inputs = {{ values = "x" }}
outputs = {{ count = "y" }}

[[stages]]
name = "scale"
operator = "scale"
inputs = {{ array = "x" }}
outputs = {{ array = "scaled" }}
"""


@pytest.mark.parametrize(
    ("confidence", "problem"),
    [
        ("scale", "confidence 'scale' is made by no stage; did you mean 'scaled'?"),
        ("x", "confidence 'x' is made by no stage"),
        ("y", "confidence 'y' is int64[], expected floating-point numbers in 0..1"),
    ],
)
def test_a_file_that_names_what_cannot_be_one_is_refused(
    tmp_path: Path, confidence: str, problem: str
) -> None:
    path = tmp_path / "chain.toml"
    path.write_text(CHAIN.format(confidence=confidence))
    with pytest.raises(HybridgeError) as caught:
        load_chain(path)
    assert caught.value.code is ErrorCode.CHAIN_INVALID
    assert problem in caught.value.message


def test_a_file_names_it(tmp_path: Path) -> None:
    path = tmp_path / "chain.toml"
    path.write_text(CHAIN.format(confidence="scaled"))
    with load_chain(path) as chain:
        assert chain.run({"x": np.array([0.5, 0.25], np.float32)}).confidence == 0.25
