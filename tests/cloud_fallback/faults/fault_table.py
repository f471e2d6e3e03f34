"""The table of faults: what was done to the two sides, what happened, and what was lost, as the tests found it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.files import write_file

__all__ = ["FaultTable"]

# Names the Markdown file that the run's table is written to.
_VARIABLE = "HYBRIDGE_FAULT_TABLE"
_HEAD = """\
# Faults

Each row is a test over real sockets that passed; `make faults` runs them and writes this table. A test asserts what was
lost and that whoever was attacked answers correctly afterwards.

| what was done | what happened | what was lost |
|---|---|---|
"""


@dataclass(slots=True)
class FaultTable:
    """Rows in the order in which tests record them; call it as the last thing of a test that held.

    Example:
        >>> fault_table("server killed mid-request", "the device's answer stood, 12 ms later")
    """

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def __call__(self, fault: str, happened: str, lost: str = "nothing") -> None:
        """Records a row: what was done, what happened, and what was lost."""
        self.rows.append((fault, happened, lost))

    def markdown(self) -> str:
        """The page."""
        return _HEAD + "".join(
            f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in self.rows
        )

    def write(self) -> None:
        """Writes the page to the file that the environment variable `HYBRIDGE_FAULT_TABLE` names, if it does."""
        path = os.environ.get(_VARIABLE)
        if path and self.rows:
            write_file(Path(path), self.markdown().encode(), overwrite=True)
