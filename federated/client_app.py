"""The Flower ClientApp: a device trains the model it is sent on samples that never leave it.

Messages, both ways, hold records by these keys:

    to the device      arrays   the global weights, by the names that `Trainer.get_weights` gives
                       config   trainable (bytes of the .tflite), learning-rate, local-epochs, seed, server-round
    from the device    arrays   its weights after training; absent in an answer to an evaluation
                       metrics  num-examples, loss, accuracy
                       client   number, by which the server puts answers in one order
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode as FlowerErrorCode

from edge_runtime.errors import HybridgeError
from federated.samples import Samples
from federated.trainer import Evaluation, Trainer, Weights

__all__ = ["SamplesOf", "arrays_of", "client_number", "create_client_app", "weights_of"]

SamplesOf = Callable[[Context], Samples]


def create_client_app(samples_of: SamplesOf) -> ClientApp:
    """The app that every device runs.

    Args:
        samples_of: Gives the device's own samples. Where devices are simulated it is sent to other processes, so it
            must pickle.
    """
    app = ClientApp()
    client = _Client(samples_of)
    app.train()(client.train)
    app.evaluate()(client.evaluate)
    return app


def client_number(context: Context) -> int:
    """The client's number in a simulation, the id of its node elsewhere."""
    return int(context.node_config.get("partition-id", context.node_id))


def weights_of(record: ArrayRecord) -> Weights:
    """A record's arrays by name."""
    return {name: array.numpy() for name, array in record.items()}


def arrays_of(weights: Weights) -> ArrayRecord:
    """Weights as a record."""
    return ArrayRecord({name: Array(array) for name, array in weights.items()})


class _Client:
    # A class, not closures: instances pickle by reference to this module, so the cache below is one for the process.
    def __init__(self, samples_of: SamplesOf):
        self._samples_of = samples_of

    def train(self, message: Message, context: Context) -> Message:
        try:
            config = message.content["config"]
            trainer = _prepared_trainer(message)
            samples = self._samples_of(context)
            rng = np.random.default_rng([config["seed"], client_number(context), config["server-round"]])
            for _ in range(config["local-epochs"]):
                result = trainer.train_epoch(
                    samples.x, samples.y, learning_rate=config["learning-rate"], rng=rng
                )
            return _reply(message, context, result, trainer.get_weights())
        except HybridgeError as error:
            return _failure(message, error)

    def evaluate(self, message: Message, context: Context) -> Message:
        try:
            samples = self._samples_of(context)
            return _reply(message, context, _prepared_trainer(message).evaluate(samples.x, samples.y))
        except HybridgeError as error:
            return _failure(message, error)


@functools.lru_cache(maxsize=2)
def _trainer(content: bytes) -> Trainer:
    # Flower runs one message at a time in a process, and a new round sends the same model again.
    return Trainer(content)


def _prepared_trainer(message: Message) -> Trainer:
    """The process's trainer for the model in `message`, holding the weights in it."""
    trainer = _trainer(message.content["config"]["trainable"])
    trainer.set_weights(weights_of(message.content["arrays"]))
    return trainer


def _reply(message: Message, context: Context, result: Evaluation, weights: Weights | None = None) -> Message:
    metrics = {"num-examples": result.samples, "loss": result.loss, "accuracy": result.accuracy}
    content = RecordDict(
        {"metrics": MetricRecord(metrics), "client": ConfigRecord({"number": client_number(context)})}
    )
    if weights is not None:
        content["arrays"] = arrays_of(weights)
    return Message(content=content, reply_to=message)


def _failure(message: Message, error: HybridgeError) -> Message:
    reason = f"{error.message} [{error.code}]"
    return Message(Error(code=FlowerErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason), reply_to=message)
