"""Packages that add operators, fallbacks and verbs: real distributions on the path, found by their entry points."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import Bundle, Chain
from edge_runtime.tensor_spec import Array
from tests.command import Result, hybridge

_ENTRY_POINTS = """
[hybridge.operators]
halve = plugged:halve
broken = plugged_broken:broken

[hybridge.fallbacks]
echo = plugged:Echo

[hybridge.commands]
greet = plugged:greet
mute = plugged_broken:mute
"""

_MODULE = """
import click
from edge_runtime import Answer, Reason, Source, operator

@operator("halve")
def halve(array, *, times: int = 1):
    return array / 2**times

class Echo:
    def __init__(self, url, **options):
        self.url = url
    def resolve(self, query):
        return Answer(dict(query.outputs), Source.CACHE, Reason.UNSURE, self.url)
    def close(self):
        pass

@click.command()
def greet():
    click.echo("good day")
"""


@pytest.fixture
def plugged(tmp_path: Path) -> Callable[..., Result]:
    """Runs the command with the package on its path."""
    folder = tmp_path / "packages"
    information = folder / "plugged-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(_ENTRY_POINTS)
    (folder / "plugged.py").write_text(_MODULE)
    (folder / "plugged_broken.py").write_text("import no_such_library\n")

    def run(*arguments: str | Path) -> Result:
        return hybridge(*arguments, env={"PYTHONPATH": str(folder)}, cwd=tmp_path)

    return run


@pytest.fixture
def chain(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a chain of one operator and its input."""
    np.save(tmp_path / "x.npy", np.array([8.0, 4.0], np.float32))

    def write(operator: str) -> Path:
        path = tmp_path / "chain.toml"
        path.write_text(
            f"[[stages]]\nname = 'only'\noperator = '{operator}'\nparams = {{ times = 2 }}\n"
            "inputs = { array = 'x' }\noutputs = { array = 'y' }\n"
        )
        return path

    return write


def test_an_operator_of_another_package_is_a_stage(
    plugged: Callable[..., Result], chain: Callable[[str], Path]
) -> None:
    result = plugged("run", chain("halve"), "--input", "x=x.npy", "--format", "json")
    assert result.json["outputs"]["y"] == [2.0, 1.0]


def test_an_unknown_operator_lists_those_of_other_packages_without_loading_them(
    plugged: Callable[..., Result], chain: Callable[[str], Path]
) -> None:
    result = plugged("run", chain("third"), "--input", "x=x.npy")
    assert "[chain-invalid]" in result.stderr
    assert "halve" in result.stderr
    assert "broken" in result.stderr
    assert "no_such_library" not in result.stderr


def test_a_plug_in_that_cannot_be_loaded_is_one_clear_error(
    plugged: Callable[..., Result], chain: Callable[[str], Path]
) -> None:
    result = plugged("run", chain("broken"), "--input", "x=x.npy")
    assert result.exit_code == 2
    assert "no_such_library" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_fallback_of_another_package_is_found_by_its_scheme(
    plugged: Callable[..., Result], make_bundle: Callable[..., Bundle], image: Array, tmp_path: Path
) -> None:
    path = make_bundle(threshold=1.0).save(tmp_path)
    np.save(tmp_path / "image.npy", image)
    result = plugged("run", path, "--input", "image.npy", "--fallback", "echo://here", "--format", "json")
    assert (result.json["source"], result.json["detail"]) == ("cache", "echo://here")
    expected = Chain.from_bundle(path).run(image)
    np.testing.assert_allclose(result.json["outputs"]["logits"], expected.outputs["logits"], rtol=1e-6)


def test_a_verb_of_another_package_is_listed_and_runs_and_a_broken_one_harms_no_other(
    plugged: Callable[..., Result],
) -> None:
    shown = plugged("--help").stdout
    assert "greet" in shown
    assert "mute" in shown
    assert "inspect" in shown
    assert plugged("greet").stdout == "good day\n"
    failed = plugged("mute")
    assert failed.exit_code != 0
    assert "no_such_library" in failed.stderr
    assert "Traceback" not in failed.stderr
