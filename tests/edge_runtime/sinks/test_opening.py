from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("cv2", reason="images need the 'vision' extra")

from edge_runtime import ErrorCode, HybridgeError
from edge_runtime.sinks import AnnotatedImages, AnnotatedVideo, JsonLinesFile, Sink, open_sink


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("a.jsonl", JsonLinesFile),
        ("a.NDJSON", JsonLinesFile),
        ("a.mp4", AnnotatedVideo),
        ("a.avi", AnnotatedVideo),
        ("folder", AnnotatedImages),
        ("v1.5/", AnnotatedImages),
        ("there.d", AnnotatedImages),
    ],
)
def test_a_text_names_a_sink(tmp_path: Path, spec: str, kind: type[Sink]) -> None:
    (tmp_path / "there.d").mkdir()
    with open_sink(f"{tmp_path}/{spec}", overwrite=True) as sink:
        assert type(sink) is kind


def test_a_line_is_standard_output() -> None:
    assert type(open_sink("-")) is JsonLinesFile


def test_others_are_refused_with_what_there_is(tmp_path: Path) -> None:
    for spec in (f"{tmp_path}/a.gif", ""):
        with pytest.raises(HybridgeError, match=r"\.jsonl, \.ndjson, \.mp4, \.avi") as caught:
            open_sink(spec)
        assert caught.value.code is ErrorCode.INPUT_INVALID
    with pytest.raises(HybridgeError, match="received boxes, expected among overwrite, max_values, stages"):
        open_sink(f"{tmp_path}/a.jsonl", boxes="faces", labels=None)
