"""The graph that stages form over their tensors: what is wrong with it, and the order to run it in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter

from edge_runtime.chain.stage import Stage
from edge_runtime.tensor_type import ANYTHING, TensorType

__all__ = ["Graph", "find_problems"]


@dataclass(frozen=True, slots=True)
class Graph:
    """Stages in an order that they can run in.

    Attributes:
        stages: The stages, each after those that it needs.
        needs: For each stage, the indices of those that it waits for.
        inputs: Tensors that the caller gives.
        outputs: Tensors that the caller gets.
        types: What is known of each tensor.
        independent: Pairs of stages that could run at the same time.
        private: Tensors that must not leave the device.
        private_stages: Indices of the stages that take one of them.
    """

    stages: tuple[Stage, ...]
    needs: tuple[frozenset[int], ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: dict[str, TensorType]
    independent: tuple[tuple[int, int], ...]
    private: frozenset[str]
    private_stages: frozenset[int]

    @classmethod
    def of(cls, stages: Sequence[Stage], inputs: Mapping[str, TensorType], outputs: Sequence[str]) -> Graph:
        """The graph of stages without problems."""
        ordered = _in_order(stages)
        needs = _needs(ordered)
        made = {tensor for stage in ordered for tensor in stage.makes}
        taken = dict.fromkeys(tensor for stage in ordered for tensor in _takes(stage))
        given = tuple(inputs) or tuple(tensor for tensor in taken if tensor not in made)
        left = tuple(tensor for stage in ordered for tensor in stage.outputs.values() if tensor not in taken)
        types, _ = _types(ordered, _declared(inputs))
        private = _private(ordered)
        return cls(
            tuple(ordered),
            tuple(frozenset(each) for each in needs),
            given,
            tuple(outputs) or left,
            types,
            _independent(needs),
            private,
            frozenset(
                index for index, stage in enumerate(ordered) if private.intersection(stage.inputs.values())
            ),
        )

    def infer(self, given: Mapping[str, TensorType]) -> tuple[dict[str, TensorType], list[str]]:
        """What is known of each tensor when the inputs are of these types, and what then cannot meet."""
        return _types(self.stages, given)


def find_problems(
    stages: Sequence[Stage],
    inputs: Mapping[str, TensorType],
    outputs: Sequence[str],
    confidence: str | None = None,
    *,
    complete: bool = True,
) -> list[str]:
    """Everything that keeps stages from being a chain, a sentence each.

    Args:
        stages: The stages, in any order.
        inputs: Tensors that the caller gives and their types, where the chain says so.
        outputs: Tensors that the caller gets, where the chain says so.
        confidence: The tensor that says how sure the answer is, where the chain says so.
        complete: Whether these are all stages; what is made by one that could not be built is then not missed.
    """
    problems = [] if stages or not complete else ["it has no stages"]
    makers: dict[str, Stage] = {}
    names: dict[str, Stage] = {}
    for stage in stages:
        if stage.name in names:
            problems.append(f"two stages are named '{stage.name}'{_lines(names[stage.name], stage)}")
        names[stage.name] = stage
        for tensor in stage.makes:
            if tensor in makers:
                problems.append(
                    f"{makers[tensor].title} and {stage.title} both make '{tensor}'; name one differently, "
                    "and bring branches together with a join"
                )
            makers[tensor] = stage
    if complete:
        problems += _unknown_names(stages, inputs, outputs, makers, names)
        if confidence is not None and confidence not in makers:
            problems.append(
                f"confidence '{confidence}' is made by no stage{_instead(confidence, list(makers))}"
            )
    try:
        ordered = _in_order(stages)
    except CycleError as error:
        around = [stages[index].title for index in error.args[1]]
        if len(around) == 2:
            return [*problems, f"{around[0]} waits for what it makes itself; name that differently"]
        return [*problems, f"its stages wait for each other: {' -> '.join(around)}"]
    types, mismatches = _types(ordered, _declared(inputs))
    kind = types.get(confidence, ANYTHING) if confidence is not None else ANYTHING
    if kind.dtype is not None and not kind.dtype.startswith("float"):
        mismatches.append(f"confidence '{confidence}' is {kind}, expected floating-point numbers in 0..1")
    return problems + mismatches


def _declared(inputs: Mapping[str, TensorType]) -> dict[str, TensorType]:
    """Types of the inputs that have one; what the others are, the first stage that takes them says."""
    return {name: kind for name, kind in inputs.items() if kind != ANYTHING}


def _unknown_names(
    stages: Sequence[Stage],
    inputs: Mapping[str, TensorType],
    outputs: Sequence[str],
    makers: dict[str, Stage],
    names: dict[str, Stage],
) -> list[str]:
    known = [*makers, *inputs]
    problems = [
        f"output '{tensor}' is made by no stage{_instead(tensor, known)}"
        for tensor in outputs
        if tensor not in known
    ]
    problems += [
        f"input '{tensor}' is also made by {makers[tensor].title}" for tensor in inputs if tensor in makers
    ]
    for stage in stages:
        if inputs:
            problems += [
                f"{stage.title}: '{tensor}' is made by no stage and is no input{_instead(tensor, known)}"
                for tensor in dict.fromkeys(_takes(stage))
                if tensor not in known
            ]
        if stage.when is None:
            continue
        problems += [
            f"{stage.title}: condition '{stage.when.text}' asks for stage '{name}', which there is not"
            f"{_instead(name, list(names))}"
            for name in sorted(stage.when.stages)
            if name not in names
        ]
    return problems


def _takes(stage: Stage) -> list[str]:
    return [*stage.inputs.values(), *sorted(stage.when.tensors if stage.when else ())]


def _needs(stages: Sequence[Stage]) -> list[set[int]]:
    makers = {tensor: index for index, stage in enumerate(stages) for tensor in stage.makes}
    places = {stage.name: index for index, stage in enumerate(stages)}
    needs = []
    for stage in stages:
        wanted = {makers[tensor] for tensor in _takes(stage) if tensor in makers}
        wanted |= {places[name] for name in (stage.when.stages if stage.when else ()) if name in places}
        needs.append(wanted)
    return needs


def _in_order(stages: Sequence[Stage]) -> list[Stage]:
    needs = {index: sorted(wanted) for index, wanted in enumerate(_needs(stages))}
    return [stages[index] for index in TopologicalSorter(needs).static_order()]


def _independent(needs: Sequence[set[int]]) -> tuple[tuple[int, int], ...]:
    """Pairs of stages of which neither waits, directly or through others, for the other."""
    before: list[set[int]] = []
    for wanted in needs:
        before.append(set(wanted).union(*(before[index] for index in wanted)))
    return tuple(
        (index, later) for later in range(len(needs)) for index in range(later) if index not in before[later]
    )


def _private(stages: Sequence[Stage]) -> frozenset[str]:
    """Tensors that must not leave: of private stages, and what is made from them by stages that do not say otherwise.

    What a private stage takes is private for every other stage too, and so may be what those make of it.
    """
    private: set[str] = set()
    for stage in stages:
        if stage.private:
            private.update(stage.inputs.values(), stage.makes)
        for tensors in (stage.inputs, stage.outputs):
            private.update(tensors[name] for name in stage.step.private.intersection(tensors))
    known = -1
    while len(private) != known:
        known = len(private)
        for stage in stages:
            if stage.private is None and private.intersection(stage.inputs.values()):
                private.update(stage.makes)
    return frozenset(private)


def _types(
    ordered: Sequence[Stage], inputs: Mapping[str, TensorType]
) -> tuple[dict[str, TensorType], list[str]]:
    """What is known of each tensor, and what cannot meet."""
    known = dict(inputs)
    problems: list[str] = []
    for stage in ordered:
        given = {name: known[tensor] for name, tensor in stage.inputs.items() if tensor in known}
        inferred = stage.step.infer(given)
        problems += [
            f"{stage.title}: input '{name}' is '{stage.inputs[name]}', {problem}"
            for name, problem in inferred.mismatches.items()
        ]
        for name, tensor in stage.inputs.items():
            # The first stage that takes what the caller gives says what that is.
            known.setdefault(tensor, stage.step.takes.get(name, ANYTHING))
        for name, tensor in stage.outputs.items():
            known[tensor] = inferred.gives.get(name, ANYTHING)
        for tensor in (stage.report or {}).values():
            known[tensor] = ANYTHING
    return known, problems


def _lines(*stages: Stage) -> str:
    lines = [str(stage.line) for stage in stages if stage.line]
    return f" (lines {' and '.join(lines)})" if lines else ""


def _instead(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
