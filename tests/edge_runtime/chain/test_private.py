from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import Answer, Chain, Confidence, Model, Query, Reason, Source, Stage, load_chain
from edge_runtime.tensor_spec import Array


class Listener:
    """A fallback that would send whatever it is given, and notes that."""

    def __init__(self) -> None:
        self.heard: list[Query] = []

    def resolve(self, query: Query) -> Answer:
        self.heard.append(query)
        if query.private:
            return Answer.keep(Reason.PRIVATE, refused=True)
        return Answer({name: array + 1 for name, array in query.outputs.items()}, Source.CLOUD, Reason.UNSURE)

    def close(self) -> None:
        """Holds nothing."""


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def classify(models: Path, listener: Listener) -> Callable[..., Stage]:
    """A stage that classifies a tensor, and asks the listener whatever comes."""

    def make(image: str = "image", name: str = "classify", **options: Any) -> Stage:
        confidence = Confidence("logits", threshold=1.0)
        options = {
            "inputs": {"image": image},
            "outputs": {"logits": f"{name}-logits"},
            "confidence": confidence,
            "fallback": listener,
            **options,
        }
        return Stage.from_model(name, Model(models / "classifier.tflite"), **options)

    return make


def _scale(image: str, scaled: str, **options: Any) -> Stage:
    wiring: dict[str, Any] = {"inputs": {"array": image}, "outputs": {"array": scaled}}
    return Stage.from_operator(scaled, "scale", params={"factor": 1.0}, **wiring, **options)


def _asked(chain: Chain, image: Array, listener: Listener) -> list[bool]:
    """Whether each query of a run could be answered elsewhere; none that could not holds any data."""
    chain.run(image)
    for query in listener.heard:
        assert query.private is (not query.inputs)
    return [not query.private for query in listener.heard]


def test_a_private_stage_is_not_asked_about_and_says_so(
    classify: Callable[..., Stage], listener: Listener, image: Array
) -> None:
    chain = Chain([classify(private=True)])
    prediction = chain.run(image)
    assert (prediction.source, prediction.reason) == (Source.DEVICE, Reason.PRIVATE)
    assert prediction.refused
    assert prediction.label is None
    assert listener.heard[0].inputs == {}
    (stage,) = chain.metrics.figures().stages
    assert (dict(stage.reasons), stage.refused) == ({"private": 1}, 1)


def test_what_a_private_stage_takes_is_private_for_every_other(
    classify: Callable[..., Stage], listener: Listener, image: Array
) -> None:
    others = [_scale("image", "looked-at", private=True)]
    assert _asked(Chain([*others, classify()]), image, listener) == [False]


def test_what_is_made_from_private_data_is_private_too_unless_its_stage_says_otherwise(
    classify: Callable[..., Stage], listener: Listener, image: Array
) -> None:
    before = [
        _scale("image", "seen", private=True),
        _scale("seen", "copied"),
        _scale("copied", "copied-again"),
    ]
    assert _asked(Chain([*before, classify("copied-again")]), image, listener) == [False]
    listener.heard.clear()
    blurred = [*before[:2], _scale("copied", "blurred", private=False)]
    assert _asked(Chain([*blurred, classify("blurred")]), image, listener) == [True]


def test_what_a_stage_before_made_for_a_private_one_is_private_in_all_places(
    classify: Callable[..., Stage], listener: Listener, image: Array
) -> None:
    stages = [
        _scale("image", "scaled"),
        _scale("scaled", "faces", private=True),
        classify("scaled", "a"),
        classify("image", "b"),
    ]
    chain = Chain(stages)
    chain.run(image)
    assert {query.stage: query.private for query in listener.heard} == {"a": True, "b": False}


def test_privacy_passes_into_and_out_of_nested_chains(
    classify: Callable[..., Stage], listener: Listener, image: Array
) -> None:
    inner = Chain([classify()], name="inner")
    assert _asked(Chain([Stage.from_chain("nested", inner, private=True)]), image, listener) == [False]
    listener.heard.clear()
    secretive = Chain([_scale("image", "seen", private=True)], name="secretive")
    outer = Chain([Stage.from_chain("nested", secretive), classify()])
    assert _asked(outer, image, listener) == [False]


def test_items_of_private_inputs_are_private(
    classify: Callable[..., Stage], listener: Listener, image: Array
) -> None:
    chain = Chain([classify(foreach="image", private=True)])
    assert _asked(chain, np.concatenate([image, image]), listener) == [False, False]


def test_one_run_can_be_private(classify: Callable[..., Stage], listener: Listener, image: Array) -> None:
    chain = Chain([Stage.from_chain("nested", Chain([classify()]))])
    assert chain.run(image, private=True).source is Source.DEVICE
    assert chain.run(image).source is Source.CLOUD


def test_an_answer_from_elsewhere_to_private_data_is_not_believed(
    classify: Callable[..., Stage], image: Array
) -> None:
    class Careless(Listener):
        def resolve(self, query: Query) -> Answer:
            return Answer(query.outputs, Source.CLOUD, Reason.UNSURE)

    prediction = Chain([classify(fallback=Careless(), private=True)]).run(image)
    assert (prediction.source, prediction.reason) == (Source.DEVICE, Reason.FALLBACK_FAILED)


def test_a_file_says_what_is_private(models: Path, tmp_path: Path, listener: Listener, image: Array) -> None:
    file = tmp_path / "chain.toml"
    file.write_text(
        f"""
        [[stages]]
        name = "classify"
        model = "{models / "classifier.tflite"}"
        confidence = {{ output = "logits", threshold = 1.0 }}
        private = true
        """
    )
    chain = load_chain(file, fallbacks={"classify": listener})
    assert _asked(chain, image, listener) == [False]
