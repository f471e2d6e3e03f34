"""Answers that were computed beforehand for the most frequent inputs, so that those cost nothing.

This is the static half of hybrid serving: where few inputs make up much of the traffic, what the large model says of
them is worked out once and shipped with the device.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from os import PathLike
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from cloud_fallback.client.answer_reader import AnswerReader
from cloud_fallback.client.question import digest
from cloud_fallback.open_inference.open_inference_pb2 import ModelInferResponse
from cloud_fallback.open_inference.tensors import decode_response
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file, write_file
from edge_runtime.tensor_spec import Array

if TYPE_CHECKING:
    from cloud_fallback.client.client import CloudFallback

__all__ = ["AnswerTable"]

_MAGIC = b"hybridge answers 1\n"
_CHECK_BYTES = 16
# Questions under way at once: enough for an endpoint to batch, few enough for one that serves others too.
_ASKED_AT_ONCE = 8
# Where an endpoint that has too much to do does not say when to ask again.
_PAUSE_S = 1.0


class _Content(Struct, frozen=True, array_like=True):
    model: str
    model_version: str
    answers: dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class AnswerTable:
    """Answers by what was asked, of one version of one model.

    Attributes:
        model: The endpoint's model.
        model_version: The version that answered; empty where the endpoint names none.
        answers: Serialised `ModelInferResponse` by the digest of the inputs.

    Example:
        >>> table = AnswerTable.build(fallback, logged_inputs, limit=1000)
        >>> table.save("digits-large.answers")
        >>> CloudFallback("cloud.example:8001", model="digits-large", table=AnswerTable.load("digits-large.answers"))
    """

    model: str
    model_version: str
    answers: Mapping[bytes, bytes]

    @classmethod
    def build(
        cls,
        fallback: CloudFallback,
        inputs: Iterable[Mapping[str, Array]],
        *,
        limit: int | None = None,
        min_count: int = 1,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> AnswerTable:
        """Asks the endpoint about the inputs that come most often.

        Args:
            fallback: Whom to ask, with a deadline that leaves the endpoint its time.
            inputs: Such as were seen, repetitions and all, each with an array for each of the model's inputs by the
                endpoint's name.
            limit: Asks about so many at most, the most frequent first. By default about all.
            min_count: Leaves out those that come less often.
            progress: Takes how many were answered, of how many.

        Raises:
            HybridgeError: As `CloudFallback.infer`, with the question; `cloud-refused` when different versions
                answered. One question that fails ends it all.
        """
        counts: Counter[bytes] = Counter()
        asked: dict[bytes, Mapping[str, Array]] = {}
        for each in inputs:
            key = digest(each)
            counts[key] += 1
            asked.setdefault(key, each)
        kept = [(key, count) for key, count in counts.most_common(limit) if count >= min_count]

        reader = AnswerReader(f"answer of model '{fallback.model}'")

        def ask(entry: tuple[int, tuple[bytes, int]]) -> tuple[str, bytes]:
            number, (key, count) = entry
            try:
                answer = _ask_patiently(fallback, asked[key])
                version, _ = reader.read(answer)
            except HybridgeError as error:
                raise HybridgeError(
                    error.code,
                    f"question {number} of {len(kept)}, which comes {count} times: {error.what}",
                    received=error.received,
                    expected=error.expected,
                    fix=error.fix,
                    retry_after_s=error.retry_after_s,
                ) from error
            return version, answer

        answers: dict[bytes, bytes] = {}
        versions: set[str] = set()
        pool = ThreadPoolExecutor(_ASKED_AT_ONCE, "hybridge-table")
        try:
            asking = pool.map(ask, enumerate(kept, 1))
            for (key, _), (version, answer) in zip(kept, asking, strict=True):
                versions.add(version)
                answers[key] = answer
                progress(len(answers), len(kept))
        finally:
            # Also on an interrupt: what has not been sent is not worth waiting for.
            pool.shutdown(cancel_futures=True)
        if len(versions) > 1:
            raise HybridgeError(
                ErrorCode.CLOUD_REFUSED,
                f"answers of model '{fallback.model}'",
                received=f"versions {', '.join(sorted(versions))}",
                expected="one version",
                fix="give the fallback a model_version",
            )
        return cls(fallback.model, versions.pop() if versions else fallback.model_version, answers)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> AnswerTable:
        """Reads a file of `save`.

        Raises:
            HybridgeError: `file-not-found`; `data-invalid` for a file that is damaged or something else.
        """
        file = read_file(path)
        check, body = file[len(_MAGIC) :][:_CHECK_BYTES], file[len(_MAGIC) + _CHECK_BYTES :]
        if not file.startswith(_MAGIC) or check != blake2b(body, digest_size=_CHECK_BYTES).digest():
            raise HybridgeError(
                ErrorCode.DATA_INVALID,
                f"table of answers '{path}'",
                received="a damaged file" if file.startswith(_MAGIC) else "something else",
                expected="what AnswerTable.save wrote",
                fix="build it again",
            )
        content = msgspec.msgpack.decode(body, type=_Content)
        return cls(content.model, content.model_version, content.answers)

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Writes it to a file.

        Raises:
            HybridgeError: `file-exists`; `file-unwritable`.
        """
        body = msgspec.msgpack.encode(_Content(self.model, self.model_version, dict(self.answers)))
        check = blake2b(body, digest_size=_CHECK_BYTES).digest()
        write_file(path, _MAGIC + check + body, overwrite=overwrite)

    def get(self, key: bytes) -> Mapping[str, Array] | None:
        """The outputs of the endpoint for a digest of inputs; they are not to be written to."""
        content = self.answers.get(key)
        return None if content is None else decode_response(ModelInferResponse.FromString(content))

    def check_model(self, model: str, version: str) -> None:
        """Refuses to stand for another model or version.

        Raises:
            HybridgeError: `data-invalid`.
        """
        if self.model != model or (version and self.model_version != version):
            raise HybridgeError(
                ErrorCode.DATA_INVALID,
                "table of answers",
                received=f"those of model '{self.model}', version '{self.model_version}'",
                expected=f"model '{model}'" + (f", version '{version}'" if version else ""),
                fix="build it again",
            )

    def is_stale(self, versions: frozenset[str]) -> bool:
        """Whether the endpoint has this version no more; with no versions known it is taken to be there."""
        return bool(versions) and bool(self.model_version) and self.model_version not in versions


def _ask_patiently(fallback: CloudFallback, inputs: Mapping[str, Array]) -> bytes:
    """Asks again while the endpoint has too much to do, until the fallback's deadline; the questions are its load."""
    limit_s = time.monotonic() + fallback.deadline_s
    while True:
        try:
            return fallback.ask(inputs, max(limit_s - time.monotonic(), 0.0))
        except HybridgeError as error:
            pause_s = error.retry_after_s or _PAUSE_S
            if error.code is not ErrorCode.CLOUD_OVERLOADED or time.monotonic() + pause_s >= limit_s:
                raise
            time.sleep(pause_s)
