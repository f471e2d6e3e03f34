"""Translation by Apertium, as a model that an endpoint serves.

``hybridge serve benchmarks.sign.translation.apertium:english_spanish`` answers devices whose phrase book has not what
a sign says. Apertium translates by rules (Forcada et al., "Apertium: a free/open-source platform for rule-based
machine translation", Machine Translation 25, 2011): the sense arrives, though seldom in the words that signs have.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import numpy as np

from benchmarks.sign.translation.apertium_pipeline import Pipeline
from benchmarks.sign.translation.letter_case import case_of
from cloud_fallback.endpoint.served import ModelQueue, TimeLeft, no_limit
from edge_runtime import __version__
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["ApertiumModel", "english_spanish"]

_NAME = "english-spanish"
# Characters of a text, and seconds for one when the caller waits as long as it takes.
_MOST, _TIMEOUT_S = 1000, 10.0
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
# With more of its words unknown, a translation is none.
_ENOUGH = 0.5

_log = logging.getLogger(__name__)


class ApertiumModel:
    """Takes `text`; gives what `sign-translate` gives: `translation`, `confidence`, and whether it was `translated`.

    The confidence is the share of the text's words that Apertium knows. With fewer than half of them, or without any
    words, the text comes back as it was, not translated.

    Where Apertium is not installed, the model says so in the log when it is made, and refuses every request with the
    same sentence: the device then keeps its own answer.

    Args:
        pair: The direction, such as ``eng-spa``.
        name: What requests call it.
        instances: Texts that may be translated at once, each by stages of its own (200 MB).
    """

    version = __version__
    platform = "apertium_mode"
    inputs = (TensorSpec("text", (), "string"),)
    outputs = (
        TensorSpec("translation", (), "string"),
        TensorSpec("confidence", (), "float32"),
        TensorSpec("translated", (), "bool"),
    )

    def __init__(self, pair: str, *, name: str, instances: int = 1):
        self.name = name
        self._pipelines = [Pipeline(pair) for _ in range(instances)]
        self._queue: ModelQueue[Pipeline] = ModelQueue(name, self._pipelines)
        try:
            # Before the first request, and to say in time what is missing.
            for pipeline in self._pipelines:
                pipeline.start()
        except HybridgeError as error:
            _log.warning("model '%s' will refuse every request: %s", name, error.message)

    def infer(self, inputs: Mapping[str, Array], *, time_left: TimeLeft = no_limit) -> dict[str, Array]:
        """Translates one text, strings in UTF-8; see `cloud_fallback.endpoint.served.ServedModel`."""
        text = self._text(inputs)
        if not _WORD.search(text):
            return _answer(text, text, 0.0)
        with self._queue.take(time_left) as pipeline:
            left = time_left()
            made, unknown = pipeline.translate(
                text, timeout_s=_TIMEOUT_S if left is None else min(left, _TIMEOUT_S)
            )
        return _answer(text, made, max(0.0, 1 - unknown / len(_WORD.findall(text))))

    def close(self) -> None:
        """Ends the stages."""
        for pipeline in self._pipelines:
            pipeline.close()

    def _text(self, inputs: Mapping[str, Array]) -> str:
        if inputs.keys() != {"text"}:
            raise HybridgeError(
                ErrorCode.INPUT_UNKNOWN if "text" in inputs else ErrorCode.INPUT_MISSING,
                f"inputs of model '{self.name}'",
                received=", ".join(inputs) or "none",
                expected="text",
            )
        given = inputs["text"]
        if given.dtype.kind != "O" or given.shape != ():
            raise HybridgeError(
                ErrorCode.INPUT_DTYPE if given.dtype.kind != "O" else ErrorCode.INPUT_SHAPE,
                f"input 'text' of model '{self.name}'",
                received=f"{given.dtype} of shape {given.shape}",
                expected="one string, of shape ()",
            )
        try:
            text: str = given.item().decode()
        except UnicodeDecodeError as error:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID, "input 'text'", received=str(error), expected="a string in UTF-8"
            ) from error
        if len(text) > _MOST:
            raise HybridgeError(
                ErrorCode.INPUT_INVALID,
                "input 'text'",
                received=f"{len(text)} characters",
                expected=f"at most {_MOST}",
            )
        return text


def _answer(text: str, made: str, confidence: float) -> dict[str, Array]:
    translated = confidence > _ENOUGH
    translation = case_of(text)(made) if translated else text
    return {
        "translation": np.array(translation, object),
        "confidence": np.array(confidence, np.float32),
        "translated": np.array(translated),
    }


def english_spanish(*, name: str | None = None, instances: int = 1, num_threads: int = 1) -> ApertiumModel:  # noqa: ARG001
    """English to Spanish; stages of one thread each, of which Apertium has twelve.

    Args:
        name: What requests call it, `english-spanish` without it.
        instances: Texts translated at once.
        num_threads: Of no effect.
    """
    return ApertiumModel("eng-spa", name=name or _NAME, instances=instances)
