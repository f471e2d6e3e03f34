"""Apertium as a subprocess that goes on: the stages of a language pair, each flushed by a zero byte.

Started for every sign, the stages would take a tenth of a second; kept running, they take half a millisecond. The
command ``apertium -z`` keeps them running too, but its filters hold each answer back until the next questions, so
that the stages are started as Apertium's own web service starts them: as the pair's mode file lists them, with ``-z``
added to each.

Text goes in between the stream's control characters (Apertium stream format): those of its own are wrapped as blanks,
which no stage looks into, and so is the number of the question, which the answer must bring back.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["Pipeline", "is_installed"]

# What has a meaning in the stream or marks a word in its end, and what a stage may treat as a command.
_SPECIAL = re.compile(r"[\\^$/<>{}\[\]@*#~+|\x00-\x08\x0b-\x1f\x7f]")
_WRAPPED = re.compile(r"\[u([0-9a-f]+)\]")
# Before a word: unknown, or known to one of the two dictionaries only.
_MARK = re.compile(r"(?<!\w)[*@#]+(?=\w)")


class Pipeline:
    """Translates one text after the other; for one thread at a time.

    The stages are started by the first text. They are started again after a crash, once for a text, and after an answer
    that took too long or belongs to another text.

    Args:
        pair: The direction, such as ``eng-spa``.

    Example:
        >>> with Pipeline("eng-spa") as pipeline:
        ...     pipeline.translate("the blue house", timeout_s=5)
        ('La casa azul', 0)
    """

    def __init__(self, pair: str):
        self.pair = pair
        self._stages: list[subprocess.Popen[bytes]] = []
        self._asked = 0

    def start(self) -> None:
        """Starts the stages if they do not run.

        Raises:
            HybridgeError: `extra-missing` where Apertium or the pair is not installed.
        """
        if self._stages and all(stage.poll() is None for stage in self._stages):
            return
        self.close()
        commands = _mode(self.pair)
        # Letters are those of the text, whatever the machine's own language.
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        source: int | IO[bytes] | None = subprocess.PIPE
        try:
            for command in commands:
                stage = subprocess.Popen(
                    command,
                    stdin=source,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,
                )
                self._stages.append(stage)
                if len(self._stages) > 1:
                    # The next stage alone holds it: the end of one ends those behind it.
                    _stream(self._stages[-2].stdout).close()
                source = stage.stdout
        except OSError as error:
            self.close()
            raise _missing(self.pair, f"a stage that cannot be started ({error})") from error

    def translate(self, text: str, *, timeout_s: float) -> tuple[str, int]:
        """The translation, and how many of its words Apertium does not know and left as they are.

        Args:
            text: A text of one or several lines.
            timeout_s: Seconds that it may take.

        Raises:
            HybridgeError: `extra-missing` where Apertium or the pair is not installed, `cloud-deadline` for an answer
                that did not come in time, `invoke-failed` when the stages crash twice.
        """
        deadline = time.monotonic() + timeout_s
        for _ in range(2):
            self.start()
            self._asked += 1
            mark = f"[n{self._asked}]"
            # The full stop ends the sentence, as Apertium's own filters put one at the end of a text.
            question = f"{_SPECIAL.sub(_wrap, text)}.{mark}\0".encode("utf-8", "replace")
            try:
                answer = self._exchange(question, deadline)
            except (BrokenPipeError, EOFError):
                self.close()
                continue
            if answer.endswith(f".{mark}"):
                plain, unknown = _MARK.subn("", answer.removesuffix(f".{mark}"))
                return _WRAPPED.sub(lambda wrapped: chr(int(wrapped[1], 16)), plain), unknown
            self.close()
        raise HybridgeError(
            ErrorCode.INVOKE_FAILED,
            f"Apertium {self.pair}",
            received="stages that ended, or gave another answer, twice",
            expected="a translation",
            fix=f"try it by hand: echo house | apertium {self.pair}",
        )

    def close(self) -> None:
        """Ends the stages; the next text starts them again."""
        stages, self._stages = self._stages, []
        for stage in stages:
            # They hold nothing that is worth waiting for.
            stage.kill()
        for stage in stages:
            for stream in (stage.stdin, stage.stdout):
                # What is still buffered has nobody to go to.
                with contextlib.suppress(OSError):
                    if stream is not None:
                        stream.close()
            stage.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exchange(self, question: bytes, deadline: float) -> str:
        entrance, end = _stream(self._stages[0].stdin), _stream(self._stages[-1].stdout)
        entrance.write(question)
        entrance.flush()
        received = bytearray()
        while not received.endswith(b"\0"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([end], [], [], left)[0]:
                # A late answer must not be taken for that to the next question.
                self.close()
                raise HybridgeError(
                    ErrorCode.CLOUD_DEADLINE, f"Apertium {self.pair}", received="no answer in time"
                )
            chunk = os.read(end.fileno(), 65536)
            if not chunk:
                raise EOFError
            received += chunk
        return received[:-1].decode("utf-8", "replace")


def is_installed(pair: str) -> bool:
    """Whether Apertium and a pair, such as ``eng-spa``, are installed here."""
    try:
        return bool(_mode(pair))
    except HybridgeError:
        return False


def _mode(pair: str) -> list[list[str]]:
    """The command of each stage of a pair."""
    command = shutil.which("apertium")
    if command is None:
        raise _missing(pair, "no 'apertium' on the PATH")
    folder = os.environ.get("APERTIUM_DATADIR") or Path(command).resolve().parents[1] / "share" / "apertium"
    try:
        listed = (Path(folder) / "modes" / f"{pair}.mode").read_text()
    except OSError as error:
        raise _missing(pair, f"Apertium without the pair ({error.strerror}: {error.filename})") from error
    stages = []
    for stage in listed.strip().split("|"):
        name, *arguments = shlex.split(stage)
        # As Apertium's command fills in a mode: -g marks unknown words in the end, and the tagger has no option.
        filled = ["-g" if each == "$1" else each for each in arguments if each != "$2"]
        stages.append([name, "-z", *filled])
    return stages


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # noqa: S101 - every stage has both
    return stream


def _missing(pair: str, received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.EXTRA_MISSING,
        f"translation {pair}",
        received=received,
        expected="Apertium and the pair",
        fix=f"install them, on Debian with: apt-get install apertium apertium-{pair}",
    )


def _wrap(special: re.Match[str]) -> str:
    return f"[u{ord(special[0]):x}]"
