"""A real network behind our endpoint: images a second beside the interpreter alone, and what overload does to it."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.serving_vs_peers.contenders import Endpoint
from benchmarks.serving_vs_peers.interpreter_alone import InterpreterAlone
from benchmarks.serving_vs_peers.load import Job, LoadGenerator, Outcome
from cloud_fallback.open_inference.tensors import encode_request
from edge_runtime import Model
from edge_runtime.console import say

__all__ = ["ImageReport", "Overload", "measure_images"]

_MODEL = "mobilenet"
# Both ways of giving it two cores.
_ALONE = ((1, 2), (2, 1))
_OVERLOAD_SECONDS = 10.0


class Overload(msgspec.Struct, frozen=True, kw_only=True):
    """More requests than the model can answer, each with a deadline.

    Attributes:
        rate: Requests a second, at random intervals.
        deadline_ms: Of each.
        outcome: What they came to.
        good_share: Answers within the deadline, as a share of what the endpoint answers without overload.
    """

    rate: float
    deadline_ms: float
    outcome: Outcome
    good_share: float


class ImageReport(msgspec.Struct, frozen=True, kw_only=True):
    """Images a second, medians over rounds.

    Attributes:
        arguments: Flags that the endpoint was given.
        endpoint: Of the endpoint, with requests in flight.
        alone: Of the interpreter alone, by how many there are and their threads.
        ratio: Of the endpoint over the faster of those: the median of the rounds' ratios.
        least: The smallest of those.
        most: The largest.
        outcomes: The endpoint's outcome of each round.
        overload: What happens above capacity.
    """

    arguments: str
    endpoint: float
    alone: dict[str, float]
    ratio: float
    least: float
    most: float
    outcomes: list[Outcome]
    overload: Overload


def measure_images(
    generator: LoadGenerator,
    model: Path,
    folder: Path,
    *,
    job: Job,
    rounds: int,
    arguments: list[str],
    overload: float,
    deadline_s: float,
) -> ImageReport:
    """Measures one model.

    Args:
        generator: What loads the endpoint.
        model: A `.tflite` of one quantised input and one output.
        folder: For files.
        job: The load; its server and its request are replaced.
        rounds: How many.
        arguments: More flags of `hybridge serve`.
        overload: Requests a second, as a multiple of what it answers.
        deadline_s: Of each of those.
    """
    inputs = _write_question(model, folder)
    with ExitStack() as stack:
        endpoint = stack.enter_context(Endpoint([f"{_MODEL}={model}"], arguments=arguments))
        alone = [
            stack.enter_context(
                InterpreterAlone(model, inputs, interpreters=interpreters, num_threads=num_threads)
            )
            for interpreters, num_threads in _ALONE
        ]
        job = msgspec.structs.replace(
            job,
            address=endpoint.address,
            session=endpoint.session,
            request=str(folder / "image.request"),
            expected=str(folder / "image.expected"),
        )
        outcomes: list[Outcome] = []
        rates: list[list[float]] = []
        for number in range(rounds):
            say(f"images: round {number + 1} of {rounds}")
            outcomes.append(generator.run(job))
            rates.append([each.per_second(job.seconds) for each in alone])
        capacity = statistics.median(outcome.per_second for outcome in outcomes)
        say(f"images: {overload:g} times as many as it answers")
        loaded = msgspec.structs.replace(
            job, rate=overload * capacity, deadline_s=deadline_s, seconds=_OVERLOAD_SECONDS
        )
        over = generator.run(loaded)
    best = int(np.argmax(np.median(rates, axis=0)))
    ratios = [outcome.per_second / row[best] for outcome, row in zip(outcomes, rates, strict=True)]
    return ImageReport(
        arguments=" ".join(arguments),
        endpoint=capacity,
        alone={each.name: float(rate) for each, rate in zip(alone, np.median(rates, axis=0), strict=True)},
        ratio=statistics.median(ratios),
        least=min(ratios),
        most=max(ratios),
        outcomes=outcomes,
        overload=Overload(
            rate=overload * capacity,
            deadline_ms=deadline_s * 1e3,
            outcome=over,
            good_share=over.in_time / over.seconds / capacity,
        ),
    )


def _write_question(model: Path, folder: Path) -> Path:
    """Writes an image as the model's file has it, the request with it, and its answer; returns the image's path."""
    runner = Model(model)
    (spec,), (output,) = runner.inputs, runner.outputs
    shape = tuple(size for size in spec.shape if isinstance(size, int))
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.save(folder / "image.npy", image)
    request = encode_request(_MODEL, {spec.name: image})
    (folder / "image.request").write_bytes(request.SerializeToString())
    (folder / "image.expected").write_bytes(runner.run({spec.name: image})[output.name].tobytes())
    return folder / "image.npy"
