"""The Flower ServerApp: rounds of federated averaging over all clients, each judged on the server's own samples."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from edge_runtime.errors import ErrorCode, HybridgeError
from federated.client_app import arrays_of, weights_of
from federated.plan import Plan, RoundReport
from federated.samples import Samples
from federated.trainer import Trainer, Weights

__all__ = ["create_server_app"]


def create_server_app(
    plan: Plan,
    trainable: bytes,
    held_back: Samples,
    *,
    on_round: Callable[[RoundReport], None],
    on_end: Callable[[Weights], None],
) -> ServerApp:
    """The app that the server runs.

    Its run fails with `federation-failed` as soon as one client fails or does not answer.

    Args:
        plan: Settings of the run.
        trainable: The model's bytes, as `make_trainable` gave them; training starts from the weights in it.
        held_back: Samples that no client has.
        on_round: Called before the first round and after each.
        on_end: Called with the weights after the last round.
    """
    app = ServerApp()

    def main(grid: Grid, _context: Context) -> None:
        trainer = Trainer(trainable)
        strategy = _CompleteFedAvg(plan.clients)

        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
            trainer.set_weights(weights_of(arrays))
            result = trainer.evaluate(held_back.x, held_back.y)
            report = RoundReport(
                round=server_round,
                loss=result.loss,
                accuracy=result.accuracy,
                train_loss=strategy.train_loss,
                client_accuracy=strategy.client_accuracy,
            )
            on_round(report)
            return MetricRecord({"loss": result.loss, "accuracy": result.accuracy})

        result = strategy.start(
            grid,
            arrays_of(trainer.get_weights()),
            num_rounds=plan.rounds,
            train_config=_config(plan, trainable),
            evaluate_config=ConfigRecord({"trainable": trainable}),
            evaluate_fn=evaluate,
        )
        on_end(weights_of(result.arrays))

    app.main()(main)
    return app


def _config(plan: Plan, trainable: bytes) -> ConfigRecord:
    return ConfigRecord(
        {
            "trainable": trainable,
            "learning-rate": plan.learning_rate,
            "local-epochs": plan.local_epochs,
            "seed": plan.seed,
        }
    )


class _CompleteFedAvg(FedAvg):  # type: ignore[misc]
    """Federated averaging in which every client counts: an answer that is missing or an error ends the run.

    FedAvg itself averages whatever came back, down to nothing at all. Answers are averaged in the order of the
    clients' numbers, since the sum of floats depends on their order, so a run can be repeated to the last bit.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017,
    https://arxiv.org/abs/1602.05629.
    """

    def __init__(self, clients: int):
        super().__init__(min_train_nodes=clients, min_evaluate_nodes=clients, min_available_nodes=clients)
        self._clients = clients
        self.train_loss: float | None = None
        self.client_accuracy: float | None = None

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Averages weights and metrics over all clients, weighted by their samples."""
        arrays, metrics = super().aggregate_train(server_round, self._complete(server_round, replies))
        self.train_loss = metrics["loss"]
        return arrays, metrics

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Averages metrics over all clients, weighted by their samples."""
        metrics = super().aggregate_evaluate(server_round, self._complete(server_round, replies))
        self.client_accuracy = metrics["accuracy"]
        return metrics

    def _complete(self, server_round: int, replies: Iterable[Message]) -> list[Message]:
        answers = list(replies)
        errors = [answer.error.reason or "no reason given" for answer in answers if answer.has_error()]
        if errors or len(answers) < self._clients:
            # Ray tells the story of a process that died over many lines; the cause is in the first.
            reason = (
                textwrap.shorten(errors[0], 400, placeholder="...") if errors else "the others took too long"
            )
            raise HybridgeError(
                ErrorCode.FEDERATION_FAILED,
                f"round {server_round}",
                received=f"{len(answers) - len(errors)} answers ({reason})",
                expected=f"{self._clients} answers",
            )
        return sorted(answers, key=lambda answer: int(answer.content["client"]["number"]))
