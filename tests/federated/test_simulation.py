from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from convert import ParityBounds, find_recipe
from edge_runtime import Bundle, ErrorCode, HybridgeError, Kind, Model
from edge_runtime.console import EXIT_CODES
from federated import Plan, RoundReport, Samples, Trainer, make_trainable, simulate
from federated.command import federated
from federated.digits import digits_data, digits_model
from federated.fleet import run_fleet
from federated.trainer import Weights
from federated.work_folder import WorkFolder
from tests.command import hybridge

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder for temporary files, with a path short enough for Ray; empty again at the end."""
    tmp_path_factory.getbasetemp()  # pytest's own folder is not to be made in this one
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as path:
        monkeypatch.setenv("TMPDIR", path)
        monkeypatch.setattr(tempfile, "tempdir", path)
        yield Path(path)
        # TensorFlow keeps the code that it generates until its process ends.
        assert [file for file in Path(path).iterdir() if not file.name.startswith("__autograph")] == []
        assert _processes(path) == []


def _processes(word: str) -> list[int]:
    """Running processes with `word` in their environment, other than this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if word.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _maps_tensorflow(pid: int) -> bool:
    try:
        return "tensorflow/" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def _averaged(trainable: bytes, clients: list[Samples], plan: Plan) -> Weights:
    """The same run without Flower: each client from the same start, then the mean weighted by samples."""
    trainer = Trainer(trainable)
    weights = trainer.get_weights()
    total = sum(len(samples) for samples in clients)
    for number in range(1, plan.rounds + 1):
        sums: dict[str, Any] = {}
        for client, samples in enumerate(clients):
            trainer.set_weights(weights)
            rng = np.random.default_rng([plan.seed, client, number])
            for _ in range(plan.local_epochs):
                trainer.train_epoch(samples.x, samples.y, learning_rate=plan.learning_rate, rng=rng)
            for name, array in trainer.get_weights().items():
                sums[name] = sums.get(name, 0) + array * (len(samples) / total)
        weights = sums
    return weights


@pytest.mark.slow
def test_a_simulated_fleet_gives_the_weighted_mean_to_the_last_bit_without_tensorflow(
    temporary: Path,
) -> None:
    data = digits_data()
    samples = Samples(data["image"][:400], data["label"][:400])
    held_back = Samples(data["image"][400:600], data["label"][400:600])
    # Of different sizes, and not whole batches: 61, 122 and 217.
    clients = [samples[slice(0, 61)], samples[slice(61, 183)], samples[slice(183, 400)]]
    plan = Plan(clients=3, rounds=2, local_epochs=2, learning_rate=0.1, seed=5)
    trainable = make_trainable(digits_model(seed=5))
    history: list[RoundReport] = []
    processes: set[int] = set()

    def on_round(report: RoundReport) -> None:
        history.append(report)
        processes.update(_processes(str(temporary)))
        assert not any(_maps_tensorflow(pid) for pid in processes)

    with WorkFolder.temporary() as folder:
        folder.write(plan, trainable, held_back, clients)
        weights = run_fleet(folder, on_round=on_round)
    assert len(processes) > 2  # the engine, and Ray's
    expected = _averaged(trainable, clients, plan)
    assert {name: array.tobytes() for name, array in weights.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }
    assert [report.round for report in history] == [0, 1, 2]
    judge = Trainer(trainable)
    judge.set_weights(weights)
    result = judge.evaluate(held_back.x, held_back.y)
    assert (history[-1].loss, history[-1].accuracy) == (result.loss, result.accuracy)
    assert history[-1].loss < history[0].loss


@pytest.mark.slow
def test_a_client_that_fails_fails_the_run_with_its_reason(
    temporary: Path, trainable: bytes, samples: Samples
) -> None:
    with WorkFolder.temporary() as folder:
        folder.write(Plan(clients=2, rounds=3), trainable, samples, [samples, samples])
        (folder.path / "client-1.npz").write_bytes(b"rubbish")
        with pytest.raises(HybridgeError) as caught:
            run_fleet(folder, on_round=lambda _: None)
    assert caught.value.code is ErrorCode.FEDERATION_FAILED
    assert "round 1: received 1 answers" in caught.value.message
    assert "client-1.npz" in caught.value.message


@pytest.mark.slow
def test_ten_clients_learn_digits_from_files_by_one_command(temporary: Path, tmp_path: Path) -> None:
    output = tmp_path / "digits.edge"
    home = tmp_path / "home"
    home.mkdir()
    # The example, by way of files: what a user's own model and data do.
    digits_model().save(tmp_path / "digits.keras")
    np.savez(tmp_path / "digits.npz", allow_pickle=False, **digits_data())
    files = (tmp_path / "digits.keras", "--data", tmp_path / "digits.npz")
    run = hybridge("federated", "simulate", *files, "-o", output, "--format", "json", env={"HOME": str(home)})
    assert run.exit_code == 0, run.stderr
    report = run.json
    assert report["clients"] == 10
    assert [each["round"] for each in report["history"]] == [0, 1, 2, 3, 4, 5]
    accuracy = report["accuracy"]
    assert accuracy["before"] < 0.3
    assert accuracy["after"] == report["history"][-1]["accuracy"] > 0.88
    assert accuracy["bundle"] > accuracy["after"] - 0.03
    assert "round 5: loss" in run.stderr
    bundle = Bundle.open(output, digest=report["digest"])
    assert report["bundle_bytes"] == output.stat().st_size
    assert bundle.manifest.metrics.accuracy is not None
    assert bundle.manifest.metrics.accuracy.converted == accuracy["bundle"]
    data = digits_data()
    model = Model(bundle)
    hits = [
        model.run(image[np.newaxis])["probabilities"].argmax() == label
        for image, label in zip(data["image"], data["label"], strict=True)
    ]
    assert np.mean(hits) > 0.88
    # Keras writes its settings; Flower and Ray write nothing.
    assert {path.name for path in home.iterdir()} <= {".keras", ".cache", ".config"}


@pytest.mark.heavy
@pytest.mark.slow
def test_what_was_trained_is_kept_when_its_conversion_fails(
    monkeypatch: pytest.MonkeyPatch, temporary: Path, tmp_path: Path
) -> None:
    # Tighter than any int8 can be, so that the real check refuses a real conversion.
    strict = replace(find_recipe("int8"), bounds=ParityBounds(min_snr_db=200.0))
    monkeypatch.setattr("convert.find_recipe", lambda name: strict if name == "int8" else find_recipe(name))
    output = tmp_path / "kept.edge"
    result = CliRunner().invoke(
        federated, ["simulate", "--clients", "2", "--rounds", "2", "-o", str(output), "--format", "json"]
    )
    assert result.exit_code == EXIT_CODES[Kind.CHECK_FAILED]
    report = json.loads(result.stdout)
    assert (report["recipe"], report["failure"]["code"]) == ("float32", "parity-failed")
    assert report["accuracy"]["bundle"] == pytest.approx(report["accuracy"]["after"], abs=0.01)
    lineage = Bundle.open(output).manifest.lineage
    assert lineage is not None
    assert lineage.recipe == "float32"


@pytest.mark.slow
def test_an_interrupt_leaves_no_process_and_no_file(
    temporary: Path, trainable: bytes, samples: Samples
) -> None:
    def interrupt(report: RoundReport) -> None:
        if report.round == 1:
            assert len(_processes(str(temporary))) > 2
            os.kill(os.getpid(), signal.SIGINT)

    with WorkFolder.temporary() as folder:
        folder.write(Plan(clients=2, rounds=1000), trainable, samples, [samples, samples])
        with pytest.raises(KeyboardInterrupt):
            run_fleet(folder, on_round=interrupt)


def test_an_engine_whose_starter_is_gone_ends_and_removes_its_folder(
    temporary: Path, trainable: bytes, samples: Samples
) -> None:
    folder = WorkFolder(Path(tempfile.mkdtemp(prefix="federated-")))
    folder.write(Plan(clients=2, rounds=1000), trainable, samples, [samples, samples])
    engine = subprocess.Popen(
        [sys.executable, "-m", "federated.engine", str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(1)
    engine.communicate(timeout=30)
    assert engine.returncode == -signal.SIGKILL
    assert not folder.path.exists()


def _small(count: int, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 6)).astype(np.float32)
    return {"x": x, "label": rng.integers(0, 3, count)} | changes


@pytest.mark.parametrize(
    ("data", "settings", "code", "reason"),
    [
        (_small(40, label=np.full(40, 3)), {}, ErrorCode.DATA_INVALID, "labels up to 3"),
        (_small(40, label=np.full(40, -1)), {}, ErrorCode.DATA_INVALID, "label"),
        ({"x": _small(40)["x"]}, {}, ErrorCode.DATA_INVALID, "no 'label'"),
        ({"image": _small(40)["x"], "label": _small(40)["label"]}, {}, ErrorCode.DATA_INVALID, "image"),
        (_small(12), {"clients": 10}, ErrorCode.DATA_INVALID, "9 samples"),
        (_small(2), {"clients": 1}, ErrorCode.DATA_INVALID, "2 samples"),
        (_small(40), {"alpha": -1.0}, ErrorCode.DATA_INVALID, "alpha"),
        (_small(40), {"recipe": "int1"}, ErrorCode.RECIPE_UNKNOWN, "int1"),
        (_small(40), {"rounds": 0}, ErrorCode.USAGE, "rounds"),
        (_small(40), {"learning_rate": 0.0}, ErrorCode.USAGE, "learning-rate"),
        ("no-such-file.npz", {}, ErrorCode.FILE_NOT_FOUND, "no-such-file.npz"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(
    temporary: Path, model: Any, data: Any, settings: dict[str, Any], code: ErrorCode, reason: str
) -> None:
    said: list[str] = []
    with pytest.raises(HybridgeError) as caught:
        simulate(model, data, **({"clients": 3} | settings), progress=said.append)
    assert caught.value.code is code
    assert reason in caught.value.message
    assert not any("starting" in line for line in said)


def test_a_model_that_devices_cannot_train_is_refused_by_the_name_of_its_layers(
    keras: Any, temporary: Path
) -> None:
    layers = keras.layers
    model = keras.Sequential([keras.Input((6,), name="x"), layers.Dropout(0.1, name="drop"), layers.Dense(3)])
    with pytest.raises(HybridgeError, match="'drop'") as caught:
        simulate(model, _small(40), clients=2)
    assert caught.value.code is ErrorCode.NOT_TRAINABLE


def test_the_command_refuses_an_existing_output_and_half_of_its_input_at_once(tmp_path: Path) -> None:
    there = tmp_path / "there.edge"
    there.write_bytes(b"mine")
    start = time.monotonic()
    run = hybridge("federated", "simulate", "-o", there, "--format", "json")
    assert run.exit_code == 4
    assert run.json["error"]["code"] == "file-exists"
    assert there.read_bytes() == b"mine"
    run = hybridge("federated", "simulate", "--data", "some.npz")
    assert run.exit_code == 2
    assert "MODEL and --data go together" in run.stderr
    assert time.monotonic() - start < 30
