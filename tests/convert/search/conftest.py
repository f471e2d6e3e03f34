"""A converter that follows a script, over a real model: what a search decides, apart from what conversions cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from convert.recipes import Method, Precision, Quantization, Recipe, Rule
from convert.search.runner import SequentialRunner
from convert.search.space import SearchSpace
from convert.search.trial import Trial
from edge_runtime import Bundle, ErrorCode, HybridgeError
from edge_runtime.latency import machine_name
from edge_runtime.manifest import Accuracy, Latency, Metrics, Parity, Size

SIZES = {
    Precision.FLOAT32: 1000, Precision.FLOAT16: 520, Precision.WEIGHT_ONLY_INT8: 280, Precision.DYNAMIC_INT8: 270,
    Precision.INT8: 260, Precision.INT16X8: 290, Precision.INT4: 150, Precision.INT4_BLOCK32: 180,
}  # fmt: skip
LAYERS = 16


def metrics(
    size: int = 100,
    drop: float | None = 0.0,
    latency_ms: float | None = 1.0,
    *,
    deflated: int | None = None,
    agreement: float | None = 0.99,
    snr_db: float | None = 30.0,
) -> Metrics:
    measured: tuple[Latency, ...] = ()
    if latency_ms is not None:
        measured = (Latency(machine_name(), "runtime 1", 1, latency_ms, latency_ms, 10),)
    return Metrics(
        accuracy=None if drop is None else Accuracy(0.9, 0.9 - drop, 1000),
        parity=Parity(0.1, 0.01, 1000, "user", snr_db=snr_db, label_agreement=agreement),
        size=Size(4000, size, deflated if deflated is not None else size * 9 // 10),
        latency=measured,
    )


def trial(name: str, *arguments: Any, **options: Any) -> Trial:
    found = metrics(*arguments, **options)
    return Trial(
        recipe=Recipe(name=name),
        key=name,
        seconds=1.0,
        size=found.size,
        accuracy=found.accuracy,
        parity=found.parity,
        latency_ms=found.latency[0].median_ms if found.latency else None,
    )


class Layers:
    """Sparing a layer of int4 brings it back to int8."""

    def __init__(self, layers: int | None = LAYERS):
        self.layers = layers

    def count(self, base: Precision, *, seconds: float) -> int | None:  # noqa: ARG002
        return self.layers

    def mixed(self, base: Quantization, keep: int) -> Quantization:
        rules = tuple(Rule(layers=f"layer{index}$", precision=Precision.INT8) for index in range(keep))
        return msgspec.structs.replace(base, rules=rules)


@dataclass
class Script:
    """Costs by recipe; what is not scripted follows a plausible rule."""

    make: Callable[..., Bundle]
    costs: dict[str, Metrics | Exception] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)

    def __call__(self, recipe: Recipe) -> Any:
        self.tried.append(recipe.name)
        cost = self.costs.get(recipe.name) or _usual(recipe)
        if isinstance(cost, Exception):
            raise cost
        bundle = self.make()
        manifest = msgspec.structs.replace(bundle.manifest, metrics=cost)
        return _Converted(Bundle.create(manifest, bundle.files))


@dataclass
class _Converted:
    bundle: Bundle


def _usual(recipe: Recipe) -> Metrics:
    precision, training = recipe.quantization.precision, recipe.training
    size = SIZES[precision]
    bits4 = precision in (Precision.INT4, Precision.INT4_BLOCK32)
    drop = 0.05 if bits4 else 0.001
    if bits4 and recipe.quantization.method not in (None, Method.MIN_MAX):
        drop = 0.03
    # That depthwise layers stay float is part of a recipe, and spares no layer of this model.
    for _ in (each for each in recipe.quantization.rules if "DEPTHWISE_CONV_2D" not in each.operators):
        size, drop = size + (SIZES[Precision.INT8] - size) // LAYERS, drop - 0.01
    deflated = None
    if training is not None:
        if training.prune is not None:
            share = training.prune.sparsity
            # Stored sparse.
            if precision is Precision.WEIGHT_ONLY_INT8:
                size = int(size * (1.2 - share))
            deflated = int(size * (1.1 - share))
            drop += max(0.0, share - 0.8) * (0.05 if training.qat else 0.2)
        if training.qat and bits4:
            drop = 0.005
        if training.cluster is not None:
            deflated = (deflated or size) // 2
    return metrics(size, drop, deflated=deflated)


@pytest.fixture
def script(make_bundle: Callable[..., Bundle]) -> Script:
    return Script(make_bundle)


@pytest.fixture
def runner(script: Script) -> SequentialRunner:
    return SequentialRunner(script)


@pytest.fixture
def space() -> SearchSpace:
    return SearchSpace(labelled=True, classes=True, representative=True, trainable=True, layers=Layers())


@pytest.fixture
def no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latencies are the script's own: measuring the same model again and again would show nothing."""
    monkeypatch.setattr("convert.search.run.measure_in_turn", lambda *_, **__: {})


def broken(code: ErrorCode = ErrorCode.CONVERSION_FAILED) -> HybridgeError:
    return HybridgeError(code, "converter", received="a model", expected="another")
