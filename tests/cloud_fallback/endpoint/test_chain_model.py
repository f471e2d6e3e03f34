from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cloud_fallback import CloudFallback, Endpoint, Repository
from edge_runtime import Chain, ErrorCode, HybridgeError, Reason, Source, Stage, load_chain

_READER = """
name = "shouting"
inputs = { words = "text[n]" }

[[stages]]
name = "join"
operator = "join-text"
inputs = { texts = "words" }
params = { separator = "! " }
"""


def test_a_chain_answers_a_device_that_is_unsure(tmp_path: Path) -> None:
    (tmp_path / "shouting.toml").write_text(_READER)
    words = np.array(["mind", "the gáp"])
    inner = load_chain(tmp_path / "shouting.toml")
    with Endpoint(Repository.load([tmp_path / "shouting.toml"]), port=0) as endpoint:
        fallback = CloudFallback(endpoint.address, model="shouting", deadline_s=5.0)
        quiet = Chain([Stage.from_operator("join", "join-text", inputs={"texts": "words"})])
        with Chain([Stage.from_chain("say", quiet, fallback=fallback, threshold=1.0)]) as chain:
            prediction = chain.run({"words": words})
    assert (prediction.stages[0].source, prediction.stages[0].reason) == (Source.CLOUD, Reason.UNSURE)
    assert str(prediction.outputs["text"]) == "mind! the gáp"
    assert str(inner.run({"words": words}).outputs["text"]) == "mind! the gáp"


def test_a_chain_that_does_not_say_what_it_takes_is_not_served(tmp_path: Path) -> None:
    path = tmp_path / "scale.toml"
    path.write_text(
        '[[stages]]\nname = "a"\noperator = "cast"\nparams = { dtype = "float32" }\noutputs = { array = "y" }\n'
    )
    with pytest.raises(HybridgeError) as caught:
        Repository.load([path])
    assert caught.value.code is ErrorCode.MODEL_INVALID
    assert "tensor 'array' of chain 'chain'" in caught.value.message
    assert "inputs = " in caught.value.message
