"""The client that a chain uses when the device is unsure: asks an endpoint, and never makes the device wait for it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from cloud_fallback.client.answer import fit_outputs
from cloud_fallback.client.answer_reader import AnswerReader
from cloud_fallback.client.bearer_token import BearerToken
from cloud_fallback.client.breaker import BreakerSettings
from cloud_fallback.client.channel import ChannelSettings
from cloud_fallback.client.connection import Connection, is_loopback
from cloud_fallback.client.deferred_queries import DeferredQueries
from cloud_fallback.client.figures import Counts, FallbackFigures
from cloud_fallback.client.hedging import Hedge
from cloud_fallback.client.model_card import ModelCard, declared_inputs
from cloud_fallback.client.payload import Declared, Payload
from cloud_fallback.client.question import Question, QuestionForm
from cloud_fallback.client.tls import Tls
from cloud_fallback.policy import Action, Decision, Link, OffloadPolicy, Policy
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.fallback import Answer, Fallback, LateAnswer, Query
from edge_runtime.prediction import Reason, Source
from edge_runtime.tensor_spec import Array

if TYPE_CHECKING:
    from os import PathLike

    from cloud_fallback.client.answer_cache import AnswerCache
    from cloud_fallback.client.answer_table import AnswerTable
    from cloud_fallback.open_inference.open_inference_pb2 import ModelMetadataResponse
    from cloud_fallback.outbox import Outbox, Request

__all__ = ["CloudFallback"]

_REASONS = {
    ErrorCode.CLOUD_FAILED: Reason.CLOUD_FAILED,
    ErrorCode.CLOUD_UNAVAILABLE: Reason.CLOUD_UNAVAILABLE,
    ErrorCode.CLOUD_DEADLINE: Reason.CLOUD_DEADLINE,
    ErrorCode.CLOUD_OVERLOADED: Reason.CLOUD_OVERLOADED,
    ErrorCode.MESSAGE_TOO_LARGE: Reason.MESSAGE_TOO_LARGE,
}
# Of these another attempt may come to something, so they are worth deferring; a renewed token may be let in.
_PASSING = {
    ErrorCode.CLOUD_UNAVAILABLE,
    ErrorCode.CLOUD_DEADLINE,
    ErrorCode.CLOUD_FAILED,
    ErrorCode.CLOUD_OVERLOADED,
    ErrorCode.UNAUTHENTICATED,
}
# A budget gives back minute by minute.
_BUDGET_RETRY_S = 60.0
_COMPRESSIONS = {"none": None, "gzip": grpc.Compression.Gzip}


class CloudFallback:
    """Asks a model behind an Open Inference Protocol endpoint: ours, KServe, Triton, OpenVINO Model Server or MLServer.

    The connection is made by the first question, kept, and shared with other fallbacks to the same endpoint; calls come
    from any thread. A process that forks does so before the first question: gRPC's threads do not survive a fork, so
    the child's questions keep the device's answer.

    Args:
        target: The endpoint, as ``host:port`` or another gRPC name.
        model: Name of the model there.
        model_version: Its version, or empty for the endpoint to choose.
        deadline_s: Seconds that an answer may take; a query's own deadline may be nearer.
        policy: When to ask. By default, when the confidence is below the threshold of the bundle or chain.
        inputs: The endpoint's name for each input of the stage that is sent. By default all are, by their own names.
        outputs: The stage's name for each of the endpoint's outputs. By default those of the stage's own names.
        max_message_bytes: Size of the largest request and response.
        tls: Files for a connection with TLS; ``Tls()`` trusts public authorities. Without it the connection is in
            clear.
        credentials: In place of `tls`, what `grpc.ssl_channel_credentials` or another function of gRPC made.
        token_file: A file with a bearer token, which may be renewed at any time.
        token_in_clear: Lets the token go over a connection without TLS, to this machine only.
        compression: ``gzip`` compresses messages; pays for what is not an encoded image.
        payload: In which form inputs are sent, by the endpoint's name: `uint8`, `float16`, `png`, `jpeg:<quality>`; see
            `Payload`. By default as they are, or as the endpoint's model declares where that loses nothing.
        hedge: Asks a second time when an answer takes long; only for models whose answers have no side effect.
        breaker: When an endpoint that fails is left alone.
        cache: Answers that are given again to the same inputs. Private data are not looked up.
        table: Answers that were computed beforehand, of this model.
        outbox: Where questions go that are deferred; without one they are kept. It stays open when this is closed.
        priority: Of the questions in the outbox.

    Raises:
        HybridgeError: `usage` for settings that cannot be; `credentials-invalid`; `data-invalid` for a table of another
            model or version.

    Example:
        >>> with CloudFallback("cloud.example:8001", model="digits-large", deadline_s=0.1, tls=Tls()) as fallback:
        ...     chain = Chain.from_bundle("digits-1.0.edge", fallback=fallback)
        ...     chain.run({"image": image}).source
        <Source.CLOUD: 'cloud'>
    """

    def __init__(
        self,
        target: str,
        *,
        model: str,
        model_version: str = "",
        deadline_s: float = 0.2,
        policy: Policy | None = None,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        max_message_bytes: int = 64 * 2**20,
        tls: Tls | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        token_file: str | PathLike[str] | None = None,
        token_in_clear: bool = False,
        compression: str = "none",
        payload: Mapping[str, str] | None = None,
        hedge: Hedge | bool = False,
        breaker: BreakerSettings | None = None,
        cache: AnswerCache | None = None,
        table: AnswerTable | None = None,
        outbox: Outbox | None = None,
        priority: int = 0,
    ):
        _check(target, deadline_s, max_message_bytes, compression, tls, credentials)
        is_clear = tls is None and credentials is None
        if token_file is not None and is_clear and not (token_in_clear and is_loopback(target)):
            raise HybridgeError(
                ErrorCode.USAGE,
                f"token for {target}",
                received="a connection without TLS",
                expected="one with TLS, where nobody can read the token",
                fix="use grpcs:// or tls=Tls(); for this machine itself, token_in_clear",
            )
        if table is not None:
            table.check_model(model, model_version)
        self.target = target
        self.model = model
        self.model_version = model_version
        self.deadline_s = deadline_s
        self.policy: Policy = OffloadPolicy() if policy is None else policy
        self._input_names = inputs
        self._output_names = {stage: cloud for cloud, stage in (outputs or {}).items()}
        self._form = QuestionForm(model, model_version, Payload(payload), max_message_bytes)
        self._cache = cache
        self._table = table
        self.outbox = outbox
        self._deferred = DeferredQueries()
        # What settings opened for it alone, and is closed with it.
        self._opened = ExitStack()
        self._priority = priority
        self._what = f"answer of model '{model}' at {target}"
        self._reader = AnswerReader(self._what)
        self._counts = Counts()
        self._connection = Connection(
            ChannelSettings(target, max_message_bytes, credentials, None if tls is None else tls.read()),
            self._counts,
            token=None if token_file is None else BearerToken(token_file),
            compression=_COMPRESSIONS[compression],
            breaker=breaker,
            hedge=(Hedge() if hedge else None) if isinstance(hedge, bool) else hedge,
        )
        self._card = ModelCard(
            self._connection,
            model,
            model_version,
            on_change=cache.clear if cache is not None else lambda: None,
        )

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        settings: Mapping[str, Any] | None = None,
        folder: str | PathLike[str] = "",
        **options: Any,
    ) -> CloudFallback:
        """A fallback for ``grpc://host:port/model[/version][?deadline_ms=100&threshold=0.8&max_message_mb=64]``.

        Args:
            url: Where the model is, and settings; ``grpcs://`` for a connection with TLS.
            settings: What a chain's file says of the fallback, by the keys of `FallbackSettings`.
            folder: What relative paths in `settings` are relative to.
            **options: Arguments of the class, which come before those of the settings and the URL.

        Raises:
            HybridgeError: `fallback-unknown` for a URL of another form; `usage` for settings that cannot be; and what
                the class raises.
        """
        from cloud_fallback.client.settings import read_settings

        given, opened = read_settings(url, settings or {}, Path(folder))
        try:
            fallback = cls(**(given | options))
        except BaseException:
            opened.close()
            raise
        fallback._opened = opened
        return fallback

    def resolve(self, query: Query) -> Answer:
        """Asks when the policy says so; keeps the device's answer, with the reason, when the cloud does not deliver.

        An answer counts when it has every output of the stage, of the shape that the device's own has and without
        NaN or infinity; its numbers come in the device's types, its strings as text where the device's are.
        """
        decision = self.policy.judge(query)
        if decision.action is not Action.ASK:
            return self._conclude(query, decision)
        deadline = time.monotonic() + self.deadline_s
        if query.deadline is not None:
            deadline = min(deadline, query.deadline)
        try:
            return self._resolve_unsure(query, deadline)
        except HybridgeError as error:
            # What comes here is about the inputs: they cannot be sent.
            return self._failed(query, error)

    def infer(self, inputs: Mapping[str, Array], deadline_s: float | None = None) -> dict[str, Array]:
        """Asks in any case, with the endpoint's own names, and says what went wrong if something did.

        Args:
            inputs: An array for each of the model's inputs.
            deadline_s: Seconds that the answer may take, in place of the fallback's own.

        Returns:
            An array for each of the model's outputs.

        Raises:
            HybridgeError: `cloud-unavailable`, `cloud-deadline`, `cloud-overloaded`, `cloud-failed`,
                `message-too-large`, `model-unknown`, `unauthenticated`, `not-permitted`, or `cloud-refused` for every
                other refusal and for a response that does not follow the protocol; `input-dtype` for an array that
                cannot be sent.
        """
        _, arrays = self._reader.read(self.ask(inputs, deadline_s))
        # What was decoded is a view of the message; the caller gets arrays of their own.
        return {name: array.copy() for name, array in arrays.items()}

    def ask(self, inputs: Mapping[str, Array], deadline_s: float | None = None) -> bytes:
        """As `infer`, with the answer as the endpoint sent it: a serialised `ModelInferResponse`."""
        seconds = self.deadline_s if deadline_s is None else deadline_s
        question = self._question(inputs, ())
        return self._connection.infer(question.request(), time.monotonic() + seconds)

    @property
    def destination(self) -> str:
        """Where its questions in an outbox go."""
        return f"{self.target}/{self.model}"

    def send(self, request: Request, timeout_s: float = 30.0) -> bytes:
        """Sends a question from an outbox, and returns the endpoint's answer as it came; see `drain_deferred`.

        Raises:
            HybridgeError: As `infer`; `cloud-unavailable`, with a time to come again, while its budget is spent.
        """
        if (spent := self.policy.admit_late(len(request.body))) is not None:
            raise HybridgeError(
                ErrorCode.CLOUD_UNAVAILABLE,
                f"question for {self.destination}",
                received=f"an hour's budget that is spent ({spent})",
                retry_after_s=_BUDGET_RETRY_S,
            )
        # Our endpoint gives the first answer again to the same key; others do not know it, and answer anew.
        return self._connection.send(request.body, timeout_s, (("idempotency-key", request.id),))

    def hear_late(self, request_id: str, outputs: Mapping[str, Array]) -> None:
        """Lets the policy learn from the answer to a question that this fallback deferred, when it first comes.

        Args:
            request_id: The question's; one that this fallback does not remember teaches nothing.
            outputs: The answer, by the stage's names.
        """
        query = self._deferred.take(request_id)
        if query is None:
            return
        try:
            fitted = fit_outputs(outputs, query.outputs, {name: name for name in query.outputs}, self._what)
        except HybridgeError:
            # Had it come in time, it would have been no answer either.
            return
        self.policy.heard(query, fitted)

    def drain(
        self, on_answer: Callable[[LateAnswer], object], *, sharing: Sequence[Fallback] = ()
    ) -> AbstractContextManager[Callable[[], dict[str, int]]]:
        """Asks what waits in its outbox, from entering to leaving; see `edge_runtime.fallback.Deferring`.

        Raises:
            HybridgeError: `usage` without an outbox.
        """
        from cloud_fallback.client.deferral import draining

        return draining((self, *(each for each in sharing if isinstance(each, CloudFallback))), on_answer)

    def declared(self, timeout_s: float = 10.0) -> Declared:
        """What the endpoint's model says that it takes: the protocol's datatype, and the rank, of each input.

        Returns:
            Both by input, or nothing where the endpoint does not say.

        Raises:
            HybridgeError: `cloud-unavailable` when nobody answers.
        """
        told: SimpleQueue[tuple[ModelMetadataResponse | None, bool]] = SimpleQueue()
        self._connection.describe(
            self.model, self.model_version, lambda metadata, again: told.put((metadata, again))
        )
        try:
            metadata, is_worth_asking_again = told.get(timeout=timeout_s)
        except Empty:
            metadata, is_worth_asking_again = None, True
        if is_worth_asking_again:
            raise HybridgeError(
                ErrorCode.CLOUD_UNAVAILABLE,
                f"description of model '{self.model}' at {self.target}",
                received="no answer",
                fix="start the endpoint, or check its address",
            )
        return {} if metadata is None else declared_inputs(metadata)

    def figures(self) -> FallbackFigures:
        """What was decided, asked and answered so far, and the state of the connection."""
        expected = self._connection.round_trips.expected_s
        return self._counts.figures(
            breaker=self._connection.breaker.state,
            breaker_openings=self._connection.breaker.openings,
            is_offline=self._connection.is_offline,
            expected_ms=None if expected is None else expected * 1e3,
            outbox=self.outbox,
        )

    def is_up(self) -> bool:
        """Whether asking may come to something now, as far as is known without asking; for who drains an outbox."""
        return self._connection.is_up()

    def close(self) -> None:
        """Gives up the connection: later calls keep the device's answer.

        So do those under way, unless another fallback shares the connection.
        """
        self._connection.close()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _resolve_unsure(self, query: Query, deadline: float) -> Answer:
        names = {stage: self._output_names.get(stage, stage) for stage in query.outputs}
        inputs = {} if query.private else self._renamed(query.inputs)
        question = self._question(inputs, tuple(names.values()))
        key = b""
        if not query.private and (self._cache is not None or self._table is not None):
            key = question.digest()
            if (outputs := self._at_hand(key, query, names)) is not None:
                self._counts.decided(Action.ASK, Reason.UNSURE)
                return Answer(outputs, Source.CACHE, Reason.UNSURE)
        obstacle = Reason.PRIVATE if query.private else self._connection.obstacle()
        is_let_through = False
        try:
            decision = self._admit(query, obstacle, deadline, question)
            is_asked = decision.action is Action.ASK and obstacle is None
            request = question.request() if is_asked else b""
            is_let_through = is_asked
        finally:
            if obstacle is None and not is_let_through:
                self._connection.withdraw()
        if not is_asked:
            detail = "" if obstacle is None else self._connection.explain(obstacle)
            return self._conclude(query, decision, question, detail)
        try:
            response = self._connection.infer(
                request,
                deadline,
                may_hedge=lambda: self._admit(query, None, deadline, question).action is Action.ASK,
            )
            if question.bytes_saved:
                self._counts.add(bytes_saved=question.bytes_saved)
            version, arrays = self._reader.read(response)
            self._card.saw(version)
            outputs = fit_outputs(arrays, query.outputs, names, self._what)
        except HybridgeError as error:
            return self._failed(query, error, question)
        finally:
            # After the question, which is in a hurry.
            if self._card.has_to_learn and time.monotonic() < deadline:
                self._card.learn()
        if self._cache is not None:
            self._cache.put(key, {name: arrays[name] for name in names.values()})
        self.policy.heard(query, outputs)
        self._counts.decided(Action.ASK, decision.reason)
        return Answer(outputs, Source.CLOUD, decision.reason)

    def _at_hand(self, key: bytes, query: Query, names: Mapping[str, str]) -> dict[str, Array] | None:
        """The outputs of an answer that was given before or computed beforehand, if one can stand for the device's."""
        if self._table is not None and not self._table.is_stale(self._card.versions):
            self._card.learn()
            outputs = self._fitting(self._table.get(key), query, names)
            if outputs is not None:
                self._counts.add(table_hits=1)
                return outputs
        if self._cache is None:
            return None
        outputs = self._fitting(self._cache.get(key), query, names)
        self._counts.add(**{"cache_misses" if outputs is None else "cache_hits": 1})
        return outputs

    def _fitting(
        self, found: Mapping[str, Array] | None, query: Query, names: Mapping[str, str]
    ) -> dict[str, Array] | None:
        if found is None:
            return None
        try:
            return fit_outputs(found, query.outputs, names, self._what)
        except HybridgeError:
            # It was given to another stage, with other outputs; asking shows.
            return None

    def _admit(self, query: Query, obstacle: Reason | None, deadline: float, question: Question) -> Decision:
        expected_s = self._connection.round_trips.expected_s
        left_s = deadline - time.monotonic()
        decision = self.policy.admit(query, Link(obstacle, expected_s, left_s, question.size))
        if decision.reason is Reason.NO_TIME and left_s > 0:
            self._connection.round_trips.fade()
        return decision

    def _failed(self, query: Query, error: HybridgeError, question: Question | None = None) -> Answer:
        reason = _REASONS.get(error.code, Reason.CLOUD_REFUSED)
        decision = self.policy.give_up(query, reason)
        return self._conclude(query, decision, question if error.code in _PASSING else None, error.message)

    def _conclude(
        self, query: Query, decision: Decision, question: Question | None = None, detail: str = ""
    ) -> Answer:
        """The answer for a query that was not answered elsewhere; only a question can be deferred."""
        action, reason = decision.action, decision.reason
        if action is Action.ASK:  # of a policy that does not heed what stands in the way
            action = Action.KEEP
        if action is not Action.DEFER:
            self._counts.decided(action, reason)
            return Answer.keep(reason, detail, refused=action is Action.REFUSE)
        is_refused = self.policy.refuses(query)
        if question is not None and self.outbox is not None and not query.private:
            try:
                request_id = self._defer(query, question)
            except HybridgeError as error:
                self._counts.add(outbox_failures=1)
                detail = (
                    f"{detail}; not deferred: {error.message}" if detail else f"not deferred: {error.message}"
                )
            else:
                self._counts.decided(action, reason)
                return Answer.defer(reason, request_id, refused=is_refused)
        self._counts.decided(Action.REFUSE if is_refused else Action.KEEP, reason)
        return Answer.keep(reason, detail, refused=is_refused)

    def _defer(self, query: Query, question: Question) -> str:
        from cloud_fallback.outbox import Request

        assert self.outbox is not None  # noqa: S101 - only called with one
        # What the answer is read by, perhaps by another process.
        metadata = {
            "stage": query.stage,
            "outputs": dict(zip(question.outputs, query.outputs, strict=True)),
        }
        request = Request(question.request(), self.destination, priority=self._priority, metadata=metadata)
        # Before it is there: the answer may come at once.
        self._deferred.put(request.id, query)
        self.outbox.put(request)
        self._counts.add(deferred=1)
        return request.id

    def _question(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> Question:
        return Question(self._form, inputs, outputs, self._card.declared)

    def _renamed(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if self._input_names is None:
            return inputs
        if missing := self._input_names.keys() - inputs.keys():
            raise HybridgeError(
                ErrorCode.INPUT_MISSING,
                f"inputs for model '{self.model}' at {self.target}",
                received=", ".join(inputs) or "none",
                expected=", ".join(self._input_names),
                fix=f"give the stage {', '.join(sorted(missing))}, or change the fallback's inputs",
            )
        return {cloud: inputs[stage] for stage, cloud in self._input_names.items()}


def _check(
    target: str,
    deadline_s: float,
    max_message_bytes: int,
    compression: str,
    tls: Tls | None,
    credentials: grpc.ChannelCredentials | None,
) -> None:
    wrong = ("", "")
    if not 0 < deadline_s < math.inf or max_message_bytes < 1:
        wrong = (
            f"a deadline of {deadline_s} s and messages of up to {max_message_bytes} bytes",
            "both more than 0, and a deadline that ends",
        )
    elif compression not in _COMPRESSIONS:
        wrong = f"compression '{compression}'", " or ".join(_COMPRESSIONS)
    elif tls is not None and credentials is not None:
        wrong = "tls and credentials", "one of the two"
    if wrong[0]:
        raise HybridgeError(ErrorCode.USAGE, f"fallback to {target}", received=wrong[0], expected=wrong[1])
