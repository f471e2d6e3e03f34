from __future__ import annotations

import tomllib

import pytest

from edge_runtime.chain.toml_lines import array_table_lines

TEXT = '''\
# [[stages]] in a comment, and """ that opens nothing
name = "it's a chain" # ' nor does this
doc = """
[[stages]]
name = "not a stage"
"""

[[stages]]      # the first; it's on line 8
name = "a" # """
"operator" = "scale"
shape = [
  [1, 2],
  [3, 4]
]
'params' = { factor = 1, "key" = 'x # y' }
note = \'\'\'one
operator = "two"
\'\'\'
when = "len(x) > 0 # '"

[[ stages ]]
  name = "b"
  [stages.params]
  factor = 2
  name = "not the stage's"
  [[stages.tiers]]
  model = "x"
  [[stages.tiers]]
  model = "y"
  [stages.confidence]
  output = "z"

[other]
operator = "of another table"

[["stages"]]
name = "c"
tiers = [
  { model = "[[stages]]", labels = """
[[stages]]
""" },
  { model = "z" },
]
inputs.array = "q"
text = """ends in quotes """""
when = "x"
'''


def test_lines_are_those_of_the_tables_and_their_keys() -> None:
    parsed = tomllib.loads(TEXT)["stages"]
    first, second, third = array_table_lines(TEXT, "stages")
    assert [each["name"] for each in parsed] == ["a", "b", "c"]
    lines = TEXT.split("\n")
    for table, keys in zip((first, second, third), parsed, strict=True):
        assert set(table.keys) == set(keys)
        for key, line in table.keys.items():
            assert key in lines[line - 1], (key, line)
    assert (first.header, second.header, third.header) == (8, 21, 36)
    assert first.keys == {"name": 9, "operator": 10, "shape": 11, "params": 15, "note": 16, "when": 19}
    assert second.keys == {"name": 22, "params": 23, "tiers": 26, "confidence": 30}
    assert third.keys == {"name": 37, "tiers": 38, "inputs": 44, "text": 45, "when": 46}
    assert first.of("name") == 9
    assert first.of("missing") == 8


@pytest.mark.parametrize(
    "text",
    ["", "stages = []", "stages = [{ name = 'a' }]", "[[stage]]\nname = 'a'", "[[more.stages]]\na = 1"],
)
def test_what_has_no_such_tables_has_no_lines(text: str) -> None:
    assert array_table_lines(text, "stages") == []


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
def test_either_end_of_line_is_one(newline: str) -> None:
    text = newline.join(["a = 1", "[[stages]]", "name = 'a'", "", "when = 'x'"])
    (table,) = array_table_lines(text, "stages")
    assert (table.header, table.keys) == (2, {"name": 3, "when": 5})
