"""What the house promises: which room may import which, and what a device never loads."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("benchmarks", "cloud_fallback", "convert", "edge_runtime", "federated")
MAY_IMPORT = {
    "edge_runtime": set(),
    "cloud_fallback": {"edge_runtime"},
    "convert": {"edge_runtime"},
    "federated": {"edge_runtime", "convert"},
    "benchmarks": {"edge_runtime", "cloud_fallback", "convert", "federated"},
}
# What trains and what a device runs beside Flower's client: no `convert`, which brings TensorFlow.
DEVICE_SIDE = ("federated/trainer.py", "federated/client_app.py")
NOT_ON_A_DEVICE = (
    "tensorflow", "keras", "tf_keras", "flwr", "ray", "onnx", "onnxruntime", "grpc_health", "grpc_reflection",
    "matplotlib", "sklearn", "cv2", "rich", "pandas", "scipy", "aiohttp", "prometheus_client",
)  # fmt: skip


def _imported(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path} imports relatively"
            modules.add(node.module.partition(".")[0])
    return modules


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        others = _imported(path) & set(ROOMS) - {room}
        assert others <= MAY_IMPORT[room], f"{path.relative_to(ROOT)} imports {others - MAY_IMPORT[room]}"


@pytest.mark.parametrize("path", DEVICE_SIDE)
def test_the_device_side_of_a_federation_does_not_import_conversion(path: str) -> None:
    assert not _imported(ROOT / path) & {"convert", "tensorflow", "keras"}


def _loaded_after(statements: str) -> set[str]:
    script = f"{statements}\nimport sys\nprint('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_the_runtime_loads_nothing_of_weight() -> None:
    assert "numpy" not in _loaded_after("import edge_runtime")
    loaded = _loaded_after("from edge_runtime import *")
    assert {"edge_runtime.chain", "edge_runtime.bundle", "numpy"} <= loaded
    assert not loaded & {*NOT_ON_A_DEVICE, "grpc", "google.protobuf", "click", *ROOMS} - {"edge_runtime"}


def test_no_module_of_the_runtime_loads_more_than_the_base_install() -> None:
    import edge_runtime

    names = [module.name for module in pkgutil.walk_packages(edge_runtime.__path__, "edge_runtime.")]
    assert len(names) > 20
    loaded = _loaded_after("\n".join(f"import {name}" for name in names if not name.endswith("__main__")))
    assert not loaded & {*NOT_ON_A_DEVICE, "grpc", *ROOMS} - {"edge_runtime"}


def test_asking_the_cloud_loads_only_the_base_install() -> None:
    loaded = _loaded_after(
        "from cloud_fallback import CloudFallback\nCloudFallback('127.0.0.1:1', model='m').close()"
    )
    assert "grpc" in loaded
    # gRPC itself imports these two where they are installed.
    assert not loaded & set(NOT_ON_A_DEVICE) - {"grpc_health", "grpc_reflection"}


@pytest.mark.parametrize("room", ROOMS)
def test_every_package_is_typed_and_its_all_is_true(room: str) -> None:
    assert (ROOT / room / "py.typed").is_file()
    module = importlib.import_module(room)
    assert module.__doc__
    assert len(module.__all__) > 0
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_every_verb_loads_without_the_heavy_libraries() -> None:
    verbs = {point.name: point.value for point in entry_points(group="hybridge.commands")}
    assert set(verbs) >= {"convert", "inspect", "run", "serve", "federated", "bench", "demo"}
    for value in verbs.values():
        module, _, attribute = value.partition(":")
        loaded = _loaded_after(f"from {module} import {attribute}")
        assert not loaded & {*NOT_ON_A_DEVICE, "grpc"}, value


def _options(command: click.Command, path: str) -> list[tuple[str, click.Option]]:
    found = [(path, parameter) for parameter in command.params if isinstance(parameter, click.Option)]
    if isinstance(command, click.Group):
        for name, verb in command.commands.items():
            found += _options(verb, f"{path} {name}")
    return found


def test_every_flag_has_its_name_in_the_environment_and_in_files() -> None:
    for point in entry_points(group="hybridge.commands"):
        options = _options(point.load(), point.name)
        assert options
        for path, option in options:
            assert f"--{option.name}".replace("_", "-") in option.opts, f"{path} {option.opts}"


def test_every_verb_has_both_formats() -> None:
    for point in entry_points(group="hybridge.commands"):
        verb = point.load()
        for leaf in verb.commands.values() if isinstance(verb, click.Group) else (verb,):
            assert any("--format" in parameter.opts for parameter in leaf.params), leaf.name


def test_pinned_versions_name_no_host() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( ;.*)?", pin), pin
