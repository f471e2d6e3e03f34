"""Trials spread over a Ray cluster: every worker opens the source and its data once, and tries recipe after recipe.

Workers read source and data by the paths that the search was given, so a cluster of several machines needs them on a
file system that all of them share; arrays given in memory travel to them. Every machine needs the same hybridge with
its `federated` extra. Latency is not measured by workers, which disturb each other, but where the search was started.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from convert.recipes import ParityBounds, Recipe
from convert.search.context import context_digest
from convert.search.trial import Attempt, Failure, attempt
from edge_runtime.errors import ErrorCode, HybridgeError, missing_extra

if TYPE_CHECKING:
    from convert.workbench import Workbench

__all__ = ["RayRunner", "WorkbenchSpec"]

_SHIPPED_VARIABLES = ("SOURCE_DATE_EPOCH", "KERAS_BACKEND")
_CONNECT_SECONDS = 5.0
_DATA = ("representative", "evaluation", "training")


@dataclass(frozen=True, kw_only=True)
class WorkbenchSpec:
    """How another process opens the same workbench and makes the same bundles; all of it can be pickled.

    Attributes:
        source: Path of the source.
        options: Keyword arguments of `convert.open_workbench`, without ``progress``.
        bounds: How far from the source outputs may be, in place of those of each recipe.
        max_drop: Accuracy that may be lost, on which training stops early.
        modules: The user's own modules that have a part in it.
    """

    source: str | PathLike[str]
    options: Mapping[str, Any]
    bounds: ParityBounds | None = None
    max_drop: float | None = None
    modules: tuple[str, ...] = ()

    def absolute(self) -> WorkbenchSpec:
        """The same with absolute paths, as a worker runs in a folder of its own."""
        options = dict(self.options)
        for name in _DATA:
            given = options.get(name)
            # What names no file may be a `module:function`.
            if isinstance(given, str | PathLike) and Path(given).exists():
                options[name] = str(Path(given).absolute())
        return WorkbenchSpec(
            source=str(Path(self.source).absolute()),
            options=options,
            bounds=self.bounds,
            max_drop=self.max_drop,
            modules=self.modules,
        )


class RayRunner:
    """Runs each trial as a Ray task, one core each; recipes that share a training are one task.

    A context manager: it connects, and disconnects from what it connected to.

    Args:
        spec: How workers open the workbench.
        address: ``local`` to start Ray on this machine, ``auto`` for the cluster that runs here, or ``host:port``.
        context: The digest that the workbench must have on every worker.
        deadline_s: Seconds after which trials under way are given up.

    Raises:
        HybridgeError: `extra-missing`; `usage` when there is no cluster at the address.
    """

    def __init__(self, spec: WorkbenchSpec, *, address: str, context: str, deadline_s: float | None = None):
        try:
            import ray
        except ModuleNotFoundError as error:
            raise missing_extra("federated", error.name or "ray") from error
        self._ray: Any = ray
        self._spec = spec.absolute()
        self._address = address
        self._context = context
        self._end = None if deadline_s is None else time.monotonic() + deadline_s
        self._mine = False
        self._workbench: Any = None
        self._task: Any = None

    def __enter__(self) -> RayRunner:
        ray = self._ray
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            try:
                _check_reachable(self._address)
                ray.init(
                    address=self._address,
                    include_dashboard=False if self._address == "local" else None,
                    log_to_driver=False,
                    configure_logging=False,
                )
            except (OSError, ValueError, RuntimeError) as error:
                raise HybridgeError(
                    ErrorCode.USAGE,
                    "Ray address",
                    received=f"'{self._address}' ({' '.join(str(error).split())[:200]})",
                    expected="a Ray cluster that can be reached",
                    fix="start one with 'ray start --head', or use 'local'",
                ) from error
            self._mine = True
        # Once, however many tasks take it; arrays in it are shared by the workers of a machine.
        self._workbench = ray.put(self._spec)
        # A conversion that ended its process would do so again.
        self._task = ray.remote(num_cpus=1, max_retries=0)(_try_together)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mine:
            self._ray.shutdown()

    @property
    def slots(self) -> int:
        """One trial a core of the cluster."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def run(self, recipes: Sequence[Recipe], may_start: Callable[[Recipe], bool]) -> Iterator[Attempt]:
        """See `TrialRunner`; a trial whose worker dies has failed, one that is late is left out."""
        waiting = _together(recipes)
        under_way: dict[Any, tuple[Recipe, ...]] = {}
        try:
            while waiting or under_way:
                while waiting and len(under_way) < self.slots:
                    group = tuple(recipe for recipe in waiting.pop(0) if may_start(recipe))
                    if group:
                        under_way[self._start(group)] = group
                if not under_way:
                    continue
                ended, _ = self._ray.wait(list(under_way), timeout=self._left())
                if not ended:
                    return  # late
                for task in ended:
                    yield from self._outcome(task, under_way.pop(task))
        finally:
            for task in under_way:
                self._ray.cancel(task, force=True)

    def _start(self, group: tuple[Recipe, ...]) -> Any:
        variables = {name: os.environ[name] for name in _SHIPPED_VARIABLES if name in os.environ}
        return self._task.remote(self._workbench, group, self._context, tuple(sys.path), variables)

    def _outcome(self, task: Any, group: tuple[Recipe, ...]) -> list[Attempt]:
        try:
            attempts: list[Attempt] = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            failure = Failure(
                ErrorCode.INTERNAL, f"its Ray worker failed: {' '.join(str(error).split())[:500]}"
            )
            return [Attempt(recipe=recipe, seconds=0.0, failure=failure) for recipe in group]
        return attempts

    def _left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic())


def _check_reachable(address: str) -> None:
    """Ray itself takes minutes to find that nobody answers at an address."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


def _together(recipes: Sequence[Recipe]) -> list[tuple[Recipe, ...]]:
    """Recipes that share a training, which a worker does once, and each of the others alone."""
    groups: dict[object, list[Recipe]] = {}
    for recipe in recipes:
        groups.setdefault(recipe.training or recipe, []).append(recipe)
    return [tuple(group) for group in groups.values()]


# The one workbench that this worker has open, by the digest of its context.
_open: dict[str, Workbench] = {}


def _try_together(
    spec: WorkbenchSpec,
    recipes: tuple[Recipe, ...],
    context: str,
    paths: tuple[str, ...],
    variables: Mapping[str, str],
) -> list[Attempt]:
    """What a worker does; nothing that goes wrong leaves it as an exception."""
    # The user's own modules are where the search was started.
    sys.path += [path for path in paths if path not in sys.path]
    os.environ.update(variables)
    return [attempt(partial(_convert, spec, context), recipe) for recipe in recipes]


def _convert(spec: WorkbenchSpec, context: str, recipe: Recipe) -> Any:
    from convert.conversion import apply_recipe
    from convert.workbench import open_workbench

    if context not in _open:
        workbench = open_workbench(spec.source, **spec.options)
        found = context_digest(workbench, bounds=spec.bounds, modules=spec.modules)
        if found != context:
            raise HybridgeError(
                ErrorCode.DATA_INVALID,
                "source, data and versions on a Ray worker",
                received=f"digest {found[:12]}",
                expected=f"{context[:12]}, as where the search was started",
                fix="share one file system, and install the same versions everywhere",
            )
        _open.clear()
        _open[context] = workbench
    return apply_recipe(_open[context], recipe, bounds=spec.bounds, max_drop=spec.max_drop)
