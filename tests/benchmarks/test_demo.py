from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cloud_fallback import EndpointProcess
from edge_runtime import Bundle
from tests.command import Result, hybridge

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "out"


@pytest.fixture(scope="module")
def shown(out: Path) -> Result:
    return hybridge("demo", "--out", out, "--format", "json")


def _processes_that_name(path: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended while we looked
        if str(path) in command:
            found.append(command)
    return found


def test_the_device_is_helped_by_the_cloud_and_stands_alone_without_it(shown: Result) -> None:
    assert shown.exit_code == 0, shown.stderr
    figures: dict[str, Any] = shown.json
    accuracy = figures["accuracy"]
    distance = accuracy["cloud"] - accuracy["device"]
    assert distance > 0.01
    assert accuracy["hybrid"] >= accuracy["device"] + distance / 2
    assert 0 < figures["offloaded"] < 0.25
    assert figures["bundle_bytes"]["device"] < 20_000
    assert figures["seconds"] < 90 * 2  # twice its time: a test machine does other things too
    for condition in ("offline", "slow"):
        without = figures[condition]
        assert without["accuracy"]["device"] == without["accuracy"]["hybrid"] == accuracy["device"]
        assert without["accuracy"]["cloud"] == 0
        assert without["offloaded"] == 0
        assert set(without) >= {"accuracy", "offloaded", "latency_ms", "bundle_bytes"}
    # Nearly all of it is known without asking again and again.
    away = {"cloud-unavailable", "cloud-breaker-open", "offline"}
    assert {"confident"} < figures["offline"]["reasons"].keys() <= {"confident", *away}
    late = {"cloud-deadline", "no-time", "cloud-breaker-open"}
    assert {"confident"} < figures["slow"]["reasons"].keys() <= {"confident", *late}
    assert figures["slow"]["latency_ms"]["hybrid"]["p95"] < figures["slow"]["deadline_ms"] + 25


def test_its_files_hold_what_it_shows(shown: Result, out: Path) -> None:
    files = {what: Path(path) for what, path in shown.json["files"].items()}
    assert {path.parent for path in files.values()} == {out}
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in files.values())
    manifest = Bundle.open(files["device"]).manifest
    assert manifest.confidence is not None
    assert manifest.confidence.threshold in {point.threshold for point in manifest.confidence.curve}
    assert hybridge("inspect", files["device"]).exit_code == 0
    page = files["report"].read_text()
    assert page.count("<svg") == 4
    # Self-contained: nothing is fetched. XML namespaces are names, not addresses to fetch.
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)
    assert "<script" not in page
    assert f"{shown.json['accuracy']['hybrid']:.1%}" in page


def test_the_readme_works_on_what_it_made(shown: Result, out: Path, tmp_path: Path) -> None:
    assert shown.exit_code == 0
    (tmp_path / "demo-out").symlink_to(out)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    with EndpointProcess([out / "digits-large-1.0.edge"]) as endpoint:
        for block in blocks:
            script = block.replace("127.0.0.1:8001", endpoint.address)
            run = subprocess.run(
                [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert run.returncode == 0, run.stderr
            assert "cloud unsure" in run.stdout


def test_nothing_runs_on_after_it(shown: Result, out: Path) -> None:
    assert shown.exit_code == 0
    assert _processes_that_name(out) == []


def test_a_second_demo_does_not_replace_the_first_unasked(shown: Result, out: Path) -> None:
    assert shown.exit_code == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    started = time.monotonic()
    again = hybridge("demo", "--out", out)
    assert (again.exit_code, "[file-exists]" in again.stderr) == (4, True)
    assert time.monotonic() - started < 20
    assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.heavy
def test_an_interrupt_ends_every_process(tmp_path: Path) -> None:
    out = tmp_path / "interrupted"
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_runtime", "demo", "--out", str(out)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[5/6]"):
            break
    assert any("serve" in command for command in _processes_that_name(out))
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 130
    assert "Traceback" not in rest
    assert _processes_that_name(out) == []
