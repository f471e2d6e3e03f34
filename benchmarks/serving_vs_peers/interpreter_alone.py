"""The interpreter with nothing around it, in a process of its own: what a server of the same model is held against."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from edge_runtime.interpreter import load_interpreter
from edge_runtime.tensor_spec import Array

__all__ = ["InterpreterAlone"]

_WARMUP = 5


class InterpreterAlone:
    """Runs a `.tflite` of one input and one output on each of some interpreters, again and again.

    Args:
        model: The file.
        inputs: A `.npy` with its input, as the file has it.
        interpreters: How many run at once.
        num_threads: Threads of each.
    """

    def __init__(self, model: Path, inputs: Path, *, interpreters: int, num_threads: int):
        self.name = f"{interpreters} x {num_threads} threads"
        arguments = (model, inputs, interpreters, num_threads)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # As the endpoint has: Linux shares processors among sessions first (autogroups, sched(7)).
            start_new_session=True,
        )

    def per_second(self, seconds: float) -> float:
        """Runs for so long; returns the runs in a second."""
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018 - as opened
        self._process.stdin.write(b"%f\n" % seconds)
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None  # noqa: S101 - as opened
        self._process.stdin.close()
        self._process.wait()


class _Looping:
    """One interpreter and the thread that runs it."""

    def __init__(self, model: Path, inputs: Array, num_threads: int):
        self._interpreter = load_interpreter(model.read_bytes(), num_threads=num_threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._inputs = inputs
        self.runs = 0
        for _ in range(_WARMUP):
            self.run_once()

    def run_once(self) -> None:
        self._interpreter.set_tensor(self._input, self._inputs)
        self._interpreter.invoke()
        self._interpreter.get_tensor(self._output)

    def run_until(self, end: float) -> None:
        self.runs = 0
        while time.perf_counter() < end:
            self.run_once()
            self.runs += 1


def _main() -> None:
    model, inputs, interpreters, num_threads = sys.argv[1:]
    looping = [_Looping(Path(model), np.load(inputs), int(num_threads)) for _ in range(int(interpreters))]
    for line in sys.stdin:
        start = time.perf_counter()
        threads = [threading.Thread(target=each.run_until, args=(start + float(line),)) for each in looping]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = sum(each.runs for each in looping) / (time.perf_counter() - start)
        sys.stdout.write(f"{rate}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
