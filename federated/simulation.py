"""A whole federated run on one machine: from a Keras model and data to a bundle that devices trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.bundle import Bundle
from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra
from federated.fleet import run_fleet
from federated.layers import LayerStack
from federated.partitioning import partition
from federated.plan import Plan, RoundReport
from federated.samples import Samples
from federated.trainable import assign_weights, make_trainable
from federated.trainer import Weights
from federated.verification import TrainingParity, verify_trainable
from federated.work_folder import WorkFolder

if TYPE_CHECKING:
    import keras

    from convert import Conversion, Recipe, Source
    from convert.data import DataSource

__all__ = ["SimulationResult", "simulate"]

# What the server keeps back to judge the model by, and, apart from that, to calibrate its conversion with.
_EVALUATION_SHARE = 0.2
_CALIBRATION_SHARE = 0.05


@dataclass(frozen=True)
class SimulationResult:
    """What a simulation gave.

    Attributes:
        history: The global model before the first round and after each.
        weights: Its weights after the last round, by the names that `Trainer.get_weights` gives.
        parity: How closely the device runtime trained as TensorFlow does, measured before the first round.
        conversion: The model with these weights, converted and checked.
        failure: Why the recipe that was asked for failed, where it did; `conversion` is then a float one, so that
            what the devices trained is not lost.
    """

    history: tuple[RoundReport, ...]
    weights: Weights
    parity: TrainingParity
    conversion: Conversion
    failure: HybridgeError | None = None

    @property
    def bundle(self) -> Bundle:
        """The bundle; the accuracies in its manifest are on held-back samples."""
        return self.conversion.bundle


def simulate(
    model: keras.Model | str | PathLike[str],
    data: DataSource,
    *,
    clients: int = 10,
    rounds: int = 5,
    local_epochs: int = 5,
    batch_size: int = 16,
    learning_rate: float = 0.1,
    alpha: float | None = None,
    seed: int = 0,
    recipe: str = "int8",
    name: str | None = None,
    labels: tuple[str, ...] = (),
    on_round: Callable[[RoundReport], None] | None = None,
    progress: Callable[[str], None] | None = None,
) -> SimulationResult:
    """Trains a model on simulated devices and converts the result.

    A fifth of the data is kept back to judge the model by and a twentieth to calibrate its conversion; clients share
    the rest. They run in processes of their own, with the device runtime and without TensorFlow, under Flower's
    simulation engine. All processes and files of the run are gone when this returns or raises.

    The same seed, data and machine give the same weights to the last bit: clients are averaged in a fixed order.
    Another kind of processor may round differently.

    Args:
        model: A dense classifier (see `federated.layers`), or the path to its `.keras` file; it stays as it is.
        data: A mapping or the path to an `.npz` file, with an array named as the model's input, of shape
            (samples, ...), and the classes of the samples under ``label``, of shape (samples,).
        clients: How many devices share the data.
        rounds: How often they train and are averaged.
        local_epochs: How often a device goes through its samples in a round.
        batch_size: Samples of a training step.
        learning_rate: Step size of the devices' gradient descent.
        alpha: Skews the devices' labels, the more the smaller it is; None deals samples at random. See `partition`.
        seed: Chooses who gets which samples, and their order.
        recipe: How the result is converted; see `convert`.
        name: Of the bundle; the model's own without it.
        labels: Names of the classes, for the bundle.
        on_round: Called before the first round and after each.
        progress: Called with a line of text before each long step.

    Raises:
        HybridgeError: `not-trainable`, `data-invalid`, `recipe-unknown`, `usage`, `source-invalid` before anything
            runs; `parity-failed` when device and TensorFlow train differently;
            `federation-failed` when a client fails, with its reason; `extra-missing`.

    Example:
        >>> result = simulate("digits.keras", {"image": images, "label": classes}, clients=10, rounds=5)
        >>> result.history[0].accuracy, result.history[-1].accuracy
        (0.031, 0.922)
        >>> result.bundle.save("digits.edge")
    """
    plan = Plan(
        clients=clients, rounds=rounds, local_epochs=local_epochs, learning_rate=learning_rate, seed=seed
    ).checked()
    report = progress or (lambda _: None)
    for module in ("flwr", "ray"):
        if find_spec(module) is None:
            raise missing_extra("federated", module)
    from convert import convert, default_name, find_recipe, open_source

    report("loading the model and its data")
    chosen = find_recipe(recipe)
    source = open_source(model)
    trained = _copied(source)
    shares = _split(_samples(data, source, LayerStack(trained).classes), seed)
    dealt = partition(shares.training.y, clients, alpha=alpha, seed=seed)
    report("making the model trainable, and checking that it trains as TensorFlow does")
    trainable = make_trainable(trained, batch_size=batch_size)
    parity = verify_trainable(trained, trainable, samples=shares.training)
    report(f"starting {clients} clients")
    history: list[RoundReport] = []

    def record(round_report: RoundReport) -> None:
        history.append(round_report)
        if on_round is not None:
            on_round(round_report)

    with WorkFolder.temporary() as folder:
        folder.write(plan, trainable, shares.evaluation, [shares.training[share] for share in dealt])
        weights = run_fleet(folder, on_round=record)
    assign_weights(trained, weights)
    input_name = source.inputs[0].name

    def converted(recipe: Recipe) -> Conversion:
        return convert(
            trained,
            recipe=recipe,
            name=name or default_name(source.name),
            representative={input_name: shares.calibration.x},
            evaluation={input_name: shares.evaluation.x, "label": shares.evaluation.y},
            labels=labels,
            progress=report,
        )

    unquantized = find_recipe("float32")
    try:
        return SimulationResult(tuple(history), weights, parity, converted(chosen))
    except HybridgeError as error:
        if chosen == unquantized:
            raise
        return SimulationResult(tuple(history), weights, parity, converted(unquantized), error)


@dataclass(frozen=True)
class _Shares:
    training: Samples
    calibration: Samples
    evaluation: Samples


def _copied(source: Source) -> keras.Model:
    """A copy of the model that the run may change."""
    import keras

    from convert import KerasSource

    if not isinstance(source, KerasSource):
        raise HybridgeError(
            ErrorCode.NOT_TRAINABLE, "source model", received=type(source).__name__, expected="a Keras model"
        )
    LayerStack(source.model)  # refuses what could not even be copied
    copy = keras.models.clone_model(source.model)
    copy.set_weights(source.model.get_weights())
    return copy


def _samples(data: DataSource, source: Source, classes: int) -> Samples:
    from convert import load_dataset

    dataset = load_dataset(data, source.inputs)
    labels = dataset.labels
    if labels is None or labels.max() >= classes:
        received = "no 'label'" if labels is None else f"labels up to {labels.max()}"
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            "data for federated training",
            received=received,
            expected=f"'label' with classes in 0..{classes - 1}",
            fix="add the true class of each sample"
            if labels is None
            else "use a model with an output for each class",
        )
    (x,) = dataset.inputs.values()
    return Samples(x.astype(np.float32), labels.astype(np.int32))


def _split(samples: Samples, seed: int) -> _Shares:
    order = np.random.default_rng(seed).permutation(len(samples))
    evaluation = max(1, round(_EVALUATION_SHARE * len(samples)))
    calibration = max(1, round(_CALIBRATION_SHARE * len(samples)))
    if len(samples) <= evaluation + calibration:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            "data for federated training",
            received=f"{len(samples)} samples",
            expected=f"more than {evaluation + calibration}, which the server keeps",
        )
    ends = (evaluation, evaluation + calibration)
    return _Shares(
        evaluation=samples[order[: ends[0]]],
        calibration=samples[order[ends[0] : ends[1]]],
        training=samples[order[ends[1] :]],
    )
