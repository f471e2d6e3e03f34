"""`hybridge convert`, as a person types it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import Bundle
from edge_runtime.command import main
from tests.convert.conftest import Digits

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `hybridge convert` in an empty folder; returns the exit code and both outputs."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run_convert(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hybridge", "convert", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run_convert


def here() -> list[str]:
    return sorted(path.name for path in Path.cwd().iterdir())


@pytest.mark.tensorflow
def test_json_has_every_figure_and_the_bundle_is_the_one_it_names(run: Run, digits: Digits) -> None:
    Path("labels.txt").write_text("zero\none\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n")
    code, out, err = run(
        *(
            digits.file,
            "--recipe",
            "int8",
            "--representative",
            digits.calibration,
            "--eval",
            digits.evaluation,
        ),
        *("--labels", "labels.txt", "--version", "1.2", "--format", "json"),
    )
    assert code == 0
    result = json.loads(out)
    bundle = Bundle.open("digits-1.2.edge")
    assert result["output"] == "digits-1.2.edge"
    assert result["digest"] == bundle.digest
    assert result["size_bytes"] == len(bundle.model_content)
    assert result["size_bytes"] < result["source_size_bytes"]
    assert result["accuracy"]["source"] - result["accuracy"]["converted"] == pytest.approx(result["drop"])
    assert result["drop"] < 0.01
    assert result["parity"]["data"] == "user"
    assert "CONV_2D" in result["operators"]
    assert result["coverage"]["left_float"] == {}
    assert bundle.manifest.labels[7] == "seven"
    assert err.splitlines()[0] == "loading the source model"


@pytest.mark.heavy
@pytest.mark.tensorflow
def test_the_same_file_gives_the_same_bytes_in_another_process_and_only_progress_on_standard_error(
    run: Run, digits: Digits
) -> None:
    options = ("--recipe", "int8", "--representative", str(digits.calibration), "--overwrite", "-o")
    assert run(digits.file, *options, "first.edge")[0] == 0
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [
        sys.executable,
        "-c",
        "from edge_runtime.command import main; main()",
        "convert",
        str(digits.file),
    ]
    other = subprocess.run(
        [*command, *options, "second.edge"], capture_output=True, text=True, env=environment
    )
    assert other.returncode == 0, other.stderr
    assert other.stderr.splitlines() == [
        "loading the source model",
        "reading data",
        "converting with recipe int8",
        "calibrating on 200 samples",
        "comparing it with the source",
    ]
    first, second = (
        hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in ("first.edge", "second.edge")
    )
    assert first == second


@pytest.mark.tensorflow
def test_raw_images_are_prepared_as_the_file_says(run: Run, digits: Digits) -> None:
    Path("steps.toml").write_text("""
        [image]
        shape = [8, 8]
        dtype = "uint8"
        steps = [
            { operator = "scale", params = { factor = 0.0625 } },
            { operator = "reshape", params = { shape = [1, 8, 8, 1] } },
        ]
    """)
    np.savez("raw.npz", image=(digits.test[..., 0] * 16).astype(np.uint8), label=digits.test_labels)
    code, out, _ = run(
        *(
            digits.file,
            "--preprocessing",
            "steps.toml",
            "--eval",
            "raw.npz",
            "--format",
            "json",
            "--output",
            "raw.edge",
        )
    )
    assert code == 0
    assert json.loads(out)["accuracy"]["converted"] > 0.9
    assert Bundle.open("raw.edge").manifest.preprocessing[0].takes.dtype == "uint8"


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((2, 8, 8, 1), np.float32)}, "arrays named x"),
        ({"image": np.zeros((2, 8, 8), np.float32)}, "shape (2, 8, 8)"),
        ({"image": np.full((2, 8, 8, 1), np.nan, np.float32)}, "not finite"),
        ({"image": np.zeros((0, 8, 8, 1), np.float32)}, "no samples"),
    ],
)
def test_data_that_does_not_fit_writes_nothing(
    run: Run, digits: Digits, tmp_path: Path, arrays: dict[str, Any], said: str
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    code, out, err = run(digits.file, "--recipe", "int8", "--representative", tmp_path / "bad.npz")
    assert (code, out) == (2, "")
    assert said in err
    assert "[data-invalid]" in err
    assert here() == []


@pytest.mark.tensorflow
def test_int8_without_data_and_parity_out_of_bounds_write_nothing(run: Run, digits: Digits) -> None:
    code, out, err = run(digits.file, "--recipe", "int8", "--format", "json")
    assert code == 2
    assert json.loads(out)["error"]["code"] == "data-invalid"
    assert "--representative" in err
    code, _, err = run(digits.file, "--recipe", "dynamic-int8", "--min-snr-db", "120")
    assert code == 10
    assert "[parity-failed]" in err
    assert here() == []


@pytest.mark.parametrize(
    ("content", "arguments", "exit_code", "said"),
    [
        (None, (), 3, "[file-not-found]"),
        (b"no model", (), 2, "[source-invalid]"),
        (b"PK\x03\x04" + bytes(500), (), 2, "[source-invalid]"),
        (b"no model", ("--recipe", "int9"), 2, "[recipe-unknown]"),
        (b"no model", ("--output", "none/model.edge"), 6, "[file-unwritable]"),
        (b"no model", ("--labels", "none.txt"), 3, "[file-not-found]"),
        (b"no model", ("--batch-size", "0"), 2, "[usage]"),
        (b"no model", ("--name", "a/b"), 2, "[usage]"),
        (b"no model", ("--version", " "), 2, "[usage]"),
    ],
)
def test_what_is_wrong_before_any_work_is_said_at_once_and_writes_nothing(
    run: Run, tmp_path: Path, content: bytes | None, arguments: tuple[str, ...], exit_code: int, said: str
) -> None:
    if content is not None:
        (tmp_path / "model.keras").write_bytes(content)
    code, out, err = run(tmp_path / "model.keras", *arguments)
    assert (code, out) == (exit_code, "")
    assert said in err
    assert here() == []


def test_an_output_that_exists_is_kept_and_refused_before_the_source_is_read(run: Run) -> None:
    Path("model-1.edge").write_text("mine")
    code, _, err = run("model.keras")
    assert code == 4
    assert "[file-exists]" in err
    assert Path("model-1.edge").read_text() == "mine"


@pytest.mark.parametrize(
    "text", ["[image", "[image]\nshape = [8]\n", "[image]\nshape=[8]\ndtype='u'\nsteps=[]\nx=1"]
)
def test_preprocessing_that_is_no_toml_of_steps_is_refused(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "steps.toml").write_text(text)
    code, _, err = run("model.keras", "--preprocessing", tmp_path / "steps.toml")
    assert code == 2
    assert "[chain-invalid]" in err


def test_the_package_imports_without_tensorflow() -> None:
    check = (
        "import sys, convert; sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'onnx')))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.tensorflow
def test_a_missed_budget_writes_the_report_but_no_bundle(run: Run, digits: Digits) -> None:
    data = ("--representative", digits.calibration, "--eval", digits.evaluation)
    code, out, _ = run(
        *(digits.file, "--recipe", "int8", *data, "--max-size", "2KB"),
        *("--report", "page.html", "--format", "json"),
    )
    assert code == 10
    error = json.loads(out)["error"]
    assert error["code"] == "budget-missed"
    assert "(at most 2,000)" in error["message"]
    assert here() == ["page.html"]
    page = Path("page.html").read_text()
    assert "--max-size 2KB" in page  # the command that repeats it
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.tensorflow
def test_a_budget_that_is_kept_gives_a_bundle_and_the_same_command_gives_it_again(
    run: Run, digits: Digits
) -> None:
    Path("recipe.toml").write_text(
        """
        name = "head-in-float"
        [quantization]
        precision = "int8"
        [[quantization.rules]]
        layers = "probabilities"
        operators = ["FULLY_CONNECTED"]
        precision = "float32"
        """
    )
    given = (
        *(digits.file, "--recipe", "recipe.toml", "--representative", digits.calibration),
        *("--eval", digits.evaluation, "--max-drop", "0.02", "--max-size", "20KB", "--min-agreement", "0.9"),
        *("--slice", "label", "--format", "json"),
    )
    code, out, _ = run(*given, "-o", "first.edge")
    assert code == 0
    result = json.loads(out)
    assert result["recipe"] == "head-in-float"
    assert result["coverage"]["left_float"] == {"FULLY_CONNECTED": 1}
    assert len(result["accuracy"]["slices"]) == 10
    assert result["drop"] <= 0.02
    code, out, _ = run(*given, "-o", "second.edge", "--recipe", "first.edge")
    assert code == 0
    assert Path("first.edge").read_bytes() == Path("second.edge").read_bytes()


@pytest.mark.tensorflow
def test_layers_are_ranked_and_no_bundle_is_written(run: Run, digits: Digits) -> None:
    code, out, _ = run(
        *(digits.file, "--explain", "--representative", digits.calibration, "--report", "why.html"),
        *("--format", "json"),
    )
    assert code == 0
    explanation = json.loads(out)
    ratios = [each["snr_db"] for each in explanation["layers"] if each["snr_db"] is not None]
    assert ratios == sorted(ratios)
    assert {"CONV_2D", "FULLY_CONNECTED"} <= {each["operator"] for each in explanation["layers"]}
    assert here() == ["why.html"]


@pytest.mark.tensorflow
@pytest.mark.slow
def test_a_search_writes_the_smallest_model_within_the_budget_and_remembers_its_trials(
    run: Run, digits: Digits, tmp_path: Path
) -> None:
    given = (
        *(digits.file, "--search", "--representative", digits.calibration, "--eval", digits.evaluation),
        # Without time for training: that is tried where it is cheap to test.
        *("--max-drop", "0.01", "--search-minutes", "0.3", "--cache", tmp_path / "cache"),
        *("--report", "search.html", "--overwrite", "--format", "json"),
    )
    code, out, err = run(*given)
    assert code == 0, err
    found = json.loads(out)
    trials = found["search"]["trials"]
    fitting = [each["size_bytes"] for each in trials if each["drop"] is not None and each["drop"] <= 0.01]
    assert found["size_bytes"] <= min(fitting) * 1.01
    assert all(each["latency_ms"] for each in trials if each["size_bytes"])
    assert Bundle.open(found["output"]).digest == found["digest"]
    assert "search.html" in here()
    code, out, _ = run(*given)
    assert code == 0
    again = {each["name"]: each for each in json.loads(out)["search"]["trials"]}
    # With the time that the first saved, the second may train where the first could not.
    assert all(again[each["name"]]["cached"] for each in trials if each["size_bytes"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--search", "--explain"), "one at a time"),
        (("--search", "--recipe", "int8"), "leave --recipe out"),
        (("--recipe", "int8", "--sparsity", "0.5"), "which has no use for it"),
        (("--recipe", "cluster", "--sparsity", "0.5"), "which has no use for it"),
        (("--max-size", "12 parsecs"), "a number with B, KB"),
        (("--recipe", "int8", "--method", "psychic"), "psychic"),
        (("--input", "image"), "image"),
    ],
)
def test_flags_that_make_no_sense_are_refused_before_anything_is_read(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "model.keras").write_bytes(b"no model")
    code, out, err = run(tmp_path / "model.keras", "--representative", "none.npz", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert here() == []


@pytest.mark.tensorflow
def test_a_disk_that_is_full_is_named_and_leaves_no_file(run: Run, digits: Digits) -> None:
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "from edge_runtime.command import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, "convert", str(digits.file), "-o", "full.edge"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 6
    assert "[file-unwritable]" in ended.stderr
    assert here() == []
