"""A chain: a graph of stages over named tensors, run in the order that the tensors ask for."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeAlias

from edge_runtime.chain.chain_step import ChainStep
from edge_runtime.chain.foreach import Foreach
from edge_runtime.chain.graph import Graph, find_problems
from edge_runtime.chain.model_step import ModelStep
from edge_runtime.chain.pace import Pace
from edge_runtime.chain.run import Run
from edge_runtime.chain.stage import Stage
from edge_runtime.chain.stream import Overflow, Stream
from edge_runtime.chain.swap import Canary, TierSlot
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.fallback import Fallback
from edge_runtime.frame import Frame, StreamResult
from edge_runtime.metrics import Metrics
from edge_runtime.model import Model
from edge_runtime.prediction import Prediction
from edge_runtime.tensor_spec import Array, TensorSpec, Value
from edge_runtime.tensor_type import ANYTHING, TensorType

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle
    from edge_runtime.manifest import Confidence

__all__ = ["Chain", "Inputs", "Late"]

Inputs: TypeAlias = Mapping[str, Value] | Array
Late: TypeAlias = Literal["finish", "drop"]


class Chain:
    """Stages that each run on what the chain was given or other stages made; those that can, at the same time.

    A chain may be called from many threads.

    Args:
        stages: The stages, in any order.
        name: What to call the chain in errors.
        inputs: Names of the tensors that the caller gives, or a type for each, as `edge_runtime.tensor_type` writes
            them; without them, those that no stage makes.
        outputs: Names of the tensors it returns; without them, those that no stage takes in.
        deadline_s: Seconds that a run may take, where the call does not say; see `run`.
        late: What becomes of a run whose deadline passed: `finish` answers all the same, `drop` fails with `chain-late`
            before the next stage.
        confidence: The tensor that says how sure the answer is, numbers in 0..1 of which the least counts, in place of
            the score of the last stage that has one; for a chain that learns more after its model has answered.

    Raises:
        HybridgeError: `chain-invalid`, with all that is wrong at once.

    Example:
        >>> chain = Chain([
        ...     Stage.from_operator("scale", "scale", inputs={"array": "image"}, outputs={"array": "x"},
        ...                         params={"factor": 1 / 255}),
        ...     Stage.from_model("classify", Model("digits-1.0.edge"), inputs={"image": "x"}),
        ... ])
        >>> chain.run({"image": image}).label
        '7'
    """

    def __init__(
        self,
        stages: Iterable[Stage],
        *,
        name: str = "chain",
        inputs: Iterable[str] | Mapping[str, str] = (),
        outputs: Iterable[str] = (),
        deadline_s: float | None = None,
        late: Late = "finish",
        confidence: str | None = None,
    ):
        self.name, self.deadline_s, self.late, self.confidence = name, deadline_s, late, confidence
        given, returned = tuple(stages), tuple(outputs)
        written = inputs if isinstance(inputs, Mapping) else dict.fromkeys(inputs, "")
        wanted = {tensor: TensorType.parse(kind) for tensor, kind in written.items()}
        if problems := find_problems(given, wanted, returned, confidence):
            raise HybridgeError(ErrorCode.CHAIN_INVALID, f"chain '{name}' cannot be: {'; '.join(problems)}")
        self.graph = Graph.of(given, wanted, returned)
        self.stages = self.graph.stages
        self.pace = Pace(self.graph.needs)
        self.metrics = Metrics(name, [stage.name for stage in self.stages])
        self._workers: ThreadPoolExecutor | None = None

    @classmethod
    def from_bundle(
        cls,
        source: Bundle | Model | str | PathLike[str],
        *,
        confidence: Confidence | None = None,
        fallback: Fallback | None = None,
        num_threads: int = 1,
    ) -> Chain:
        """A chain of the one model in a bundle, with its preprocessing, labels and confidence.

        Args:
            source: A bundle, a path to one or to a `.tflite`, or a loaded model.
            confidence: How to score the outputs, in place of what the bundle says.
            fallback: Whom to ask when the model is unsure.
            num_threads: Threads that one invocation may use; of no effect on a loaded model.
        """
        model = source if isinstance(source, Model) else Model(source, num_threads=num_threads)
        return cls(
            [Stage.from_model(model.name, model, confidence=confidence, fallback=fallback)], name=model.name
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that a caller gives."""
        return self.graph.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors that a caller gets."""
        return self.graph.outputs

    @property
    def input_types(self) -> dict[str, TensorType]:
        """What is known of each input."""
        return {name: self.graph.types.get(name, ANYTHING) for name in self.inputs}

    @property
    def output_types(self) -> dict[str, TensorType]:
        """What is known of each output."""
        return {name: self.graph.types.get(name, ANYTHING) for name in self.outputs}

    @property
    def input_specs(self) -> dict[str, TensorSpec]:
        """For each input that goes to a model, what that model takes."""
        specs: dict[str, TensorSpec] = {}
        for stage in self.stages:
            for spec in stage.input_specs:
                tensor = stage.inputs.get(spec.name)
                if tensor in self.inputs:
                    specs.setdefault(str(tensor), spec)
        return specs

    def run(self, inputs: Inputs, *, deadline_s: float | None = None, private: bool = False) -> Prediction:
        """Runs every stage once.

        A deadline is divided: a fallback, and a further tier of models, may take as long as still leaves those stages
        that follow the time that they usually take. A tier that is not done by then is not waited for, and the last
        one that was done answers. A stage that has begun is never cut off.

        Args:
            inputs: A value for each name in `inputs`, or one array for a chain with one input.
            deadline_s: Seconds from now by which the answer should be there, in place of the chain's own.
            private: Whether nothing of this run may leave the device, whatever its stages say.

        Returns:
            The outputs, with label, confidence, source and reason of the last stage that is scored: the one that
            decides.

        Raises:
            HybridgeError: `input-missing`, `input-unknown`, and what stages raise; `chain-late` for a chain that drops
                what is late.
        """
        try:
            run = self.begin(inputs, deadline_s=deadline_s, private=private)
            if self.pace.is_any_pair_worth_threads(self.graph.independent):
                self._run_branches(run)
            else:
                for index in range(len(self.stages)):
                    run.step(index)
            return run.finish()
        except HybridgeError as error:
            self.metrics.chain_failed(error)
            raise

    async def run_async(
        self, inputs: Inputs, *, deadline_s: float | None = None, private: bool = False
    ) -> Prediction:
        """`run` for asyncio: the chain runs in a thread, and the event loop goes on."""
        import asyncio  # a chain that nobody awaits does not pay for it

        return await asyncio.to_thread(self.run, inputs, deadline_s=deadline_s, private=private)

    def stream(
        self,
        source: Iterable[Frame | HybridgeError | Inputs],
        *,
        queue_size: int = 4,
        overflow: Overflow = "block",
        workers: int | None = None,
    ) -> Stream:
        """Answers for one frame after the other, with several of them under way at once; see `Stream`.

        Args:
            source: The frames: a source of `edge_runtime.sources`, or anything that gives frames or inputs.
            queue_size: Frames that may wait at the entrance.
            overflow: What happens when so many wait: the source waits too (`block`), or the oldest or the newest of
                them is dropped (`drop-oldest`, `drop-newest`).
            workers: Threads; without it, one a core.

        Example:
            >>> with open_source("camera:0") as camera, chain.stream(camera, overflow="drop-oldest") as results:
            ...     for result in results:
            ...         show(result.frame, result.prediction)
        """
        return Stream(self, source, queue_size=queue_size, overflow=overflow, workers=workers)

    async def stream_async(
        self,
        source: Iterable[Frame | HybridgeError | Inputs],
        *,
        queue_size: int = 4,
        overflow: Overflow = "block",
        workers: int | None = None,
    ) -> AsyncGenerator[StreamResult, None]:
        """`stream` for asyncio; the event loop goes on while frames are under way.

        A loop that is left early stops the stream at once only within `contextlib.aclosing`.
        """
        import asyncio

        stream = self.stream(source, queue_size=queue_size, overflow=overflow, workers=workers)
        try:
            while (result := await asyncio.to_thread(stream.next_result)) is not None:
                yield result
        finally:
            await asyncio.to_thread(stream.close)

    def begin(self, inputs: Inputs, *, deadline_s: float | None = None, private: bool = False) -> Run:
        """A run whose stages the caller takes himself, as streams do."""
        seconds = self.deadline_s if deadline_s is None else deadline_s
        deadline = None if seconds is None else time.monotonic() + seconds
        return Run(self, self._named(inputs), deadline, private=private)

    def model_slots(self) -> dict[str, TierSlot]:
        """Where models can be swapped: by the stage's name, ``outer/inner`` within a nested chain.

        Further tiers of a stage have their number behind a colon, such as ``classify:2``.
        """
        slots: dict[str, TierSlot] = {}
        for stage in self.stages:
            step = stage.step.step if isinstance(stage.step, Foreach) else stage.step
            if isinstance(step, ModelStep):
                for number, slot in enumerate(step.slots, 1):
                    slots[stage.name if number == 1 else f"{stage.name}:{number}"] = slot
            elif isinstance(step, ChainStep):
                slots |= {f"{stage.name}/{name}": slot for name, slot in step.chain.model_slots().items()}
        return slots

    def swap(
        self,
        stage: str,
        source: Bundle | str | PathLike[str],
        *,
        canary: Canary | None = None,
        trial_calls: int = 100,
    ) -> None:
        """Replaces a stage's model by a newer one while calls go on; none is dropped.

        The new bundle is loaded, verified, warmed and compared with the model in use before any call sees it. For
        `trial_calls` calls the old model stays loaded: if the new one fails meanwhile, the old one answers that call
        and all later ones.

        Args:
            stage: One of `model_slots`.
            source: The new bundle, or a path to it.
            canary: An input on which both must agree; without it, the new one must give finite outputs for zeros.
            trial_calls: Calls after which the old model is freed.

        Raises:
            HybridgeError: What opening the bundle raises; `swap-refused` for a model of another signature, or one that
                fails or disagrees on the canary input. The model in use then goes on.
        """
        slots = self.model_slots()
        if stage not in slots:
            raise HybridgeError(
                ErrorCode.MODEL_UNKNOWN,
                f"stage of chain '{self.name}'",
                received=f"'{stage}'",
                expected=f"one of {', '.join(slots) or 'none: it has no models'}",
            )
        slots[stage].swap(source, canary=canary, trial_calls=trial_calls)

    def reset(self) -> None:
        """Begins a new stream in every model that carries a state."""
        for stage in self.stages:
            stage.step.reset()

    def close(self) -> None:
        """Closes the fallbacks of its stages; the chain is not used again."""
        if self._workers is not None:
            self._workers.shutdown()
        for stage in self.stages:
            stage.step.close()

    def __enter__(self) -> Chain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Chain({self.name!r}, stages={[stage.name for stage in self.stages]})"

    def _run_branches(self, run: Run) -> None:
        """Takes stages as they become ready; those that are worth it, while others are ready too, in other threads."""
        waits = [set(needs) for needs in self.graph.needs]
        ready = [index for index, needs in enumerate(waits) if not needs]
        ended: SimpleQueue[tuple[int, BaseException | None]] = SimpleQueue()
        away = 0
        failure: BaseException | None = None

        def take(index: int) -> None:
            try:
                run.step(index)
            except BaseException as error:
                ended.put((index, error))
            else:
                ended.put((index, None))

        while ready or away:
            if ready and failure is None:
                costly = [index for index in ready if self.pace.is_worth_a_thread(index)]
                # The first is for this thread.
                for index in costly[1:]:
                    ready.remove(index)
                    self._pool().submit(take, index)
                    away += 1
                take(ready.pop(0))
                away += 1
            elif failure is not None:
                ready.clear()
                if not away:
                    break
            index, error = ended.get()
            away -= 1
            failure = failure or error
            for later, needs in enumerate(waits):
                if index in needs:
                    needs.remove(index)
                    if not needs:
                        ready.append(later)
        if failure is not None:
            raise failure

    def _pool(self) -> ThreadPoolExecutor:
        if self._workers is None:
            self._workers = ThreadPoolExecutor(min(len(self.stages), os.cpu_count() or 1), "hybridge-branch")
        return self._workers

    def _named(self, inputs: Inputs) -> Mapping[str, Value]:
        if not isinstance(inputs, Mapping):
            if len(self.inputs) != 1:
                raise HybridgeError(
                    ErrorCode.INPUT_MISSING,
                    f"chain '{self.name}'",
                    received="one array without a name",
                    expected=f"arrays named {', '.join(self.inputs)}",
                )
            return {self.inputs[0]: inputs}
        if inputs.keys() != set(self.inputs):
            missing = [name for name in self.inputs if name not in inputs]
            raise HybridgeError(
                ErrorCode.INPUT_MISSING if missing else ErrorCode.INPUT_UNKNOWN,
                f"inputs of chain '{self.name}'",
                received=", ".join(inputs) or "none",
                expected=", ".join(self.inputs),
                fix=f"add {', '.join(missing)}" if missing else "leave the others out",
            )
        return inputs
