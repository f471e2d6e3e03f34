from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import Bundle, Chain, ErrorCode, Kind, __version__
from edge_runtime.console import EXIT_CODES
from edge_runtime.tensor_spec import Array
from tests.command import hybridge

MakeBundle = Callable[..., Bundle]


@pytest.fixture
def folder(make_bundle: MakeBundle, image: Array, tmp_path: Path) -> Path:
    make_bundle().save(tmp_path / "m.edge")
    np.save(tmp_path / "image.npy", image)
    return tmp_path


def test_every_kind_of_error_has_an_exit_code_of_its_own() -> None:
    assert set(EXIT_CODES) == set(Kind)
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)
    assert 0 not in EXIT_CODES.values()
    assert all(code.kind in EXIT_CODES for code in ErrorCode)


def test_version_and_help_say_what_there_is() -> None:
    assert hybridge("--version").stdout.strip() == f"hybridge {__version__}"
    shown = hybridge("--help").stdout
    for verb in ("convert", "inspect", "run", "serve", "federated", "bench", "demo"):
        assert verb in shown
    # click's own marks are not for people.
    assert "\\b" not in shown


def test_inspect_shows_a_bundle_to_people_and_programs(folder: Path) -> None:
    path = folder / "m.edge"
    shown = hybridge("inspect", path)
    assert shown.exit_code == 0
    for words in ("digits 1.0", Bundle.open(path).digest, "logits", "float32 [1, 8, 8, 1]", "class-0"):
        assert words in shown.stdout
    data = hybridge("inspect", path, "--format", "json").json
    assert data["verified"] is True
    assert data["size_bytes"] == path.stat().st_size
    (taken,) = data["manifest"]["signature"]["inputs"]
    assert (taken["name"], taken["shape"], taken["dtype"]) == ("image", [1, 8, 8, 1], "float32")


def test_inspect_shows_a_bare_model(models: Path) -> None:
    data = hybridge("inspect", models / "classifier-int8.tflite", "--format", "json").json
    signature = data["signatures"]["serving_default"]
    assert signature["inputs"][0]["dtype"] == "int8"
    assert signature["inputs"][0]["quantization"]["scale"]
    assert data["operators"]["CONV_2D"] == 1
    assert {each["operator"]: each["count"] for each in data["placements"]} == data["operators"]
    assert "CONV_2D x1" in hybridge("inspect", models / "classifier-int8.tflite").stdout


@pytest.mark.usefixtures("accelerated")
def test_what_runs_on_slow_kernels_is_named(models: Path) -> None:
    said = hybridge("inspect", models / "cumulative.tflite").stdout
    assert "accelerated on this machine: 2 of 3; not CUMSUM x1" in said


def test_run_predicts_as_the_library_does(folder: Path, image: Array) -> None:
    expected = Chain.from_bundle(folder / "m.edge").run(image)
    for given in (folder / "image.npy", f"image={folder / 'image.npy'}"):
        data = hybridge("run", folder / "m.edge", "--input", given, "--format", "json").json
        assert data["label"] == expected.label
        assert data["confidence"] == pytest.approx(expected.confidence)
        np.testing.assert_allclose(data["outputs"]["logits"], expected.outputs["logits"], rtol=1e-6)
        assert data["stages"][0]["stage"] == "digits"
    assert (
        f"{expected.label}, confidence"
        in hybridge("run", folder / "m.edge", "--input", folder / "image.npy").stdout
    )


def test_run_takes_several_inputs_from_an_archive(models: Path, tmp_path: Path) -> None:
    left, right = np.full((2, 3), 2, np.float32), np.ones((2, 3), np.float32)
    np.savez(tmp_path / "both.npz", left=left, right=right)
    data = hybridge(
        "run", models / "arithmetic.tflite", "--input", tmp_path / "both.npz", "--format", "json"
    ).json
    np.testing.assert_array_equal(data["outputs"]["difference"], left - right)


def test_run_takes_a_photograph_where_the_bundle_takes_pixels(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    cv2 = pytest.importorskip("cv2", reason="decoding images needs the 'vision' extra")
    make_bundle(raw=True).save(tmp_path / "raw.edge")
    pixels = np.random.default_rng(0).integers(0, 17, (8, 8)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "digit.png"), pixels)
    data = hybridge("run", tmp_path / "raw.edge", "--input", tmp_path / "digit.png", "--format", "json").json
    expected = Chain.from_bundle(tmp_path / "raw.edge").run(pixels[np.newaxis, :, :, np.newaxis])
    np.testing.assert_allclose(data["outputs"]["logits"], expected.outputs["logits"], rtol=1e-6)


def test_a_chain_that_decodes_takes_the_file_itself(make_bundle: MakeBundle, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="decoding images needs the 'vision' extra")
    make_bundle(raw=True).save(tmp_path / "raw.edge")
    (tmp_path / "names.txt").write_text("\n".join(f"digit {index}" for index in range(10)))
    cv2.imwrite(str(tmp_path / "digit.png"), np.full((16, 16), 9, np.uint8))
    (tmp_path / "chain.toml").write_text(
        "[[stages]]\nname = 'decode'\noperator = 'decode'\nparams = { channels = 1 }\n"
        "[[stages]]\nname = 'resize'\noperator = 'resize'\nparams = { height = 8, width = 8 }\n"
        "outputs = { image = 'small' }\n"
        "[[stages]]\nname = 'batch'\noperator = 'expand-dims'\ninputs = { array = 'small' }\n"
        "outputs = { array = 'one' }\n"
        "[[stages]]\nname = 'read'\nmodel = 'raw.edge'\nlabels = 'names.txt'\ninputs = { image = 'one' }\n"
    )
    result = hybridge("run", tmp_path / "chain.toml", "--input", tmp_path / "digit.png", "--format", "json")
    assert result.exit_code == 0, result.stderr
    expected = Chain.from_bundle(tmp_path / "raw.edge").run(np.full((1, 8, 8, 1), 9, np.uint8))
    np.testing.assert_allclose(result.json["outputs"]["logits"], expected.outputs["logits"], rtol=1e-6)
    assert result.json["label"] == f"digit {expected.outputs['logits'].argmax()}"


def test_run_without_a_cloud_answers_from_the_device_and_says_why(folder: Path) -> None:
    result = hybridge(
        "run", folder / "m.edge", "--input", folder / "image.npy", "--fallback", "grpc://127.0.0.1:9/none",
        "--threshold", "1.0", "--deadline-ms", "300", "--format", "json",
    )  # fmt: skip
    assert result.exit_code == 0
    assert (result.json["source"], result.json["reason"]) == ("device", "cloud-unavailable")
    assert "127.0.0.1:9" in result.json["detail"]


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (("inspect", "absent.edge"), "file-not-found", 3),
        (("inspect", "short.edge"), "bundle-damaged", 5),
        (("inspect", "m.edge", "--digest", "0" * 64), "bundle-digest", 5),
        (("inspect", "text.tflite"), "model-invalid", 2),
        (("run", "m.edge", "--input", "absent.npy"), "file-not-found", 3),
        (("run", "m.edge", "--input", "text.tflite"), "input-invalid", 2),
        (("run", "m.edge", "--input", "flat.npy"), "input-shape", 2),
        (("run", "m.edge", "--input", "double.npy"), "input-dtype", 2),
        (("run", "m.edge", "--input", "photo=image.npy"), "input-missing", 2),
        (("run", "m.edge", "--input", "image.npy", "--fallback", "carrier-pigeon"), "fallback-unknown", 2),
        (("run", "m.edge", "--input", "image.npy", "--deadline-ms", "5"), "usage", 2),
        (("run", "m.edge", "--input", "image.npy", "--num-threads", "0"), "usage", 2),
        (("run", "bad.toml", "--input", "image.npy"), "chain-invalid", 2),
        (("bench", "latency", "short.edge"), "bundle-damaged", 5),
        (("bench", "latency", "m.edge", "--save", "m.edge"), "file-exists", 4),
        (("levitate",), "usage", 2),
        (("inspect", "m.edge", "--frmat", "json"), "usage", 2),
    ],
)
def test_every_failure_is_one_line_with_its_code_in_both_formats(
    folder: Path, image: Array, arguments: tuple[str, ...], code: str, exit_code: int
) -> None:
    content = (folder / "m.edge").read_bytes()
    (folder / "short.edge").write_bytes(content[: len(content) // 2])
    (folder / "text.tflite").write_text("not a model")
    (folder / "bad.toml").write_text("[[stages]]\nname = 'a'\noperator = 'teleport'\n")
    np.save(folder / "flat.npy", image.ravel())
    np.save(folder / "double.npy", image.astype(np.float64))
    before = sorted(folder.iterdir())
    result = hybridge(*arguments, cwd=folder)
    assert result.exit_code == exit_code
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("hybridge: ")]
    assert len(lines) == 1
    assert lines[0].endswith(f"[{code}]")
    assert "Traceback" not in result.stderr
    if arguments[0] != "levitate" and "--frmat" not in arguments:
        as_json = hybridge(*arguments, "--format", "json", cwd=folder)
        assert as_json.exit_code == exit_code
        assert as_json.json["error"]["code"] == code
    assert sorted(folder.iterdir()) == before
    assert (folder / "m.edge").read_bytes() == content


def test_flags_come_before_the_environment_and_that_before_the_file(folder: Path) -> None:
    (folder / "hybridge.toml").write_text("[inspect]\nformat = 'json'\n")

    def is_json(*arguments: str, env: dict[str, str] | None = None) -> bool:
        return hybridge(*arguments, cwd=folder, env=env).stdout.startswith("{")

    assert not is_json("inspect", "m.edge")
    assert is_json("--config", "hybridge.toml", "inspect", "m.edge")
    assert is_json("inspect", "m.edge", env={"HYBRIDGE_CONFIG": "hybridge.toml"})
    environment = {"HYBRIDGE_INSPECT_FORMAT": "text"}
    assert not is_json("--config", "hybridge.toml", "inspect", "m.edge", env=environment)
    assert is_json("--config", "hybridge.toml", "inspect", "m.edge", "--format", "json", env=environment)


def test_the_shell_completes_verbs_and_flags() -> None:
    def completed(words: str, position: int) -> str:
        return hybridge(
            env={"_HYBRIDGE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
        ).stdout

    assert "plain,inspect" in completed("hybridge ins", 1)
    assert "plain,--digest" in completed("hybridge inspect --di", 2)


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_runtime", "inspect", str(folder / "m.edge"), "--format", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=60)
    assert b"Traceback" not in errors


def test_a_missing_extra_names_the_line_that_installs_it(tmp_path: Path) -> None:
    # A module of that name that cannot be imported stands for one that is not installed.
    (tmp_path / "cv2.py").write_text("raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')\n")
    (tmp_path / "photo.jpg").write_bytes(b"any")
    (tmp_path / "c.toml").write_text("[[stages]]\nname='d'\noperator='decode'\ninputs={content='bytes'}\n")
    result = hybridge(
        "run", "c.toml", "--input", "bytes=photo.jpg", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}
    )
    assert result.exit_code == EXIT_CODES[Kind.MISSING_DEPENDENCY]
    assert "pip install 'hybridge[vision]'" in result.stderr
