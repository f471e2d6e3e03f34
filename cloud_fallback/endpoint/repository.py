"""The models of an endpoint, by name and version: loaded, replaced and unloaded while requests go on."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from os import PathLike, fspath

from cloud_fallback.endpoint.model_settings import newest_first
from cloud_fallback.endpoint.model_source import ModelSource, find_models
from cloud_fallback.endpoint.served.model_queue import Batching
from cloud_fallback.endpoint.served.served_model import ServedModel
from cloud_fallback.endpoint.traffic_split import TrafficSplit
from cloud_fallback.endpoint.warm_up import warm_up
from edge_runtime.errors import ErrorCode, HybridgeError

__all__ = ["ModelState", "ModelUse", "Repository", "State"]

_log = logging.getLogger(__name__)


class State(StrEnum):
    """Whether a model answers, as the repository extension spells it."""

    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model that a repository knows of, loaded or not, and why not."""

    name: str
    version: str
    state: State
    reason: str = ""

    @property
    def is_ready(self) -> bool:
        """Whether it answers."""
        return self.state is State.READY


@dataclass(slots=True, eq=False)
class _Loaded:
    """A model in use: it is closed when it was replaced and the last request under way has been answered."""

    model: ServedModel
    source: ModelSource | None = None
    file_state: object = None
    users: int = 0
    retired: bool = False


@dataclass(frozen=True, slots=True)
class _Serving:
    """What answers for one name: versions, newest first, and how requests without one are shared."""

    versions: Mapping[str, _Loaded]
    split: TrafficSplit | None = None


@dataclass(frozen=True, slots=True)
class _Options:
    """What is told for all models."""

    instances: int = 1
    num_threads: int = 1
    batching: Batching = field(default_factory=Batching)
    splits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class Repository:
    """Models that were loaded, each found by its name and version; safe from many threads.

    Args:
        models: The models.

    Raises:
        HybridgeError: `usage` for two models of one name and version, or for none at all.

    Example:
        >>> repository = Repository.load(["digits-large-1.0.edge", "ocr=models/recognition.onnx"])
        >>> repository.find("ocr").inputs
    """

    def __init__(self, models: Iterable[ServedModel]):
        self._arguments: list[str] = []
        self._options = _Options()
        # Replaced as a whole, so that finding a model takes no lock.
        self._serving = _arranged([_Loaded(model) for model in models], self._options)
        if not self._serving:
            raise HybridgeError(ErrorCode.USAGE, "models to serve", received="none", expected="at least one")
        # What each source was when it was last loaded, and why it could not be loaded since.
        self._known: dict[object, tuple[str, str]] = {}
        self._failures: dict[tuple[str, str], str] = {}
        # Names that were unloaded by request stay so until they are loaded by request.
        self._unloaded: set[str] = set()
        self._changing = threading.Lock()
        self._counting = threading.Lock()

    @classmethod
    def load(
        cls,
        sources: Iterable[str | PathLike[str]],
        *,
        instances: int | None = None,
        num_threads: int | None = None,
        batching: Batching = Batching(),  # noqa: B008 - it is frozen
        splits: Mapping[str, Mapping[str, float]] | None = None,
    ) -> Repository:
        """Loads models from files, from folders, and from functions that make them, and runs each once.

        Args:
            sources: Paths of `.edge`, `.tflite`, `.onnx`, `.keras` and `.h5` files, SavedModels and chains (`.toml`),
                folders that hold some or that hold ``name/version/`` with one each, or ``module:function``; a file's
                and a function's may be written ``name=path`` to give the model that name. The function takes the
                keywords `name`, which may be None, `instances` and `num_threads`, and returns a `ServedModel`.
            instances: Runs that may be under way at once on each model; by default two, or one on a single core.
            num_threads: Threads that each of them may use; by default the cores, shared out among them.
            batching: How requests are run together.
            splits: For each model, the weights of its versions for requests that do not name one.

        Raises:
            HybridgeError: `file-not-found`; `usage` for a file of another kind or two models of one name and version;
                `model-invalid` for a function that cannot be imported, or fails; what loading a model raises.
        """
        cores = os.cpu_count() or 1
        instances = instances or min(2, cores)
        options = _Options(instances, num_threads or max(1, cores // instances), batching, splits or {})
        arguments = [fspath(source) for source in sources]
        loaded: list[_Loaded] = []
        try:
            for argument in arguments:
                for source in find_models(argument):
                    loaded.append(_load(source, options))  # noqa: PERF401 - what was loaded is closed on an error
            repository = cls(each.model for each in loaded)
            repository._arguments, repository._options = arguments, options
            repository._serving = _arranged(loaded, options)
        except BaseException:
            for each in loaded:
                _close(each)
            raise
        repository._remember(loaded)
        return repository

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """Every model that answers, sorted by name, newest version first."""
        return tuple(each.model for each in self._all())

    def versions(self, name: str) -> tuple[str, ...]:
        """The versions of `name` that answer, newest first; empty when there is none."""
        return tuple(self._serving[name].versions) if name in self._serving else ()

    def index(self) -> list[ModelState]:
        """Every model that is known, loaded or not, sorted by name."""
        states = {
            (each.model.name, each.model.version): ModelState(
                each.model.name, each.model.version, State.READY
            )
            for each in self._all()
        }
        for name, version in self._known.values():
            states.setdefault((name, version), ModelState(name, version, State.UNAVAILABLE, "unloaded"))
        for (name, version), reason in self._failures.items():
            before = states.get((name, version))
            state = State.UNAVAILABLE if before is None else before.state
            states[name, version] = ModelState(name, version, state, reason)
        return [states[each] for each in sorted(states)]

    def find(self, name: str, version: str = "", *, sticky_key: str = "") -> ServedModel:
        """The model called `name`; without a version, the one that its traffic split chooses, or the newest.

        Args:
            name: What requests call it.
            version: Which of that name.
            sticky_key: Whatever should be answered by one version, such as the name of a device.

        Raises:
            HybridgeError: `model-unknown`.
        """
        return self._find(name, version, sticky_key).model

    def use(self, name: str, version: str = "", *, sticky_key: str = "") -> ModelUse:
        """`find`, for a model that is not closed before the block ends, whatever replaces it meanwhile."""
        return ModelUse(self, name, version, sticky_key)

    def begins(self, name: str, version: str = "") -> bool:
        """Whether whatever may answer takes requests without holding their threads; see `ServedModel`.

        Of versions that share requests all must: those that did would else be chosen once more than the others.
        """
        serving = self._serving.get(name)
        if serving is None or version or serving.split is None:
            return True
        return all(getattr(each.model, "begin", None) is not None for each in serving.versions.values())

    def _taken(self, name: str, version: str, sticky_key: str) -> _Loaded:
        """A model that is not closed until `_let_go`."""
        before = None
        while True:
            loaded = self._find(name, version, sticky_key)
            with self._counting:
                if not loaded.retired:
                    loaded.users += 1
                    return loaded
            if loaded is before:
                # Nothing has replaced it: all were closed.
                raise HybridgeError(
                    ErrorCode.CLOUD_UNAVAILABLE,
                    f"model '{name}'",
                    received="a request while its endpoint ends",
                )
            before = loaded

    def _let_go(self, loaded: _Loaded) -> None:
        with self._counting:
            loaded.users -= 1
            is_last = loaded.retired and not loaded.users
        if is_last:
            _close(loaded)

    def load_model(self, name: str) -> None:
        """Loads the model of this name, in all its versions, or loads it anew; requests go on meanwhile.

        Raises:
            HybridgeError: `model-unknown`; what loading it raises, and the model that was in use is then kept.
        """
        failures = self._reload(name)
        if failures:
            raise failures[0]
        if name not in self._serving:
            raise self._unknown(name)

    def unload_model(self, name: str) -> None:
        """Answers for this name no more; requests under way are finished.

        Raises:
            HybridgeError: `model-unknown`.
        """
        with self._changing:
            if name not in self._serving:
                raise self._unknown(name)
            gone = self._serving[name].versions.values()
            self._serving = {each: serving for each, serving in self._serving.items() if each != name}
            self._known |= {
                ("unloaded", name, each.model.version): (name, each.model.version) for each in gone
            }
            self._unloaded.add(name)
        self._retire(gone)

    def refresh(self) -> list[HybridgeError]:
        """Loads what is new or changed in its files and folders, and unloads what is gone.

        Returns:
            Why models could not be loaded; those that they would have replaced go on.
        """
        return self._reload(None)

    def file_states(self) -> dict[object, object]:
        """What changes when a file that is served or a model's settings do, or one is added or taken away."""
        return {_identity(source): (source.settings, source.state()) for source in self._sources()}

    def close(self) -> None:
        """Closes the models that hold more than memory, each when its last request under way is answered."""
        with self._changing:
            gone = self._all()
            self._retire(gone)

    def _all(self) -> list[_Loaded]:
        return [loaded for serving in self._serving.values() for loaded in serving.versions.values()]

    def _find(self, name: str, version: str, sticky_key: str) -> _Loaded:
        serving = self._serving.get(name)
        if serving is None:
            raise self._unknown(name)
        if not version:
            if serving.split is not None:
                version = serving.split.choose(sticky_key)
            else:
                return next(iter(serving.versions.values()))
        if version not in serving.versions:
            raise HybridgeError(
                ErrorCode.MODEL_UNKNOWN,
                f"model '{name}'",
                received=f"version '{version[:128]}'",
                expected=f"one of {', '.join(serving.versions)}, or none for the newest",
            )
        return serving.versions[version]

    def _unknown(self, name: str) -> HybridgeError:
        return HybridgeError(
            ErrorCode.MODEL_UNKNOWN,
            "model",
            received=f"name '{name[:128]}'",
            expected=f"one of {', '.join(self._serving) or 'none: all were unloaded'}",
        )

    def _sources(self) -> list[ModelSource]:
        return [source for argument in self._arguments for source in find_models(argument)]

    def _reload(self, name: str | None) -> list[HybridgeError]:
        """Loads what `name` stands for anew, or for None what has changed; what cannot be loaded is kept as it was."""
        with self._changing:
            if name is not None:
                self._unloaded.discard(name)
            current = {_identity(each.source): each for each in self._all() if each.source is not None}
            kept = [each for each in self._all() if each.source is None]
            fresh: list[_Loaded] = []
            failures: dict[tuple[str, str], HybridgeError] = {}
            sources = self._sources()
            for source in sources:
                old = current.get(_identity(source))
                known = self._known.get(_identity(source), (source.title, source.version or ""))
                if known[0] in self._unloaded:
                    continue
                if name not in (None, known[0]):
                    kept += [old] if old is not None else []
                    continue
                if old is not None:
                    # A split changes without the model.
                    old.source = source
                    if name is None and source.state() == old.file_state:
                        kept.append(old)
                        continue
                try:
                    fresh.append(_load(source, self._options))
                except HybridgeError as error:
                    _log.warning("%s was not loaded: %s", source.path or source.title, error.message)
                    failures[known] = error
                    kept += [old] if old is not None else []
            try:
                serving = _arranged([*kept, *fresh], self._options)
            except HybridgeError:
                for each in fresh:
                    _close(each)
                raise
            gone = [each for each in self._all() if each not in kept]
            self._serving = serving
            there = {_identity(source) for source in sources}
            self._known = {
                identity: known
                for identity, known in self._known.items()
                if identity in there or known[0] in self._unloaded
            }
            self._remember(fresh)
            self._failures = {
                known: error.message for known, error in failures.items()
            } | {  # what was not tried now is as it was
                known: reason
                for known, reason in self._failures.items()
                if name is not None and known[0] != name
            }
            self._retire(gone)
        return list(failures.values())

    def _remember(self, loaded: Iterable[_Loaded]) -> None:
        for each in loaded:
            self._known[_identity(each.source)] = (each.model.name, each.model.version)

    def _retire(self, gone: Iterable[_Loaded]) -> None:
        with self._counting:
            idle = [each for each in gone if not each.retired and not each.users]
            for each in gone:
                each.retired = True
        for each in idle:
            _close(each)


def _load(source: ModelSource, options: _Options) -> _Loaded:
    # Before it is read: a file that changes meanwhile is then loaded once more.
    state = source.state()
    settings = source.settings
    model = source.make(
        name=source.name,
        **({} if source.version is None else {"version": source.version}),
        instances=settings.instances or options.instances,
        num_threads=settings.num_threads or options.num_threads,
        batching=settings.batching or options.batching,
    )
    loaded = _Loaded(model, source, state)
    try:
        warm_up(model)
    except BaseException:
        _close(loaded)
        raise
    return loaded


def _arranged(loaded: Iterable[_Loaded], options: _Options) -> dict[str, _Serving]:
    """Models by name and version, newest first, with the split of each name."""
    found: dict[str, dict[str, _Loaded]] = {}
    for each in loaded:
        versions = found.setdefault(each.model.name, {})
        if each.model.version in versions:
            raise HybridgeError(
                ErrorCode.USAGE,
                "models to serve",
                received=f"two of name '{each.model.name}' and version '{each.model.version}'",
                expected="one",
                fix="give one of them another name, as name=path",
            )
        versions[each.model.version] = each
    serving = {}
    for name, versions in sorted(found.items()):
        ordered = {version: versions[version] for version in newest_first(list(versions))}
        weights = next(
            (
                each.source.settings.split
                for each in ordered.values()
                if each.source is not None and each.source.settings.split
            ),
            options.splits.get(name, {}),
        )
        serving[name] = _Serving(ordered, TrafficSplit(name, weights, list(ordered)) if weights else None)
    if unknown := sorted(options.splits.keys() - serving.keys()):
        raise HybridgeError(
            ErrorCode.USAGE,
            "traffic split",
            received=f"models {', '.join(unknown)}",
            expected=f"models among {', '.join(serving)}",
        )
    return serving


def _identity(source: ModelSource | None) -> object:
    """What stays the same when a file is replaced."""
    return None if source is None else (source.path or source.make, source.name)


class ModelUse:
    """A model while a block runs; a class, as a generator takes twice as long and each request passes here."""

    __slots__ = ("_asked", "_loaded", "_repository")

    def __init__(self, repository: Repository, *asked: str):
        self._repository, self._asked = repository, asked

    def __enter__(self) -> ServedModel:
        self._loaded = self._repository._taken(*self._asked)
        return self._loaded.model

    def __exit__(self, *error: object) -> None:
        self._repository._let_go(self._loaded)


def _close(loaded: _Loaded) -> None:
    close = getattr(loaded.model, "close", None)
    if close is None:
        return
    try:
        close()
    except Exception:
        # Whoever comes to close it last has an answer to give, or other models to close.
        _log.exception("model '%s' could not be closed", loaded.model.name)
