"""The whole translator, with its own models: made on first use (minutes), then taken from the demo's cache."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw, ImageFont

from benchmarks.sign.broken_phrase_quality import broken_phrase_quality
from benchmarks.sign.demo import run_sign_demo
from benchmarks.sign.models import cache_folder, prepare, sign_chain
from edge_runtime import load_chain
from edge_runtime.tensor_spec import Array

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def folder() -> Path:
    return prepare(cache_folder(), say=print)


def _sign(*lines: str, size: int = 48) -> Array:
    import matplotlib

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    image = Image.new("RGB", (640, 360), (40, 90, 160))
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        font = ImageFont.truetype(str(fonts / "DejaVuSans-Bold.ttf"), size)
        pen.text((320, 90 + number * 1.4 * size), line, (245, 245, 245), font, anchor="mt")
    return np.asarray(image)


@pytest.mark.parametrize(
    ("lines", "translations"),
    [
        (["EXIT"], ["SALIDA"]),
        (["NO", "PARKING"], ["PROHIBIDO", "APARCAR"]),
        (["Emergency", "exit"], ["Salida de", "emergencia"]),
        (["PUSH", "TOILETS"], ["EMPUJAR", "ASEOS"]),
        (["Xqzzy"], ["Xqzzy"]),
        ([], []),
    ],
)
def test_a_sign_becomes_one_in_spanish(folder: Path, lines: list[str], translations: list[str]) -> None:
    image = _sign(*lines)
    with load_chain(sign_chain(folder)) as chain:
        outputs = chain.run({"image": image}).outputs
    order = np.argsort([quad[:, 1].min() for quad in outputs["quads"]])
    assert [str(outputs["texts"][index]) for index in order] == lines
    assert [str(outputs["translations"][index]) for index in order] == translations
    changed = np.any(outputs["translated-image"] != image, axis=2)
    assert changed.any() == bool(lines)
    # Only where the sign says something: its paper stays as it is.
    assert changed.mean() < 0.25


def test_the_demo_leaves_pictures_and_a_report(folder: Path, tmp_path: Path) -> None:
    result = run_sign_demo(tmp_path, models=folder, say=print)
    lines = [line for picture in result.pictures for line in picture.lines]
    assert len(result.pictures) == 6
    assert sum(line.translated for line in lines) >= 0.8 * len(lines) > 4
    assert {line.source for line in lines} <= {"device", "cloud"}
    assert all(picture.before.exists() and picture.after.exists() for picture in result.pictures)
    for picture in result.pictures:
        assert {"read/detect", "read/direction", "translate", "font", "letter"} <= picture.stages_ms.keys()
        assert 0 < sum(picture.stages_ms.values()) < 2 * picture.elapsed_ms
    report = result.report.read_text(encoding="utf-8")
    assert all(line.text in report and line.translation in report for line in lines)


@pytest.mark.usefixtures("folder")
def test_broken_phrases_are_joined_and_others_are_not() -> None:
    done = CliRunner().invoke(broken_phrase_quality, ["--pairs", "300", "--format", "json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["joined_and_right"] > 0.97
    assert max(figures["wrongly_joined"].values()) < 0.03
