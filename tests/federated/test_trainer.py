from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import ErrorCode, HybridgeError
from federated.samples import Samples
from federated.trainer import Trainer

pytestmark = pytest.mark.tensorflow  # makes the model


@pytest.fixture
def trainer(trainable: bytes) -> Trainer:
    return Trainer(trainable)


def test_what_a_device_runs_loads_no_tensorflow() -> None:
    script = (
        "import sys, federated.trainer, federated.client_app, federated.work_folder\n"
        "assert 'flwr.clientapp' in sys.modules\n"
        "print([name for name in ('tensorflow', 'keras', 'convert', 'sklearn') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_training_lowers_the_loss_and_finds_the_classes(trainer: Trainer, samples: Samples) -> None:
    rng = np.random.default_rng(0)
    before = trainer.evaluate(samples.x, samples.y)
    for _ in range(30):
        trainer.train_epoch(samples.x, samples.y, learning_rate=0.3, rng=rng)
    after = trainer.evaluate(samples.x, samples.y)
    assert before.samples == after.samples == 21
    assert after.loss < 0.2 * before.loss
    assert after.accuracy > 0.95


def test_the_same_seed_trains_the_same_weights_to_the_last_bit(trainable: bytes, samples: Samples) -> None:
    def trained(seed: int) -> bytes:
        trainer = Trainer(trainable)
        trainer.train_epoch(samples.x, samples.y, learning_rate=0.1, rng=np.random.default_rng(seed))
        return b"".join(array.tobytes() for _, array in sorted(trainer.get_weights().items()))

    assert trained(1) == trained(1)
    assert trained(1) != trained(2)


def test_weights_come_back_bit_for_bit(trainer: Trainer) -> None:
    rng = np.random.default_rng(0)
    weights = {
        name: rng.normal(size=array.shape).astype(np.float32) for name, array in trainer.get_weights().items()
    }
    assert sorted(weights) == ["layer0_bias", "layer0_kernel", "layer1_bias", "layer1_kernel"]
    trainer.set_weights(weights)
    received = trainer.get_weights()
    assert all(received[name].tobytes() == array.tobytes() for name, array in weights.items())


def test_two_trainers_do_not_share_weights(trainable: bytes, samples: Samples) -> None:
    first, second = Trainer(trainable), Trainer(trainable)
    before = second.get_weights()
    first.train_epoch(samples.x, samples.y, learning_rate=1.0, rng=np.random.default_rng(0))
    assert all((second.get_weights()[name] == array).all() for name, array in before.items())
    assert any((first.get_weights()[name] != array).any() for name, array in before.items())


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 21])
def test_inference_gives_each_sample_its_own_row_whatever_their_number(
    trainer: Trainer, samples: Samples, count: int
) -> None:
    rows = trainer.infer(samples.x[:count])
    assert rows.shape == (count, 3)
    for row, x in zip(rows, samples.x[:count], strict=True):
        np.testing.assert_allclose(row, trainer.infer(x[np.newaxis])[0], atol=1e-7)
        assert row.sum() == pytest.approx(1, abs=1e-6)


def test_evaluation_is_the_cross_entropy_of_the_probabilities(trainer: Trainer, samples: Samples) -> None:
    probabilities = trainer.infer(samples.x)
    result = trainer.evaluate(samples.x, samples.y)
    assert result.loss == pytest.approx(-np.log(probabilities[np.arange(21), samples.y]).mean(), abs=1e-6)
    assert result.accuracy == (probabilities.argmax(axis=1) == samples.y).mean()


def test_samples_that_do_not_fit_are_refused_and_change_nothing(trainer: Trainer, samples: Samples) -> None:
    x, y = samples.x, samples.y
    before = trainer.get_weights()
    rng = np.random.default_rng(0)
    wrongs: list[tuple[Any, Any]] = [
        (x, y + 1),
        (x, y - 1),
        (x, y.astype(np.float32)),
        (x[:, :5], y),
        (x.astype(np.float64), y),
        (x[:20], y),
        (x[:0], y[:0]),
    ]
    for wrong_x, wrong_y in wrongs:
        with pytest.raises(HybridgeError) as caught:
            trainer.train_epoch(wrong_x, wrong_y, learning_rate=0.1, rng=rng)
        assert caught.value.code is ErrorCode.DATA_INVALID
    assert all((trainer.get_weights()[name] == array).all() for name, array in before.items())


def test_training_that_diverges_is_an_error(trainer: Trainer, samples: Samples) -> None:
    with pytest.raises(HybridgeError, match="lower the learning rate") as caught:
        trainer.train_epoch(samples.x, samples.y, learning_rate=1e30, rng=np.random.default_rng(0))
    assert caught.value.code is ErrorCode.DATA_INVALID


def test_weights_that_do_not_fit_are_refused(trainer: Trainer) -> None:
    weights = trainer.get_weights()
    name = "layer0_kernel"
    for wrong in (
        {key: array for key, array in weights.items() if key != name},
        weights | {"more": weights[name]},
        weights | {name: weights[name].T},
        weights | {name: weights[name].astype(np.float64)},
    ):
        with pytest.raises(HybridgeError) as caught:
            trainer.set_weights(wrong)
        assert caught.value.code is ErrorCode.DATA_INVALID


def test_what_is_no_trainable_model_is_refused(models: Path, trainable: bytes) -> None:
    for content in ((models / "classifier.tflite").read_bytes(), trainable[:1000], b""):
        with pytest.raises(HybridgeError) as caught:
            Trainer(content)
        assert caught.value.code is ErrorCode.MODEL_INVALID


def test_samples_are_read_as_they_were_written(samples: Samples, tmp_path: Path) -> None:
    samples.save(tmp_path / "mine.npz")
    loaded = Samples.load(tmp_path / "mine.npz")
    assert (loaded.x == samples.x).all()
    assert (loaded.y == samples.y).all()
    (tmp_path / "short.npz").write_bytes((tmp_path / "mine.npz").read_bytes()[:100])
    with pytest.raises(HybridgeError) as caught:
        Samples.load(tmp_path / "short.npz")
    assert caught.value.code is ErrorCode.DATA_INVALID
