from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from convert.progress import Progress

SCRIPT = """
from convert.progress import Progress
with Progress() as progress:
    progress("calibrating [1/2]")
    for done in range(1, 51):
        progress.advance(done, 50, "batches")
    progress("done")
"""


def test_where_nobody_watches_progress_is_a_few_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(watched=False) as progress:
        progress("calibrating")
        for done in range(1, 51):
            progress.advance(done, 50, "batches")
        progress.advance(1, 2, "epochs")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "calibrating",
        "batches: 1 of 50",
        "batches: 50 of 50",
        "epochs: 1 of 2",
    ]


def test_where_a_person_watches_progress_is_a_bar_and_lines_stay_as_they_are() -> None:
    main, side = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], stderr=side, stdout=subprocess.PIPE, check=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        )  # fmt: skip
        os.close(side)
        shown = b""
        try:
            while part := os.read(main, 65536):
                shown += part
        except OSError:
            pass  # the other side is closed, and all is read
    finally:
        os.close(main)
    assert done.stdout == b""
    assert b"calibrating [1/2]" in shown
    assert b"50/50" in shown
    assert b"\x1b[" in shown  # drawn in place
    assert shown.count(b"batches: ") == 0


def test_a_library_for_bars_is_loaded_only_for_a_bar() -> None:
    script = (
        "import sys\nfrom convert.progress import Progress\n"
        "with Progress(watched=False) as progress:\n    progress.advance(1, 2, 'x')\nassert 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
