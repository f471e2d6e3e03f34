"""What an endpoint does, whatever it is asked over: inference, metadata, readiness, and the repository of models.

gRPC and REST are thin adapters around this; neither decides anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cloud_fallback.endpoint.answered_requests import AnsweredRequests
from cloud_fallback.endpoint.repository import ModelState, ModelUse, Repository
from cloud_fallback.endpoint.served.served_model import ServedModel, TimeLeft, no_limit
from cloud_fallback.endpoint.served.turn import Turn, take_turn
from cloud_fallback.endpoint.telemetry import Telemetry
from edge_runtime.errors import ErrorCode, HybridgeError, Kind
from edge_runtime.tensor_spec import Array, TensorSpec

__all__ = ["BegunInference", "DataPlane", "Inference", "InferenceRequest", "ModelDescription"]

_log = logging.getLogger(__name__)


# Made for each request; frozen ones would take three times as long to make.
@dataclass(slots=True)
class InferenceRequest:
    """One request to run a model.

    Attributes:
        model: The model's name.
        version: Its version, or empty for the traffic split or the newest.
        inputs: Its inputs; strings as object arrays of bytes.
        outputs: Names of the outputs wanted, or none for all.
        id: What the caller calls the request.
        time_left: Seconds until nobody waits for the answer any more.
        client: Who asks, as the endpoint knows them; empty for anybody.
        sticky_key: What should be answered by one version; without it, the client.
        idempotency_key: Of a request that may come twice; the second time the first answer is given.
        resolved: Name and version of the model that was found for it, for those who count; `DataPlane.infer` writes it.
        turn: How long it waited for the model and ran, likewise; None when it did not run.
    """

    model: str
    version: str
    inputs: Mapping[str, Array]
    outputs: Sequence[str] = ()
    id: str = ""
    time_left: TimeLeft = no_limit
    client: str = ""
    sticky_key: str = ""
    idempotency_key: str = ""
    resolved: tuple[str, str] = ("", "")
    turn: Turn | None = None


@dataclass(slots=True)
class Inference:
    """The answer to a request: which model gave it, and its outputs in the order they were asked for."""

    model: str
    version: str
    outputs: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a model takes and gives."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class DataPlane:
    """Answers for a repository of models, from any thread.

    Args:
        repository: The models.
        telemetry: Counts and logs requests; the transports tell it of each.
        is_accepting: Whether requests are still taken; an endpoint that stops is not ready.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        telemetry: Telemetry | None = None,
        is_accepting: Callable[[], bool] = lambda: True,
    ):
        self.repository = repository
        self.telemetry = telemetry or Telemetry()
        self._is_accepting = is_accepting
        self._answered = AnsweredRequests()

    def infer(self, request: InferenceRequest) -> Inference:
        """Runs a model once.

        Raises:
            HybridgeError: `model-unknown`, `output-unknown`; ``input-*`` for what the model does not take;
                `cloud-overloaded`, `cloud-deadline`; `invoke-failed`, or `internal` for anything that a model's own
                code raises, with no more said: it may hold paths or data.
        """
        try:
            if request.idempotency_key:
                answer = self._answered.once(
                    (request.client, request.idempotency_key), lambda: self._infer(request), request.time_left
                )
            else:
                answer = self._infer(request)
            request.resolved = answer.model, answer.version
            return answer
        # What exits or panics in a model's own code would end the thread, and leave its request without an end.
        except BaseException as error:
            told = _told(error, request)
            if told is error:
                raise
            raise told from error

    def begin(self, request: InferenceRequest) -> BegunInference | None:
        """`infer` for a caller who does not wait; None for a request that holds a thread until it is answered.

        Raises:
            HybridgeError: `model-unknown`.
        """
        # Those that come twice wait for each other.
        if request.idempotency_key or not self.repository.begins(request.model, request.version):
            return None
        use = self._use(request)
        model = use.__enter__()
        if getattr(model, "begin", None) is None:
            use.__exit__()
            return None
        return BegunInference(request, use, model)

    def describe(self, name: str, version: str = "") -> ModelDescription:
        """What a model takes and gives.

        Raises:
            HybridgeError: `model-unknown`.
        """
        model = self.repository.find(name, version)
        return ModelDescription(
            model.name, self.repository.versions(model.name), model.platform, model.inputs, model.outputs
        )

    def is_ready(self) -> bool:
        """Whether requests are answered now: every model was loaded and has run once before the endpoint began."""
        return self._is_accepting()

    def is_model_ready(self, name: str, version: str = "") -> bool:
        """Whether requests for a model are answered now.

        Raises:
            HybridgeError: `model-unknown`.
        """
        self.repository.find(name, version)
        return self._is_accepting()

    def index(self, *, only_ready: bool = False) -> list[ModelState]:
        """Every model that is known, loaded or not."""
        states = self.repository.index()
        return [state for state in states if state.is_ready or not only_ready]

    def load(self, name: str) -> None:
        """Loads a model, or loads it anew; see `Repository.load_model`."""
        self.repository.load_model(name)

    def unload(self, name: str) -> None:
        """Unloads a model; see `Repository.unload_model`."""
        self.repository.unload_model(name)

    def _infer(self, request: InferenceRequest) -> Inference:
        with self._use(request) as model:
            request.resolved = model.name, model.version
            wanted = _wanted(request.outputs, model)
            try:
                outputs = model.infer(request.inputs, time_left=request.time_left)
            finally:
                request.turn = take_turn()
            return Inference(model.name, model.version, {name: outputs[name] for name in wanted})

    def _use(self, request: InferenceRequest) -> ModelUse:
        return self.repository.use(
            request.model, request.version, sticky_key=request.sticky_key or request.client
        )


class BegunInference:
    """A request whose model was found, and is kept until `run` has called back."""

    __slots__ = ("_model", "_request", "_then", "_use", "_wanted")

    def __init__(self, request: InferenceRequest, use: ModelUse, model: ServedModel):
        self._request, self._use, self._model = request, use, model

    def run(self, then: Callable[[Inference | HybridgeError], None]) -> None:
        """Has the model run once, and returns.

        Args:
            then: Called once, on any thread, with the answer or what `DataPlane.infer` would raise.
        """
        request, model, self._then = self._request, self._model, then
        request.resolved = model.name, model.version
        try:
            self._wanted = _wanted(request.outputs, model)
            model.begin(request.inputs, request.time_left, self._ran)  # type: ignore[attr-defined]
        except BaseException as error:
            self._ran(error, None)

    def _ran(self, outcome: dict[str, Array] | BaseException, turn: Turn | None) -> None:
        request, model = self._request, self._model
        request.turn = turn
        answer: Inference | HybridgeError
        try:
            if isinstance(outcome, BaseException):
                answer = _told(outcome, request)
            else:
                answer = Inference(model.name, model.version, {name: outcome[name] for name in self._wanted})
        except Exception as error:
            # It lacks what it says that it gives.
            answer = _told(error, request)
        self._use.__exit__()
        self._then(answer)


def _told(error: BaseException, request: InferenceRequest) -> HybridgeError:
    """What is said of an error."""
    if isinstance(error, HybridgeError):
        if error.code.kind is Kind.INTERNAL:
            _log.warning("model '%s' failed", request.model, exc_info=error)
        return error
    _log.error("model '%s' failed", request.model, exc_info=error)
    return HybridgeError(ErrorCode.INTERNAL, "internal error of the endpoint")


def _wanted(asked: Sequence[str], model: ServedModel) -> Sequence[str]:
    names = [spec.name for spec in model.outputs]
    if not asked:
        return names
    if unknown := sorted(set(asked) - set(names)):
        raise HybridgeError(
            ErrorCode.OUTPUT_UNKNOWN,
            f"outputs of model '{model.name}'",
            received=", ".join(unknown),
            expected=", ".join(names),
        )
    return asked
