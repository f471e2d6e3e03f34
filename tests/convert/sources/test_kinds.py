"""Which kind of source a path or an object is."""

from __future__ import annotations

from pathlib import Path

from convert.sources import open_source
from tests.convert.conftest import Digits
from tests.convert.sources.conftest import open_refusal


def test_what_is_no_source_is_told_every_kind_there_is(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"bytes")
    for wrong in (tmp_path / "model.bin", {"weights": 3}):
        code, message = open_refusal(wrong)
        assert code == "source-invalid"
        for kind in (".keras", ".h5", ".onnx", ".tflite", "SavedModel folder", "in memory"):
            assert kind in message


def test_a_path_that_does_not_exist_is_not_found(tmp_path: Path) -> None:
    for name in ("none.keras", "none.h5", "none.tflite", "none.onnx", "none", "none.xyz"):
        assert open_refusal(tmp_path / name)[0] == "file-not-found"


def test_a_folder_that_is_no_saved_model_says_what_is_missing(tmp_path: Path) -> None:
    code, message = open_refusal(tmp_path)
    assert code == "source-invalid"
    assert "without saved_model.pb" in message


def test_flags_that_do_not_go_with_the_kind_are_refused(digits: Digits, tmp_path: Path) -> None:
    assert open_refusal(digits.file, signature="serve")[0] == "usage"
    assert open_refusal(tmp_path, custom=("module",))[0] == "usage"


def test_a_source_stays_what_it_is(digits: Digits) -> None:
    source = open_source(digits.model)
    assert open_source(source) is source
