"""`hybridge fallback capacity`, as a person runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cloud_fallback.capacity.capacity_command import capacity
from edge_runtime import Bundle, ErrorCode, HybridgeError
from tests.command import hybridge

FLEET = ("--devices", "100000", "--requests-per-hour", "120", "--service-ms", "12", "--deadline-ms", "100")
FLAGS = (*FLEET, "--network-ms", "20", "--workers-per-replica", "2")


def _run(*arguments: str | Path) -> str:
    """What the verb writes, in this process: a process for each case would take longer than all of them."""
    return CliRunner().invoke(capacity, [*map(str, (*FLAGS, *arguments))], catch_exceptions=False).output


def test_the_command_gives_a_plan_as_json() -> None:
    run = hybridge(
        "fallback", "capacity", *FLAGS, "--offload", "0.2", "--peak-factor", "3", "--format", "json"
    )
    assert (run.exit_code, run.stderr) == (0, "")
    assert run.json["replicas"] == 21
    assert run.json["chosen"]["staffing"]["arrivals_per_s"] == pytest.approx(2000)
    assert run.json["chosen"]["staffing"]["spare_away"]["late"] <= 0.01
    assert len(run.json["curve"]) == 21
    assert run.json["plot"] is None


def test_the_page_shows_what_the_command_says() -> None:
    page = (Path(__file__).parents[3] / "docs" / "plan-capacity.md").read_text()
    shown = page.partition("```console\n$ hybridge fallback capacity ")[2].partition("```")[0]
    command, _, output = shown.replace("\\\n", " ").partition("\n")
    arguments = command.replace("--plot capacity.png", "").split()
    said = CliRunner().invoke(capacity, arguments, catch_exceptions=False).output
    assert said.startswith(output)


def test_what_it_cannot_reach_ends_with_its_code() -> None:
    run = hybridge(
        "fallback", "capacity", *FLAGS, "--offload", "0.2", "--target-late", "1e-9", "--format", "json"
    )
    assert run.exit_code == 10
    assert run.json["error"]["code"] == "budget-missed"
    assert "expected at most 1e-07%" in run.json["error"]["message"]


def test_for_people_it_says_what_accuracy_takes(fitted: Callable[..., Bundle], tmp_path: Path) -> None:
    path = fitted().save(tmp_path)
    text = _run("--bundle", path, "--replica-price", "0.2")
    assert "20.0% of all predictions, for an accuracy of 90.00%" in text
    assert "20.0% <" in text
    assert "for a million predictions" in text
    assert "60.0% of all predictions, for an accuracy of 96.00%" in _run(
        "--bundle", path, "--threshold", "0.9"
    )


def test_no_question_takes_no_replica_and_a_huge_fleet_is_counted_out(tmp_path: Path) -> None:
    assert _run("--offload", "0", "--plot", tmp_path / "none.PNG").startswith("0 replicas for 0 requests/s")
    huge = _run("--offload", "1", "--devices", "10000000", "--plot", tmp_path / "huge.png")
    assert " replicas for 333,333 requests/s at the peak, 100.0% of all predictions" in huge
    assert "e+" not in huge


def test_a_profile_gives_the_replicas_of_its_hours(tmp_path: Path) -> None:
    profile = tmp_path / "hours.csv"
    profile.write_text("hour,load\n" + "".join(f"{hour},{1 + hour % 12}\n" for hour in range(24)))
    assert "replicas over the hours of the profile" in _run("--offload", "0.2", "--profile", profile)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "either as --offload or by the curve of a --bundle"),
        (("--offload", "0.2", "--bundle", "b.edge"), "either as --offload or by the curve of a --bundle"),
        (("--offload", "0.2", "--threshold", "0.5"), "--threshold is a point on the curve"),
        (
            ("--offload", "0.2", "--peak-factor", "3", "--profile", "hours.csv"),
            "both say how high the peak is",
        ),
        (("--offload", "nan"), "share offloaded"),
        (("--offload", "1.01"), "share offloaded"),
        (("--offload", "0.2", "--devices", "0"), "devices of the traffic"),
        (("--offload", "0.2", "--service-ms", "90"), "no number of replicas helps"),
        (("--offload", "0.2", "--replica-price", "nan"), "price of a replica"),
        (("--offload", "0.2", "--service-ms", "0"), "a time that varies"),
        (("--offload", "0.2", "--network-ms", "100"), "time on the network"),
        (("--offload", "0.2", "--plot", "plot.gif"), "a name that ends in .png"),
        (("--bundle", "nothing.edge"), "nothing.edge"),
        (("--offload", "0.2", "--profile", "nothing.csv"), "nothing.csv"),
    ],
)
def test_bad_input_is_one_clear_error(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(HybridgeError, match=said):
        _run(*arguments)


def test_a_number_that_is_none_is_refused_by_its_flag() -> None:
    with pytest.raises(click.BadParameter, match="'many' is not a valid integer"):
        CliRunner().invoke(
            capacity, [*FLAGS, "--devices", "many"], standalone_mode=False, catch_exceptions=False
        )


@pytest.mark.parametrize(("kind", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_plot_is_a_picture_of_the_kind_that_its_name_says(
    kind: str, magic: bytes, tmp_path: Path
) -> None:
    path = tmp_path / f"plot.{kind}"
    _run("--offload", "0.2", "--plot", path)
    assert path.read_bytes().startswith(magic)


def test_shares_are_percentages_on_the_plot_also_between_powers_of_ten(tmp_path: Path) -> None:
    path = tmp_path / "few.svg"
    _run("--offload", "0.2", "--devices", "1000", "--plot", path)
    shown = path.read_text()
    # What a text says is a comment beside its outlines.
    assert "<!-- 0.5% -->" in shown
    assert "\\times" not in shown


def test_a_plot_is_the_same_every_time_and_replaces_nothing_unasked(tmp_path: Path) -> None:
    one, other = tmp_path / "one.svg", tmp_path / "other.svg"
    for path in (one, other):
        _run("--offload", "0", "--plot", path)
    assert one.read_bytes() == other.read_bytes()
    with pytest.raises(HybridgeError) as caught:
        _run("--offload", "0.2", "--plot", one)
    assert caught.value.code is ErrorCode.FILE_EXISTS
    _run("--offload", "0.2", "--plot", one, "--overwrite")
    assert one.read_bytes() != other.read_bytes()


def test_without_matplotlib_a_plot_names_the_extra_and_a_plan_goes_on() -> None:
    script = (
        "import sys\nsys.modules['matplotlib'] = None\nsys.argv[1:] = sys.argv[2:]\n"
        "from edge_runtime.command import main\nmain()"
    )
    command = [sys.executable, "-c", script, "-", "fallback", "capacity", *FLAGS, "--offload", "0.2"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    run = subprocess.run([*command, "--plot", "p.png"], capture_output=True, text=True, check=False)
    assert run.returncode == 9
    assert "pip install 'hybridge[plot]'" in run.stderr
