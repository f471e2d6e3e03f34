"""docs/streams.md says what there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from edge_runtime import sinks, sources

_PAGE = (Path(__file__).parents[3] / "docs" / "streams.md").read_text()
_ROOMS = [getattr(room, name) for room in (sources, sinks) for name in room.__all__]
_CLASSES = [kind for kind in _ROOMS if inspect.isclass(kind) and not inspect.isabstract(kind)]


@pytest.mark.parametrize("kind", _CLASSES, ids=lambda kind: kind.__name__)
def test_every_setting_is_explained_in_its_section(kind: type) -> None:
    sections = re.split(r"^#{2,3} ", _PAGE, flags=re.MULTILINE)
    (section,) = [text for text in sections if kind.__name__ in text.partition("\n")[0].split()]
    settings = {
        parameter.name
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    explained = set(re.findall(r"`(\w+)`", section))
    assert settings - {"name"} <= explained
