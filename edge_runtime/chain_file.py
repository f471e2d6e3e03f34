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

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from edge_runtime.chain import Chain
from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.fallback import Fallback, open_fallback
from edge_runtime.files import read_file
from edge_runtime.manifest import Confidence
from edge_runtime.model import Model
from edge_runtime.stage import Stage

__all__ = ["ChainFile", "FallbackEntry", "StageEntry", "load_chain"]


class FallbackEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Whom a stage asks when it is unsure.

    `inputs` is what the other side calls each of the stage's inputs that is sent, `outputs` the stage's name for each
    of the other side's outputs; without them names are the same.
    """

    url: str
    deadline_ms: Annotated[float, Meta(gt=0)] | None = None
    inputs: dict[str, str] | None = None
    outputs: dict[str, str] | None = None


class StageEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One stage: exactly one of `model`, `operator` and `chain`.

    Paths, also that of the text file with a label a line, are relative to the chain's file.
    """

    name: Annotated[str, Meta(min_length=1)]
    model: str | None = None
    operator: str | None = None
    chain: str | None = None
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    params: dict[str, Any] = {}
    num_threads: Annotated[int, Meta(ge=1)] = 1
    confidence: Confidence | None = None
    labels: str | None = None
    fallback: FallbackEntry | None = None


class ChainFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A chain as its TOML file has it."""

    stages: tuple[StageEntry, ...]
    name: str = "chain"
    outputs: tuple[str, ...] = ()


def load_chain(path: str | PathLike[str], *, fallbacks: Mapping[str, Fallback] | None = None) -> Chain:
    """Reads a chain from TOML, loads its models and opens its fallbacks.

    Args:
        path: The file; see this module's text for its form.
        fallbacks: Fallbacks by stage name, in place of those that the file names.

    Raises:
        HybridgeError: `file-not-found`; `chain-invalid`, with all that is wrong at once; `fallback-unknown`; what
            loading a model raises.
    """
    return _load(Path(path), fallbacks or {}, ())


def _load(path: Path, fallbacks: Mapping[str, Fallback], above: tuple[Path, ...]) -> Chain:
    if path.resolve() in above:
        raise HybridgeError(ErrorCode.CHAIN_INVALID, f"chain '{path}' contains itself")
    try:
        described = msgspec.toml.decode(read_file(path), type=ChainFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HybridgeError(
            ErrorCode.CHAIN_INVALID, f"chain '{path}'", received=str(error), expected="a chain in TOML"
        ) from error
    stages: list[Stage] = []
    problems: list[str] = []
    opened: list[Fallback] = []
    for entry in described.stages:
        try:
            fallback = fallbacks.get(entry.name)
            if fallback is None and entry.fallback is not None:
                fallback = _open(entry.fallback)
                opened.append(fallback)
            stages.append(_stage(entry, path, fallback, fallbacks, (*above, path.resolve())))
        except HybridgeError as error:
            problems.append(f"stage '{entry.name}': {error.message}")
    try:
        if problems:
            raise HybridgeError(ErrorCode.CHAIN_INVALID, f"chain '{path}' cannot be: {'; '.join(problems)}")
        return Chain(stages, name=described.name, outputs=described.outputs)
    except HybridgeError:
        for fallback in opened:
            fallback.close()
        raise


def _open(entry: FallbackEntry) -> Fallback:
    options: dict[str, Any] = {"inputs": entry.inputs, "outputs": entry.outputs}
    if entry.deadline_ms is not None:
        options["deadline_s"] = entry.deadline_ms / 1e3
    return open_fallback(entry.url, **{name: value for name, value in options.items() if value is not None})


def _stage(
    entry: StageEntry,
    path: Path,
    fallback: Fallback | None,
    fallbacks: Mapping[str, Fallback],
    above: tuple[Path, ...],
) -> Stage:
    kinds = [kind for kind in ("model", "operator", "chain") if getattr(entry, kind) is not None]
    if len(kinds) != 1:
        raise HybridgeError(
            ErrorCode.CHAIN_INVALID,
            "kind",
            received=" and ".join(kinds) or "none",
            expected="model, operator or chain",
        )
    if entry.model is not None:
        if entry.params:
            raise HybridgeError(ErrorCode.CHAIN_INVALID, "a model has no params")
        return Stage.from_model(
            entry.name,
            Model(path.parent / entry.model, num_threads=entry.num_threads),
            inputs=entry.inputs,
            outputs=entry.outputs,
            confidence=entry.confidence,
            labels=_read_labels(path.parent / entry.labels) if entry.labels else (),
            fallback=fallback,
        )
    if fallback is not None or entry.confidence is not None or entry.labels is not None:
        raise HybridgeError(
            ErrorCode.CHAIN_INVALID, "only a model can have a confidence, labels and a fallback"
        )
    if entry.operator is not None:
        return Stage.from_operator(
            entry.name, entry.operator, inputs=entry.inputs, outputs=entry.outputs, params=entry.params
        )
    nested = _load(path.parent / str(entry.chain), fallbacks, above)
    return Stage.from_chain(entry.name, nested, inputs=entry.inputs, outputs=entry.outputs)


def _read_labels(path: Path) -> tuple[str, ...]:
    return tuple(read_file(path).decode("utf-8", errors="replace").splitlines())
