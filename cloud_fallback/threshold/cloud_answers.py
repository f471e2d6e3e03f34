"""Asking the cloud for its answer to every example, which a fit counts the device's own against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from cloud_fallback.client.access_advice import access_advice
from cloud_fallback.client.client import CloudFallback
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.tensor_spec import Array

__all__ = ["ask_cloud"]

# Requests under way at once: enough for an endpoint to batch, few enough for one that serves others too.
_ASKED_AT_ONCE = 8
# Nobody waits for these answers, and the first may have to wait for its model to be loaded.
_PATIENCE_S = 60.0


def ask_cloud(
    url: str,
    items: Sequence[Mapping[str, Array]],
    *,
    settings: Mapping[str, Any],
    output: str,
    progress: Callable[[int], None],
) -> Array:
    """The class that the cloud answers to each example.

    Each example is a request of its own, as a device sends it. One that fails ends it all: an answer that is missing
    is no wrong answer.

    Args:
        url: Such as ``grpc://cloud.example:8001/digits-large``.
        items: The inputs of each example.
        settings: By what the endpoint lets in, and others of `CloudFallback.from_url`.
        output: Name of the output with the scores, where the model has several.
        progress: Takes how many are done, from time to time.

    Returns:
        Classes, int64 of shape (examples,).

    Raises:
        HybridgeError: What `CloudFallback.infer` raises, with the example; `cloud-refused` for scores that are none.
    """
    classes = np.empty(len(items), np.int64)
    with CloudFallback.from_url(url, settings=settings) as fallback:

        def ask(index: int) -> int:
            try:
                return _best(fallback.infer(items[index], deadline_s=_PATIENCE_S), output)
            except HybridgeError as error:
                raise HybridgeError(
                    error.code,
                    f"example {index} of {len(items)} at {url}: {error.what}",
                    received=error.received,
                    expected=error.expected,
                    fix=error.fix
                    or access_advice(error)
                    or "fit again when it answers, or give its answers with --cloud-predictions",
                ) from error

        pool = ThreadPoolExecutor(_ASKED_AT_ONCE, "hybridge-fit")
        try:
            for index, best in enumerate(pool.map(ask, range(len(items)))):
                classes[index] = best
                progress(index + 1)
        finally:
            # Also on an interrupt: what has not been sent is not worth waiting for.
            pool.shutdown(cancel_futures=True)
    return classes


def _best(outputs: Mapping[str, Array], name: str) -> int:
    scores = outputs.get(name) if len(outputs) != 1 else next(iter(outputs.values()))
    if scores is None:
        raise _refused(f"outputs {', '.join(outputs)}", f"scores in '{name}', as on the device")
    if scores.dtype.kind not in "fiu" or not scores.size or scores.size != scores.shape[-1]:
        raise _refused(f"{scores.dtype} of shape {scores.shape}", "one row with a score for each class")
    if not np.isfinite(scores).all():
        raise _refused("scores that are not finite", "finite ones")
    return int(scores.argmax())


def _refused(received: str, expected: str) -> HybridgeError:
    return HybridgeError(ErrorCode.CLOUD_REFUSED, "answer", received=received, expected=expected)
