"""A model on the device: named arrays in, named arrays out."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from edge_runtime.alike import alike
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file
from edge_runtime.input_port import InputPort
from edge_runtime.instance import Instance, numpy_dtype
from edge_runtime.interpreter import Placement, is_stateful, placements
from edge_runtime.lent_instance import LentInstance
from edge_runtime.tensor_spec import Array, TensorSpec

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle
    from edge_runtime.memory_budget import MemoryBudget

__all__ = ["Inputs", "Model"]

Inputs: TypeAlias = Mapping[str, Array] | Array


class Model:
    """One model, loaded and ready.

    Quantised inputs take either real values (float32, quantised here) or the tensor's own integer type, taken as
    already quantised. Quantised outputs come back as float32, unless `dequantize` is false. Everything else must
    have exactly the shape and type that `inputs` lists: a silent cast hides mistakes that cost accuracy.

    A model may be called from many threads: as many calls as it has `instances` run at once, others wait for their
    turn. Instances are made when they are first needed. They share the weights as the file has them; what kernels
    pack for speed, and working memory, each has to itself. Of a model with free dimensions each instance keeps what it
    allocated for the sizes it ran last, and a call goes to the one that has its sizes.

    The arrays that `run` returns are the caller's own; `borrow` gives the interpreter's memory itself.

    Args:
        source: A `Bundle`, a path to an `.edge` or `.tflite` file, or a `.tflite` file's bytes.
        num_threads: Threads that one invocation may use.
        dequantize: Whether quantised outputs are returned as float32 real values.
        instances: Calls that may run at once, and sizes that are kept allocated.
        states: For a streaming model, the output that each state input takes its next value from. Both are then no
            longer among `inputs` and `outputs`; states begin as zero. Models with variables carry these on by
            themselves. Either kind has one instance, and is one stream; `reset` begins another.
        budget: A limit on memory that it shares with other models: it may be unloaded while it is idle, and is loaded
            again when it is called.

    Raises:
        HybridgeError: `file-not-found`, `bundle-damaged`, `model-invalid`; `usage` for a setting that cannot be;
            `memory-budget` for a model that does not fit.

    Example:
        >>> model = Model("digits-1.0.edge")
        >>> model.run({"image": image})["probabilities"].shape
        (1, 10)
    """

    def __init__(
        self,
        source: Bundle | bytes | str | PathLike[str],
        *,
        num_threads: int = 1,
        dequantize: bool = True,
        instances: int = 1,
        states: Mapping[str, str] | None = None,
        budget: MemoryBudget | None = None,
        name: str | None = None,
    ):
        self.bundle, own_name, content = _open(source)
        self.name = name or own_name
        self.path = Path(source) if isinstance(source, str | PathLike) else None
        for what, number in (("num_threads", num_threads), ("instances", instances)):
            if number < 1:
                raise HybridgeError(
                    ErrorCode.USAGE, f"model '{self.name}'", received=f"{what}={number}", expected="1 or more"
                )
        self.num_threads, self.instances = num_threads, instances
        self.content, self.dequantize = content, dequantize
        self.states = dict(states or {})
        self.budget = budget
        self.memory_bytes, self.last_used = 0, time.monotonic()
        # Packed weights and working memory: until it is measured, about what the file has once more.
        self._instance_bytes = len(content)
        self._changed = threading.Condition(threading.Lock())
        self._idle: deque[Instance] = deque()
        # The first is on its way from here on: nobody may take the model for one that is not loaded.
        self._made, self._waiting, self._closed = 1, 0, False
        self._pool: ThreadPoolExecutor | None = None
        self.stateful = bool(self.states)
        if self.states:
            self._check_states()
        if budget is not None:
            budget.join(self)
        first = self._load()
        self.signature_key = first.signature_key
        self.inputs: tuple[TensorSpec, ...] = tuple(writer.spec for writer in first.writers.values())
        self.outputs: tuple[TensorSpec, ...] = self._output_specs(first)
        self.stateful = self.stateful or is_stateful(first.interpreter)
        if self.stateful and instances > 1:
            raise HybridgeError(
                ErrorCode.USAGE,
                f"model '{self.name}'",
                received=f"instances={instances}, for a model that carries a state from run to run",
                expected="instances=1",
                fix="load it once for each stream",
            )
        self._ports = {spec.name: InputPort(self.name, spec) for spec in self.inputs}
        self._output_names = {spec.name for spec in self.outputs}
        # With one instance there is nothing to choose by size.
        self._chooses = instances > 1 and any(spec.is_dynamic for spec in self.inputs)
        self._batchable = self._takes_batches()
        self._batches_checked = False
        self._idle.append(first)

    def run(self, inputs: Inputs, *, out: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Runs the model once.

        Args:
            inputs: An array for each name in `inputs`, or one array for a model with one input.
            out: Arrays to put outputs into, by name, of the output's shape and type; they are returned in the
                result in place of new ones. Reusing them saves the allocation of large outputs.

        Returns:
            An array for each name in `outputs`.

        Raises:
            HybridgeError: `input-missing`, `input-unknown`, `input-shape`, `input-dtype`, `output-unknown` before
                anything runs; `invoke-failed` when the interpreter gives up; `model-closed`.
        """
        named: Mapping[str, Any] = inputs if isinstance(inputs, Mapping) else {self._only_input(): inputs}
        # All inputs are checked before any changes the interpreter: a refused call leaves it as it was.
        self._check(named)
        if out is not None and not out.keys() <= self._output_names:
            self._refuse_outputs(out)
        instance = self._take(named)
        try:
            return instance.run(named, out)
        finally:
            self._give_back(instance)

    def run_many(
        self, items: Sequence[Mapping[str, Array]], *, batch_size: int = 8
    ) -> list[dict[str, Array]]:
        """Runs the model once for each of several inputs, several in one invocation where it takes any batch.

        Items of the same shapes share an invocation, up to `batch_size` of them; other models run item by item. With
        several instances, so many invocations run at once.

        Args:
            items: Inputs as `run` takes them; where batches are possible each has as many rows as it likes.
            batch_size: Items that one invocation may have.

        Returns:
            Outputs of each item, in the items' order.

        Raises:
            HybridgeError: What `run` raises, for the first item that cannot be run.
        """
        chunks = self._chunks(items, batch_size)
        if self.instances > 1 and len(chunks) > 1:
            answers = list(
                self._workers().map(lambda chunk: self._run_batch([items[i] for i in chunk]), chunks)
            )
        else:
            answers = [self._run_batch([items[i] for i in chunk]) for chunk in chunks]
        results: list[dict[str, Array]] = [{}] * len(items)
        for chunk, outputs in zip(chunks, answers, strict=True):
            for index, result in zip(chunk, outputs, strict=True):
                results[index] = result
        return results

    def _chunks(self, items: Sequence[Mapping[str, Array]], batch_size: int) -> list[list[int]]:
        """Indices of the items that share an invocation."""
        if not self._batchable or batch_size < 2:
            return [[index] for index in range(len(items))]
        groups: dict[object, list[int]] = {}
        for index, item in enumerate(items):
            key = self._batch_key(item)
            groups.setdefault(index if key is None else key, []).append(index)
        return [
            members[start : start + batch_size]
            for members in groups.values()
            for start in range(0, len(members), batch_size)
        ]

    def _batch_key(self, item: Inputs) -> tuple[object, ...] | None:
        """What items that can share an invocation have in common; None for one that goes alone.

        One that `run` would refuse does, and is refused there.
        """
        if not isinstance(item, Mapping) or item.keys() != self._ports.keys():
            return None
        arrays = [item[name] for name in self._ports]
        if not all(isinstance(array, np.ndarray) and array.ndim and array.size for array in arrays):
            return None
        if len({array.shape[0] for array in arrays}) > 1:
            return None
        return tuple((array.shape[1:], array.dtype.str) for array in arrays)

    def _workers(self) -> ThreadPoolExecutor:
        with self._changed:
            if self._closed:
                raise self._closed_error()
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.instances, f"hybridge-{self.name}")
            return self._pool

    def _run_batch(self, items: list[Mapping[str, Array]]) -> list[dict[str, Array]]:
        if len(items) == 1 or not self._batchable:
            return [self.run(item) for item in items]
        rows = [next(iter(item.values())).shape[0] for item in items]
        outputs = self.run({name: np.concatenate([item[name] for item in items]) for name in self._ports})
        ends = np.cumsum(rows)
        results = [
            {name: array[end - count : end] for name, array in outputs.items()}
            for end, count in zip(ends, rows, strict=True)
        ]
        is_split = all(array.shape[0] == ends[-1] for array in outputs.values())
        if is_split and not self._batches_checked:
            # A free first axis need not be one of independent rows: for once an item is also run alone.
            is_split = self._batches_checked = alike(self.run(items[0]), results[0])
        if not is_split:
            self._batchable = False
            return [self.run(item) for item in items]
        return results

    @contextmanager
    def borrow(self) -> Iterator[LentInstance]:
        """Lends one instance for as long as the block runs, to reach its memory without a copy.

        Example:
            >>> with model.borrow() as lent:
            ...     lent.input("image")[...] = pixels
            ...     lent.invoke()
            ...     best = lent.output("logits").argmax()
        """
        instance = self._take({})
        try:
            yield LentInstance(instance)
        finally:
            self._give_back(instance)

    def warm_up(
        self,
        inputs: Mapping[str, Array] | None = None,
        *,
        sizes: Mapping[str, int] | None = None,
        all_instances: bool = True,
    ) -> dict[str, Array]:
        """Runs the model, so that the first real input does not pay for allocation and packing.

        Args:
            inputs: What to run it on; zeros without it.
            sizes: Size of each free dimension of the zeros, by its name; without it, what the bundle was measured at,
                else one.
            all_instances: Also makes and runs the instances that nobody has needed so far.

        Returns:
            The outputs. A model that carries a state has been reset.
        """
        given = self._zeros(sizes or {}) if inputs is None else inputs
        self._check(given)
        taken = [self._take(given)]
        try:
            # The others as far as they are idle or can be made: to wait for them while holding one might never end.
            while len(taken) < self.instances and all_instances:
                if (more := self._take_free(given)) is None:
                    break
                taken.append(more)
            outputs: dict[str, Array] = {}
            for instance in taken:
                outputs = instance.run(given, None)
                instance.reset()
        finally:
            for instance in taken:
                self._give_back(instance)
        return outputs

    def run_afresh(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the model as the first of a stream; the state that it carries stays as it is."""
        if not self.stateful:
            return self.run(inputs)
        self._check(inputs)
        return self._new_instance().run(inputs, None)

    def _zeros(self, sizes: Mapping[str, int]) -> dict[str, Array]:
        known = dict(self.bundle.manifest.signature.sizes) if self.bundle else {}
        known |= sizes
        names = self._dimension_names()
        zeros = {}
        for spec in self.inputs:
            shape = [
                known.get(names.get((spec.name, axis), ""), 1) if isinstance(size, str) else size
                for axis, size in enumerate(spec.shape)
            ]
            zeros[spec.name] = np.zeros(shape, numpy_dtype(spec))
        return zeros

    def reset(self) -> None:
        """Begins a new stream: states and variables are as they were at the start."""
        instance = self._take({})
        try:
            instance.reset()
        finally:
            self._give_back(instance)

    def placements(self) -> tuple[Placement, ...]:
        """How many of each operator run on accelerated kernels, and how many on the reference ones."""
        instance = self._take({})
        try:
            return placements(instance.interpreter)
        finally:
            self._give_back(instance)

    def close(self, *, wait: bool = True) -> None:
        """Frees the interpreters once running calls are done; the model is not used again.

        Args:
            wait: Whether to wait for them here.
        """
        with self._changed:
            self._closed = True
            self._let_go()
            self._changed.notify_all()
            # Its threads end with the last call that still uses it.
            self._pool = None
            while wait and self._made:
                self._waiting += 1
                self._changed.wait()
                self._waiting -= 1

    def unload(self) -> bool:
        """Frees all interpreters if none is running, until the next call; returns whether it did.

        A model that carries a state from run to run stays.
        """
        if self.stateful:
            return False
        with self._changed:
            taken = self._drain()
            if len(taken) < self._made:
                self._idle.extend(taken)
                return False
            self._made, self.memory_bytes = 0, 0
            return True

    def _load(self) -> Instance:
        if self.budget is None:
            return self._new_instance()
        instance, self._instance_bytes = self.budget.load(
            self, self._new_instance, expected_bytes=self._instance_bytes
        )
        return instance

    def _new_instance(self) -> Instance:
        instance = Instance(
            self.content,
            num_threads=self.num_threads,
            dequantize=self.dequantize,
            states=self.states,
            name=self.name,
        )
        if self.budget is not None:
            instance.touch()
        return instance

    def _check_states(self) -> None:
        plain = Instance(self.content, num_threads=1, dequantize=False, states={}, name=self.name)
        ins = {name: writer.spec for name, writer in plain.writers.items()}
        outs = {spec.name: spec for spec in self._output_specs(plain)}
        for into, out in self.states.items():
            if into not in ins or out not in outs or not _can_follow(ins[into], outs[out]):
                raise HybridgeError(
                    ErrorCode.USAGE,
                    f"states of model '{self.name}'",
                    received=f"{into} = {out}",
                    expected=f"an input of {', '.join(ins)} and an output of {', '.join(outs)}"
                    " of the same type and shape",
                )

    def _output_specs(self, instance: Instance) -> tuple[TensorSpec, ...]:
        return tuple(reader.spec for reader in instance.readers.values())

    def _takes_batches(self) -> bool:
        first = [spec.shape[0] if spec.shape else 1 for spec in (*self.inputs, *self.outputs)]
        return not self.stateful and bool(first) and all(isinstance(size, str) for size in first)

    def _dimension_names(self) -> dict[tuple[str, int], str]:
        """The bundle's names of free dimensions; without one, the interpreter's."""
        specs = self.bundle.manifest.signature.inputs if self.bundle else self.inputs
        return {
            (spec.name, axis): size
            for spec in specs
            for axis, size in enumerate(spec.shape)
            if isinstance(size, str)
        }

    def _take(self, named: Mapping[str, Array]) -> Instance:
        if self.budget is not None:
            self.last_used = time.monotonic()
        if not self._chooses:
            try:
                # One bytecode of a deque: no lock is needed to take what lies ready.
                return self._idle.pop()
            except IndexError:
                pass
        return self._take_or_wait(named)

    def _take_or_wait(self, named: Mapping[str, Array]) -> Instance:
        instance = self._take_free(named, wait=True)
        assert instance is not None  # noqa: S101 - whoever waits gets one, or an error
        return instance

    def _take_free(self, named: Mapping[str, Array], *, wait: bool = False) -> Instance | None:
        """An instance that is idle, or a new one; when all there may be are in use, waits for one or gives None."""
        with self._changed:
            # Counted before it looks: whoever gives back after the look sees that someone waits.
            self._waiting += 1
            try:
                while True:
                    if self._closed:
                        raise self._closed_error()
                    instance = self._fitting(named)
                    if instance is not None:
                        return instance
                    if self._made < self.instances:
                        self._made += 1
                        break
                    if not wait:
                        return None
                    self._changed.wait()
            finally:
                self._waiting -= 1
        try:
            return self._load()
        except BaseException as error:
            with self._changed:
                self._made -= 1
                has_others = self._made > 0
                is_full = isinstance(error, HybridgeError) and error.code is ErrorCode.MEMORY_BUDGET
                if has_others and is_full:
                    self.instances = self._made
                self._changed.notify_all()
            if has_others and is_full:
                # No room for one more: this call has one that there is.
                return self._take_free(named, wait=wait)
            raise

    def _fitting(self, named: Mapping[str, Array]) -> Instance | None:
        """An idle instance that has these sizes; without one, None while another can be made, else the oldest."""
        if not self._chooses or not named:
            try:
                return self._idle.pop()
            except IndexError:
                return None
        shapes = {name: array.shape for name, array in named.items()}
        # A copy: calls that end give back without the lock.
        for instance in self._idle.copy():
            if instance.shapes == shapes or not instance.shapes:
                self._idle.remove(instance)
                return instance
        return self._idle.popleft() if self._idle and self._made >= self.instances else None

    def _give_back(self, instance: Instance) -> None:
        self._idle.append(instance)
        if self._waiting or self._closed:
            with self._changed:
                if self._closed:
                    self._let_go()
                self._changed.notify_all()
        if self.budget is not None:
            self.budget.notify_idle()

    def _let_go(self) -> None:
        self._made -= len(self._drain())
        if not self._made:
            self.memory_bytes = 0

    def _drain(self) -> list[Instance]:
        """Takes all idle instances; the lock is held, but calls take what lies ready without it."""
        taken: list[Instance] = []
        with suppress(IndexError):
            while True:
                taken.append(self._idle.pop())
        return taken

    def _closed_error(self) -> HybridgeError:
        return HybridgeError(
            ErrorCode.MODEL_CLOSED, f"model '{self.name}'", received="a call after it was closed"
        )

    def _check(self, named: Mapping[str, Any]) -> None:
        ports = self._ports
        if named.keys() != ports.keys():
            self._refuse_names(named)
        for name, array in named.items():
            ports[name].check(array)

    def _only_input(self) -> str:
        if len(self.inputs) != 1:
            raise HybridgeError(
                ErrorCode.INPUT_MISSING,
                f"model '{self.name}'",
                received="one array without a name",
                expected=f"arrays named {', '.join(self._ports)}",
                fix="pass a mapping from name to array",
            )
        return self.inputs[0].name

    def _refuse_names(self, named: Mapping[str, Any]) -> None:
        missing = [name for name in self._ports if name not in named]
        raise HybridgeError(
            ErrorCode.INPUT_MISSING if missing else ErrorCode.INPUT_UNKNOWN,
            f"inputs of model '{self.name}'",
            received=", ".join(map(str, named)) or "none",
            expected=", ".join(self._ports),
            fix=f"add {', '.join(missing)}" if missing else "leave the others out",
        )

    def _refuse_outputs(self, out: Mapping[str, Any]) -> None:
        raise HybridgeError(
            ErrorCode.OUTPUT_UNKNOWN,
            f"arrays for outputs of model '{self.name}'",
            received=", ".join(map(str, out)),
            expected=f"names among {', '.join(sorted(self._output_names))}",
        )

    def __repr__(self) -> str:
        return f"Model({self.name!r}, inputs={[spec.name for spec in self.inputs]})"


def _can_follow(into: TensorSpec, out: TensorSpec) -> bool:
    sizes = zip(into.shape, out.shape, strict=False)
    return (
        into.dtype == out.dtype
        and len(into.shape) == len(out.shape)
        and all(want == got for want, got in sizes if not isinstance(want, str) and not isinstance(got, str))
    )


def _open(source: Bundle | bytes | str | PathLike[str]) -> tuple[Bundle | None, str, bytes]:
    if isinstance(source, bytes | bytearray):
        return None, "model", bytes(source)
    if isinstance(source, str | PathLike):
        path = fspath(source)
        name, suffix = os.path.splitext(os.path.basename(path))
        if suffix != ".edge":
            return None, name, read_file(path)
        # What reads manifests is loaded with the first bundle; a bare model needs none of it.
        from edge_runtime.bundle import Bundle

        source = Bundle.open(path)
    return source, source.manifest.name, source.model_content
