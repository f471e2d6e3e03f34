"""Where things stand in a TOML file, which the parsers of TOML do not say."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["TableLines", "array_table_lines"]

_HEADER = re.compile(r"\s*\[\[?\s*(?P<name>[^\[\]]+?)\s*\]\]?\s*$")
_KEY = re.compile(r"""\s*(?P<key>"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)\s*[.=]""")
# A string of several lines may end in two more of its quotes.
_TOKEN = re.compile(
    r"""(?P<lines>"{3}(?:\\.|[^\\])*?"{3}(?!")|'{3}.*?'{3}(?!'))"""
    r"""|(?P<text>"(?:\\.|[^"\\\n])*"|'[^'\n]*')|(?P<comment>\#[^\n]*)""",
    re.DOTALL,
)


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
    open_brackets = 0
    for number, line in enumerate(_TOKEN.sub(_plain, text).split("\n"), 1):
        header = None if open_brackets else _HEADER.match(line)
        if header is not None:
            path = [part.strip().strip("\"'") for part in header["name"].split(".")]
            inside = path == [name]
            if inside:
                tables.append(TableLines(number))
            elif path[0] == name and tables:
                tables[-1].keys.setdefault(path[1], number)
            continue
        if inside and tables and not open_brackets and (key := _KEY.match(line)):
            tables[-1].keys.setdefault(key["key"].strip("\"'"), number)
        # What stands in an array or a table over several lines is no key, whatever it looks like.
        bare = _TOKEN.sub("", line)
        open_brackets += sum(map(bare.count, "[{")) - sum(map(bare.count, "]}"))
    return tables


def _plain(token: re.Match[str]) -> str:
    """Comments gone, and of a string of several lines only its lines; others may be keys."""
    if token["text"]:
        return token["text"]
    return "''" + "\n" * token["lines"].count("\n") if token["lines"] else ""
