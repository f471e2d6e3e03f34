"""Where things stand in a TOML file, which the parsers of TOML do not say."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["TableLines", "array_table_lines"]

_HEADER = re.compile(r"\s*\[\[?\s*(?P<name>[^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""\s*(?P<key>"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)\s*[.=]""")
_MULTILINE = ('"""', "'''")


@dataclass(frozen=True, slots=True)
class TableLines:
    """Line of a table's header, and of each of its keys."""

    header: int
    keys: dict[str, int] = field(default_factory=dict)

    def of(self, key: str) -> int:
        """The line of a key, or of the header when it is not there."""
        return self.keys.get(key, self.header)


def array_table_lines(text: str, name: str) -> list[TableLines]:
    """Lines of the tables of an array of tables, such as all ``[[stages]]``, in the order of the array.

    Tables within, such as ``[stages.params]`` and ``[[stages.tiers]]``, count as keys of the table before them. An
    array that is written inline has no lines of its own; the list is then empty.
    """
    tables: list[TableLines] = []
    inside = False
    open_string = ""
    for number, line in enumerate(text.splitlines(), 1):
        if open_string:
            if line.count(open_string) % 2:
                open_string = ""
            continue
        header = _HEADER.match(line)
        if header is not None:
            path = [part.strip().strip("\"'") for part in header["name"].split(".")]
            inside = path[0] == name
            if inside and len(path) == 1:
                tables.append(TableLines(number))
            elif inside and tables:
                tables[-1].keys.setdefault(path[1], number)
        elif inside and tables and (key := _KEY.match(line)):
            tables[-1].keys.setdefault(key["key"].strip("\"'"), number)
        open_string = next((quotes for quotes in _MULTILINE if line.count(quotes) % 2), "")
    return tables
