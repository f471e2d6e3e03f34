"""Trainings in their own process: what they promise, and how they end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from convert.recipes import Pruning
from convert.training import FineTuned, TrainingData
from convert.training.own_function import train_with
from edge_runtime.errors import ErrorCode, HybridgeError
from tests.convert.training.conftest import SHORT, Patterns

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]
Tuned = Callable[[str], FineTuned]


def _kernels(tuned: FineTuned) -> dict[str, np.ndarray[Any, Any]]:
    large = [weight for weight in tuned.weights if weight.size >= 1024]
    return dict(zip(("second", "third"), large, strict=True))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, this test's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_pruning_reaches_its_share_of_zeros_and_keeps_accuracy(patterns: Patterns, tuned: Tuned) -> None:
    result = tuned("prune")
    shares = [float((kernel == 0).mean()) for kernel in _kernels(result).values()]
    assert max(shares) > min(shares) + 0.02  # more where it costs less
    assert result.sparsity == pytest.approx(0.75, abs=0.01)
    assert patterns.accuracy(result.weights) > patterns.accuracy(patterns.architecture.weights) - 0.03
    assert [weight.shape for weight in result.weights] == [
        weight.shape for weight in patterns.architecture.weights
    ]


def test_small_kernels_are_left_out_and_said_to_be(tuned: Tuned) -> None:
    assert tuned("prune").skipped == {"prune: first": "only 144 weights", "prune: scores": "only 128 weights"}


@pytest.mark.heavy
def test_every_epoch_is_told(tuned: Tuned) -> None:
    history = tuned("all").history
    assert [(epoch.part, epoch.epoch, epoch.epochs) for epoch in history] == [
        *(("prune", number, 4) for number in (1, 2, 3, 4)),
        *(("cluster", number, 2) for number in (1, 2)),
        *(("qat", number, 2) for number in (1, 2)),
    ]
    assert all(epoch.quality is not None and epoch.quality > 0.5 for epoch in history)
    assert [epoch.sparsity for epoch in history[3:]] == pytest.approx([0.7] * 5, abs=0.01)


def test_two_of_four_along_the_inputs_outlast_rounding(tuned: Tuned) -> None:
    for kernel in _kernels(tuned("prune-2of4+qat")).values():
        fours = np.moveaxis(kernel, -2, -1).reshape(-1, 4)
        assert ((fours == 0).sum(axis=1) >= 2).all()


def test_zeros_and_shared_values_outlast_all_parts(patterns: Patterns, tuned: Tuned) -> None:
    result = tuned("all")
    zeros = np.concatenate([kernel.reshape(-1) == 0 for kernel in _kernels(result).values()])
    assert zeros.mean() >= 0.69
    for kernel in _kernels(result).values():
        assert 2 < len(np.unique(kernel)) <= 9
    assert patterns.accuracy(result.weights) > patterns.accuracy(patterns.architecture.weights) - 0.05


@pytest.mark.heavy
def test_a_seed_repeats_a_training(patterns: Patterns, tuned: Tuned) -> None:
    again = patterns.tune(replace(SHORT, prune=Pruning(sparsity=0.75)))
    for one, other in zip(tuned("prune").weights, again.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_without_labels_the_source_is_followed_and_a_budget_ends_it_early(patterns: Patterns) -> None:
    lines: list[str] = []
    result = patterns.tune(
        replace(SHORT, qat=True, epochs=20),
        labelled=False,
        weight_bits=4,
        max_drop=0.2,
        progress=lines.append,
    )
    assert len(result.history) < 20
    assert result.history[-1].quality is not None
    assert result.history[-1].quality >= 0.9
    assert lines[0].startswith("qat 1 of 20: loss ")
    assert len(lines) == len(result.history)


_OWN = """
import os, signal, tf_keras

def fits(model, data):
    print("this line is no epoch")
    model.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(list(data.inputs.values()), data.labels, batch_size=data.batch_size, epochs=data.epochs,
              callbacks=list(data.callbacks), verbose=0)

def raises(model, data):
    raise KeyError("no such thing")

def returns(model, data):
    return 3

def dies(model, data):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_training.py").write_text(_OWN)
    monkeypatch.chdir(tmp_path)


@pytest.mark.heavy
@pytest.mark.usefixtures("own")
def test_a_function_of_ones_own_trains_instead(patterns: Patterns) -> None:
    training = replace(SHORT, prune=Pruning(sparsity=0.5), function="own_training:fits")
    result = patterns.tune(training)
    assert result.sparsity == pytest.approx(0.5, abs=0.01)
    assert len(result.history) == 4


@pytest.mark.usefixtures("own")
def test_a_process_that_is_killed_is_one_error_and_leaves_no_files(
    patterns: Patterns, temporary: Path
) -> None:
    with pytest.raises(HybridgeError, match="killed by signal 9") as caught:
        patterns.tune(replace(SHORT, qat=True, function="own_training:dies"))
    assert caught.value.code is ErrorCode.TRAINING_FAILED
    assert not list(temporary.iterdir())


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own_training:raises", "KeyError: 'no such thing'"),
        ("own_training:returns", "returns int"),
        ("own_training:absent", "AttributeError"),
        ("absent_module:fits", "ModuleNotFoundError"),
    ],
)
def test_a_function_that_cannot_train_is_named_with_what_it_did(name: str, said: str) -> None:
    data = TrainingData("qat", {}, {}, None, 1, 1, 1, 0.1, ())
    with pytest.raises(HybridgeError, match=said) as caught:
        train_with(name, None, data)
    assert caught.value.code is ErrorCode.TRAINING_FAILED
    assert name in caught.value.message


def test_an_interrupt_ends_the_process_and_leaves_no_files(patterns: Patterns, temporary: Path) -> None:
    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        patterns.tune(replace(SHORT, qat=True, epochs=1000), progress=interrupt)
    assert not list(temporary.iterdir())
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(temporary) not in running


def test_a_source_that_computes_something_else_is_refused(patterns: Patterns) -> None:
    wrong = Patterns(
        patterns.model, patterns.architecture, patterns.images, patterns.labels, patterns.targets + 1.0
    )
    with pytest.raises(HybridgeError, match="output 'scores' of the copy") as caught:
        wrong.tune(replace(SHORT, qat=True, epochs=1))
    assert caught.value.code is ErrorCode.TRAINING_FAILED


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import time; from convert.training import worker; worker._end_with_parent(); time.sleep(60)",
        ],
        stdin=subprocess.PIPE,
    )
    try:
        time.sleep(1.0)
        assert worker.poll() is None
        assert worker.stdin is not None
        worker.stdin.close()
        assert worker.wait(timeout=20) == 1
    finally:
        worker.kill()
        worker.wait()
