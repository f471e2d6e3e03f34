from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.command import hybridge

cv2 = pytest.importorskip("cv2", reason="images need the 'vision' extra")

_CHAIN = """
name = "brightness"
inputs = { image = "uint8[height, width, 3]" }
outputs = ["small"]

[[stages]]
name = "shrink"
operator = "resize"
params = { height = 1, width = 1, interpolation = "area" }
outputs = { image = "small" }
"""


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    path = tmp_path / "brightness.toml"
    path.write_text(_CHAIN)
    return path


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((8, 8, 3), 50 * number, np.uint8))
    (folder / "1b.png").write_bytes((folder / "1.png").read_bytes()[:40])
    return folder


def test_a_folder_is_answered_line_by_line_and_a_bad_photograph_is_told(
    chain: Path, photographs: Path
) -> None:
    result = hybridge("run", chain, "--input", photographs, "--format", "json")
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["name"] for line in lines if "outputs" in line] == ["0.png", "1.png", "2.png"]
    assert [line["outputs"]["small"][0][0][0] for line in lines if "outputs" in line] == [0, 50, 100]
    assert lines[2]["error"]["code"] == "input-invalid"
    assert "1b.png" in lines[2]["error"]["message"]
    assert "3 answers" in result.stderr


def test_results_go_where_they_are_sent_and_nothing_is_written_over(
    chain: Path, photographs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found.jsonl"
    arguments = (
        "run",
        chain,
        "--input",
        photographs,
        "--out",
        out,
        "--out",
        f"{tmp_path}/drawn/",
        "--draw",
        "image=small",
    )
    first = hybridge(*arguments)
    assert first.exit_code == 0, first.stderr
    assert len(out.read_text().splitlines()) == 4
    assert len(list((tmp_path / "drawn").iterdir())) == 3
    again = hybridge(*arguments)
    assert again.exit_code == 4
    assert "found.jsonl" in again.stderr


def test_a_stream_in_which_every_frame_fails_is_a_failure(chain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no image")
    result = hybridge("run", chain, "--input", folder)
    assert result.exit_code == 1
    assert "1 frames that all failed" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--draw", "circles=x"), "expected one of image, boxes"),
        (("--input", "other.jpg"), "a stream is one --input"),
        (("--overflow", "sometimes"), "sometimes"),
    ],
)
def test_flags_that_cannot_be_are_usage_errors(
    chain: Path, photographs: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = hybridge("run", chain, "--input", photographs, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_watching_goes_on_with_new_files_until_it_is_told_to_end(
    chain: Path, photographs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found.jsonl"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "edge_runtime",
            "run",
            str(chain),
            "--input",
            str(photographs),
            "--watch",
            "--out",
            str(out),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_for_lines(out, 4)
        image = cv2.imencode(".png", np.full((8, 8, 3), 200, np.uint8))[1].tobytes()
        (photographs / "new.part").write_bytes(image)
        os.replace(photographs / "new.part", photographs / "new.png")
        _wait_for_lines(out, 5)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said
    assert json.loads(out.read_text().splitlines()[-1])["outputs"]["small"] == [[[200, 200, 200]]]


def _wait_for_lines(path: Path, count: int) -> None:
    limit = time.monotonic() + 30
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < limit, "nothing more was answered"
        time.sleep(0.05)
