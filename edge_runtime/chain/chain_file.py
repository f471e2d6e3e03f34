"""Chains written in TOML.

Example::

    name = "digits"
    outputs = ["probabilities"]

    [[stages]]
    name = "scale"
    operator = "scale"
    inputs = { array = "image" }
    outputs = { array = "scaled" }
    params = { factor = 0.0625 }

    [[stages]]
    name = "classify"
    model = "digits-1.0.edge"
    inputs = { image = "scaled" }
    confidence = { output = "probabilities", activation = "softmax", threshold = 0.9 }
    fallback = { url = "grpc://127.0.0.1:8001/digits-large", deadline_ms = 50 }
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from edge_runtime.chain.chain import Chain
from edge_runtime.chain.graph import find_problems
from edge_runtime.chain.join_step import JoinStep
from edge_runtime.chain.stage import Stage
from edge_runtime.chain.tier import Tier
from edge_runtime.chain.toml_lines import TableLines, array_table_lines
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.fallback import Fallback, open_fallback
from edge_runtime.files import read_file
from edge_runtime.manifest import Confidence, Positive
from edge_runtime.memory_budget import MemoryBudget
from edge_runtime.model import Model
from edge_runtime.tensor_type import ANYTHING, TensorType

__all__ = ["ChainFile", "FallbackEntry", "StageEntry", "TierEntry", "load_chain"]

Count = Annotated[int, Meta(ge=1)]


class FallbackEntry(Struct, frozen=True):
    """Whom a stage asks when it is unsure.

    `inputs` is what the other side calls each of the stage's inputs that is sent, `outputs` the stage's name for each
    of the other side's outputs; without them names are the same. `threshold` is the confidence below which the answer
    of a stage that is a chain is unsure; a model's is in its confidence. All other keys are the implementation's own,
    which checks them: `settings` has them.
    """

    url: str
    deadline_ms: Positive | None = None
    inputs: dict[str, str] | None = None
    outputs: dict[str, str] | None = None
    threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    settings: dict[str, Any] = {}

    @classmethod
    def gather(cls, table: Any) -> Any:
        """A table of TOML with the keys that are not known here under `settings`."""
        if not isinstance(table, dict):
            return table
        known = {name: table[name] for name in cls.__struct_fields__ if name in table and name != "settings"}
        return known | {"settings": {name: value for name, value in table.items() if name not in known}}


class TierEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One of several models of a stage.

    `inputs` and `outputs` are what the first tier calls each of this one's that is named differently there.
    """

    model: str
    num_threads: Count = 1
    instances: Count = 1
    confidence: Confidence | None = None
    labels: str | None = None
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}


class StageEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One stage: exactly one of `model`, `tiers`, `operator`, `chain` and `join`.

    Paths, also that of the text file with a label a line and of settings whose names end in ``_file``, are relative to
    the chain's file. `private` is as `Stage` has it. `states` is for a model that streams: the output that each state
    input takes its next value from.
    """

    name: str
    model: str | None = None
    tiers: tuple[TierEntry, ...] = ()
    operator: str | None = None
    chain: str | None = None
    join: tuple[str, ...] = ()
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    params: dict[str, Any] = {}
    foreach: str | tuple[str, ...] = ()
    batch_size: Count = 8
    when: str | None = None
    private: bool | None = None
    report: dict[str, str] = {}
    num_threads: Count = 1
    instances: Count = 1
    states: dict[str, str] = {}
    confidence: Confidence | None = None
    labels: str | None = None
    fallback: FallbackEntry | None = None


class ChainFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole chain; see `Chain` for most of its keys. `memory_mb` is what its models share."""

    stages: tuple[StageEntry, ...]
    name: str = "chain"
    inputs: dict[str, str] | tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    deadline_ms: Positive | None = None
    late: Literal["finish", "drop"] = "finish"
    confidence: str | None = None
    memory_mb: Positive | None = None


def load_chain(
    path: str | PathLike[str],
    *,
    fallbacks: Mapping[str, Fallback] | None = None,
    budget: MemoryBudget | None = None,
) -> Chain:
    """Reads a chain from TOML, loads its models and opens its fallbacks.

    Args:
        path: The file; see this module's text for its form.
        fallbacks: Fallbacks by stage name, also of stages in chains within, in place of those that files name.
        budget: A limit on the memory that its models take together, in place of the file's.

    Raises:
        HybridgeError: `file-not-found`; `chain-invalid`, with all that is wrong at once and the lines where it is.
    """
    given = fallbacks or {}
    loading = _Loading(Path(path), given, budget, ())
    chain = loading.chain()
    if unknown := [name for name in given if name not in loading.named]:
        for fallback in loading.opened:
            fallback.close()
        raise HybridgeError(
            ErrorCode.CHAIN_INVALID,
            f"fallbacks given for chain '{path}'",
            received=", ".join(unknown),
            expected=f"stages among {', '.join(loading.named)}",
        )
    return chain


_KEYS = {
    "condition": "when",
    "confidence": "confidence",
    "foreach": "foreach",
    "inputs": "inputs",
    "outputs": "outputs",
    "reports": "report",
    "settings": "params",
    "states": "states",
}

_Field = TypeVar("_Field", bound=Struct)


@dataclass
class _Loading:
    """One file as it is read: what is known of it so far, and what is wrong."""

    path: Path
    fallbacks: Mapping[str, Fallback]
    budget: MemoryBudget | None
    above: tuple[Path, ...]
    opened: list[Fallback] = field(default_factory=list)
    named: dict[str, None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def chain(self) -> Chain:
        if self.path.resolve() in self.above:
            raise HybridgeError(ErrorCode.CHAIN_INVALID, f"chain '{self.path}' contains itself")
        try:
            text = read_file(self.path).decode()
            document = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise HybridgeError(
                ErrorCode.CHAIN_INVALID,
                f"chain '{self.path}'",
                received=str(error),
                expected="a chain in TOML",
            ) from error
        try:
            return self._built(document, text)
        except BaseException:
            # The outermost file closes what those within it opened.
            for fallback in () if self.above else self.opened:
                fallback.close()
            raise

    def _built(self, document: dict[str, Any], text: str) -> Chain:
        tables = document.pop("stages", [])
        lines = array_table_lines(text, "stages")
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            tables = []
            self.problems.append("'stages' is no array of tables; write each stage under [[stages]]")
        if len(lines) != len(tables):  # written inline
            lines = [TableLines(0)] * len(tables)
        head = self._decoded(ChainFile, {**document, "stages": []}, "", TableLines(0))
        if self.budget is None and head is not None and head.memory_mb is not None:
            self.budget = MemoryBudget(int(head.memory_mb * 1e6))
        stages: list[Stage] = []
        for number, (table, where) in enumerate(zip(tables, lines, strict=True), 1):
            name = table.get("name", f"number {number}")
            title = f"stage '{name}'"
            if "fallback" in table:
                table["fallback"] = FallbackEntry.gather(table["fallback"])
            entry = self._decoded(StageEntry, table, title, where)
            stage = None if entry is None else self._stage(entry, title, where)
            if stage is not None:
                stages.append(stage)
        complete = len(stages) == len(tables) and head is not None
        if head is not None:
            self.problems += find_problems(
                stages, self._inputs(head), head.outputs, head.confidence, complete=complete
            )
        if self.problems or head is None:
            raise HybridgeError(
                ErrorCode.CHAIN_INVALID, f"chain '{self.path}' cannot be: {'; '.join(self.problems)}"
            )
        return Chain(
            stages,
            name=head.name,
            inputs=head.inputs,
            outputs=head.outputs,
            deadline_s=None if head.deadline_ms is None else head.deadline_ms / 1e3,
            late=head.late,
            confidence=head.confidence,
        )

    def _inputs(self, head: ChainFile) -> dict[str, TensorType]:
        if not isinstance(head.inputs, dict):
            return dict.fromkeys(head.inputs, ANYTHING)
        types = {}
        for name, text in head.inputs.items():
            kind = self._attempt(
                lambda text=text: TensorType.parse(text), f"input '{name}'", TableLines(0), ""
            )
            types[name] = kind or ANYTHING
        return types

    def _decoded(
        self, kind: type[_Field], table: dict[str, Any], title: str, where: TableLines
    ) -> _Field | None:
        """A table as a struct; every field that cannot be is noted, with its line."""
        before = len(self.problems)
        fields = {each.name: each for each in msgspec.structs.fields(kind)}
        for key, value in table.items():
            if key not in fields:
                close = get_close_matches(key, fields, n=1)
                hint = f"; did you mean '{close[0]}'?" if close else f", expected {', '.join(fields)}"
                self._note(title, where.of(key), f"unknown key '{key}'{hint}")
                continue
            try:
                msgspec.convert(value, fields[key].type)
            except msgspec.ValidationError as error:
                self._note(title, where.of(key), f"'{key}': {error}")
        for key, each in fields.items():
            if key not in table and each.required:
                self._note(title, where.header, f"'{key}' is missing")
        return None if len(self.problems) > before else msgspec.convert(table, kind)

    def _note(self, title: str, line: int, problem: str) -> None:
        place = f"line {line}" if line else ""
        prefix = f"{title} ({place})" if title and place else title or place
        self.problems.append(f"{prefix}: {problem}" if prefix else problem)

    def _stage(self, entry: StageEntry, title: str, where: TableLines) -> Stage | None:
        before = len(self.problems)
        self.named[entry.name] = None
        kinds = [kind for kind in ("model", "tiers", "operator", "chain", "join") if getattr(entry, kind)]
        if len(kinds) != 1:
            self._note(
                title,
                where.header,
                f"it is {' and '.join(kinds) or 'nothing'}, expected one of model, tiers, operator, chain, join",
            )
            return None
        kind = kinds[0]
        self._refuse_misplaced(entry, kind, title, where)
        fallback = self._attempt(lambda: self._fallback(entry), title, where, "fallback")
        options: dict[str, Any] = {
            "outputs": entry.outputs,
            "foreach": entry.foreach,
            "when": entry.when,
            "report": entry.report,
            "private": entry.private,
            "batch_size": entry.batch_size,
            "line": where.header or None,
        }

        def build() -> Stage:
            if kind == "operator":
                return Stage.from_operator(
                    entry.name,
                    str(entry.operator),
                    inputs=entry.inputs,
                    params=self._params(entry),
                    **options,
                )
            if kind == "join":
                return Stage.from_step(entry.name, JoinStep(entry.join), **options)
            if kind == "chain":
                nested = _Loading(
                    self.path.parent / str(entry.chain),
                    self.fallbacks,
                    self.budget,
                    (*self.above, self.path.resolve()),
                    self.opened,
                    self.named,
                ).chain()
                threshold = entry.fallback.threshold if entry.fallback else None
                return Stage.from_chain(
                    entry.name, nested, inputs=entry.inputs, fallback=fallback, threshold=threshold, **options
                )
            return Stage.from_tiers(
                entry.name, self._tiers(entry), inputs=entry.inputs, fallback=fallback, **options
            )

        stage = self._attempt(build, title, where, kind)
        return stage if len(self.problems) == before else None

    def _attempt(self, make: Any, title: str, where: TableLines, key: str) -> Any:
        try:
            return make()
        except HybridgeError as error:
            # An error's first word is what it is about, and most of these are keys of their own.
            about = _KEYS.get(error.what.partition(" ")[0], key)
            self._note(title, where.keys.get(about, where.of(key)), error.message)
            return None

    def _params(self, entry: StageEntry) -> dict[str, Any]:
        return {
            key: str(self.path.parent / value)
            if key.endswith("_file") and isinstance(value, str) and value
            else value
            for key, value in entry.params.items()
        }

    def _tiers(self, entry: StageEntry) -> list[Tier]:
        described = entry.tiers or (
            TierEntry(str(entry.model), entry.num_threads, entry.instances, entry.confidence, entry.labels),
        )
        return [
            Tier(
                Model(
                    self.path.parent / tier.model,
                    num_threads=tier.num_threads,
                    instances=tier.instances,
                    states=entry.states,
                    budget=self.budget,
                ),
                confidence=tier.confidence,
                labels=_read_labels(self.path.parent / tier.labels) if tier.labels else (),
                inputs=tier.inputs,
                outputs=tier.outputs,
            )
            for tier in described
        ]

    def _fallback(self, entry: StageEntry) -> Fallback | None:
        given = self.fallbacks.get(entry.name)
        if given is not None or entry.fallback is None:
            return given
        options: dict[str, Any] = {"inputs": entry.fallback.inputs, "outputs": entry.fallback.outputs}
        if entry.fallback.deadline_ms is not None:
            options["deadline_s"] = entry.fallback.deadline_ms / 1e3
        if entry.fallback.settings:
            options |= {"settings": entry.fallback.settings, "folder": self.path.parent}
        opened = open_fallback(
            entry.fallback.url, **{name: value for name, value in options.items() if value is not None}
        )
        self.opened.append(opened)
        return opened

    def _refuse_misplaced(self, entry: StageEntry, kind: str, title: str, where: TableLines) -> None:
        """Keys that another kind of stage has, and this one would ignore."""
        plain = StageEntry(name="")
        owners: dict[str, Sequence[str]] = {
            "params": ("operator",),
            "states": ("model",),
            "confidence": ("model",),
            "labels": ("model",),
            "num_threads": ("model",),
            "instances": ("model",),
            "fallback": ("model", "tiers", "chain"),
            "inputs": ("model", "tiers", "operator", "chain"),
            "foreach": ("model", "tiers", "operator", "chain"),
        }
        for key, kinds in owners.items():
            if kind not in kinds and getattr(entry, key) != getattr(plain, key):
                self._note(title, where.of(key), f"'{key}' is for {' and '.join(kinds)}, and this is {kind}")
        if entry.name in self.fallbacks and kind not in owners["fallback"]:
            self._note(title, where.header, f"a fallback is given for it, and this is {kind}")
        if kind != "chain" and entry.fallback is not None and entry.fallback.threshold is not None:
            self._note(
                title,
                where.of("fallback"),
                f"a fallback's 'threshold' is for chain, and this is {kind}; a model has it in its confidence",
            )


def _read_labels(path: Path) -> tuple[str, ...]:
    return tuple(read_file(path).decode("utf-8", errors="replace").splitlines())
