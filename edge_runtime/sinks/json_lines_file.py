"""Results as lines of JSON, in a file or on standard output."""

from __future__ import annotations

import os
import sys
from os import PathLike
from typing import Any

import msgspec
import numpy as np

from edge_runtime.files import check_writable
from edge_runtime.frame import StreamResult
from edge_runtime.prediction import Prediction
from edge_runtime.sinks.sink import Sink, unwritable
from edge_runtime.tensor_spec import Value

__all__ = ["JsonLinesFile"]


class JsonLinesFile(Sink):
    """A line of JSON for each result, written as it comes, so that other programs can follow.

    A line has ``index``, ``name`` and ``time_s`` of the frame and either ``error`` (``code`` and ``message``) or
    ``label``, ``confidence``, ``source``, ``reason``, ``detail``, ``elapsed_ms`` and ``outputs``, and where questions
    were deferred their ``request_ids``. NaN and infinities are null. Only whole lines stay in a file that could not be
    written on.

    Args:
        path: Of the file, or ``"-"`` for standard output.
        overwrite: Writes over a file that exists.
        max_values: A larger array is written as its ``dtype`` and ``shape``; None writes every one in full.
        stages: Adds what each stage did and how long it took.

    Raises:
        HybridgeError: `file-exists`, `file-unwritable`.

    Example:
        >>> with JsonLinesFile("found.jsonl") as sink:
        ...     for result in chain.stream(source):
        ...         sink.write(result)
    """

    def __init__(
        self,
        path: str | PathLike[str] = "-",
        *,
        overwrite: bool = False,
        max_values: int | None = 1000,
        stages: bool = False,
    ):
        super().__init__()
        self._max_values = max_values
        self._stages = stages
        self._file: int | None = None
        self._whole = 0
        if str(path) == "-":
            self._shown = "standard output"
            return
        self._shown = f"output '{path}'"
        check_writable(path, overwrite=overwrite)
        # Not beside it and renamed, as other outputs are: a stream may run for weeks, and its lines are wanted now.
        mode = os.O_TRUNC if overwrite else os.O_EXCL
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | mode, 0o666)
        except OSError as error:
            raise unwritable(self._shown, error.strerror or str(error)) from error

    def _write(self, result: StreamResult) -> None:
        line = msgspec.json.encode(self._record(result)) + b"\n"
        try:
            if self._file is None:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
                return
            left = memoryview(line)
            while left:
                left = left[os.write(self._file, left) :]
            self._whole += len(line)
        except OSError as error:
            if self._file is None and isinstance(error, BrokenPipeError):
                _drop_standard_output()
            raise unwritable(self._shown, error.strerror or str(error)) from error

    def _finish(self) -> None:
        if self._file is None:
            return
        try:
            # A line that was cut off by a full disk goes.
            if os.lseek(self._file, 0, os.SEEK_CUR) > self._whole:
                os.ftruncate(self._file, self._whole)
        except OSError:  # a pipe has no place to go back to
            pass
        finally:
            os.close(self._file)

    def _record(self, result: StreamResult) -> dict[str, Any]:
        record: dict[str, Any] = {
            "index": result.index,
            "name": result.frame.name,
            "time_s": round(result.frame.time_s, 6),
        }
        if result.error is not None:
            return {**record, "error": {"code": result.error.code, "message": result.error.message}}
        if result.prediction is not None:
            record |= self._answer(result.prediction)
        return record

    def _answer(self, prediction: Prediction) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "label": prediction.label,
            "confidence": prediction.confidence,
            "source": prediction.source,
            "reason": prediction.reason,
            "detail": prediction.detail,
            "elapsed_ms": prediction.elapsed_ms,
            "outputs": {name: self._values(value) for name, value in prediction.outputs.items()},
        }
        if prediction.request_ids:
            answer["request_ids"] = prediction.request_ids
        return {**answer, "stages": prediction.stages} if self._stages else answer

    def _values(self, value: Value) -> Any:
        if isinstance(value, list):
            return [self._values(item) for item in value]
        array = np.asarray(value)
        if self._max_values is not None and array.size > self._max_values:
            return {"dtype": str(array.dtype), "shape": array.shape}
        return array.tolist()


def _drop_standard_output() -> None:
    # What the interpreter still holds for a reader that has gone would be an error again when it exits.
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
