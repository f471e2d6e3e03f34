from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import Bundle, Chain, ErrorCode, HybridgeError, Model, Source, Stage
from edge_runtime.chain.condition import Condition
from edge_runtime.prediction import StageTrace
from edge_runtime.tensor_spec import Array

MakeBundle = Callable[..., Bundle]

TENSORS: dict[str, Any] = {
    "boxes": np.zeros((3, 4), np.float32),
    "none": np.zeros((0, 4), np.float32),
    "scores": np.array([0.25, 0.75], np.float32),
    "nan": np.array([np.nan], np.float32),
    "flags": np.array([True, False]),
    "crops": [np.zeros((2, 2)), np.zeros((3, 3))],
    "text": np.array("exit"),
    "count": np.array(2),
    "single": np.array([7]),
    "out/0": np.array([1.5]),
}
TRACES = {
    "read": StageTrace("read", 1.0, confidence=0.7, label="exit", source=Source.CLOUD),
    "scale": StageTrace("scale", 1.0),
    "left": StageTrace("left", 0.0, skipped=True),
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("len(boxes) > 0", True),
        ("len(none) > 0", False),
        ("len(crops) == 2 and len(boxes) == 3", True),
        ("max(scores) >= 0.75", True),
        ("min(scores) < 0.25", False),
        ("0.4 < mean(scores) < 0.6", True),
        ("max(none) > 0", False),
        ("max(none) <= 0", False),
        ("not max(none) > 0", True),
        ("max(nan) > 0 or max(nan) <= 0", False),
        ("any(flags) and not all(flags)", True),
        ("text == 'exit'", True),
        ("text in ('exit', 'stop')", True),
        ("text not in ['exit']", False),
        ("'xi' in text", True),
        ("count % 2 == 0", True),
        ("count * 2 + 1 - 1 == 8 / 2", True),
        ("-count < 0", True),
        ("single == 7", True),
        ("tensor('out/0') > 1", True),
        ("max(count, 5, 3) == 5", True),
        ("confidence('read') < 0.9", True),
        ("confidence('scale') < 0.9 or confidence('scale') >= 0.9", False),
        ("label('read') == 'exit' and source('read') == 'cloud'", True),
        ("label('scale') == ''", True),
        ("'a' in label('scale')", False),
        ("True", True),
        ("len(boxes) > 0 or len(gone) > 0", False),
        ("gone > 1", False),
        ("not gone > 1", False),
        ("confidence('left') < 2", False),
        ("confidence('nobody') < 2", False),
    ],
)
def test_conditions_are_true_or_not(text: str, holds: bool) -> None:
    assert Condition(text).holds(TENSORS, TRACES) is holds


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "len(", "x = 1", "x; y", "lambda: 1", "[x for x in y]", "(x for x in y)", "x if y else z",
        "x.shape", "x.__class__.__bases__", "().__class__", "x[0]", "x[0:1]", "open('f')", "eval('1')", "len",
        "__import__('os').system('true')", "2 ** 9999999999", "x ** 2", "x // 2", "x << 2", "x @ y", "~x", "x | y",
        "x is None", "None", "...", "b'a'", "1j", "{1: 2}", "{1}", "f'{x}'", "x := 3", "await x", "*x",
        "len(x, y=1)", "len()", "max(*x)", "confidence(x)", "confidence('a', 'b')", "tensor(x)", "tensor()",
        "confidence()", "label(1)", "print(x)", "getattr(x, 'y')", "x(1)", "'a'.join(x)", "\x00", "a\nb",
    ],
)  # fmt: skip
def test_anything_else_is_refused_when_it_is_read(text: str) -> None:
    if text == "len":
        assert Condition(text).tensors == {"len"}  # a tensor may have that name
        return
    with pytest.raises(HybridgeError, match="condition") as caught:
        Condition(text)
    assert caught.value.code is ErrorCode.CHAIN_INVALID


@pytest.mark.parametrize(
    "text", ["(" * 500 + "x" + ")" * 500, "not " * 20_000 + "x", "-" * 20_000 + "x", "1" * 5_000 + " > x"]
)
def test_what_python_cannot_read_is_refused_too(text: str) -> None:
    with pytest.raises(HybridgeError) as caught:
        Condition(text).holds({"x": np.array(1)}, {})
    assert caught.value.code is ErrorCode.CHAIN_INVALID


@pytest.mark.parametrize(
    "text",
    [
        "boxes > 0", "text > 3", "len(count) > 0", "'%999999999d' % count", "text * 999999999 == ''",
        "[1] * 999999999 == []", "'a' * 999999999 == ''", "count / 0 > 1", "count % 0 > 1", "text + 'a' == 'b'",
        "max(crops) > 0", "crops > 0", "max('a') > 1", f"1{'0' * 400} / count > 1",
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_one_clear_error(text: str) -> None:
    with pytest.raises(HybridgeError, match="condition") as caught:
        Condition(text).holds(TENSORS, TRACES)
    assert caught.value.code is ErrorCode.CHAIN_INVALID


def test_what_a_condition_asks_for_is_known() -> None:
    condition = Condition("len(a) > 0 and tensor('b/0') < confidence('c') and label('d') == 'e'")
    assert condition.tensors == {"a", "b/0"}
    assert condition.stages == {"c", "d"}


# In chains.


def _scale(name: str, source: str, result: str, factor: float, **options: Any) -> Stage:
    return Stage.from_operator(
        name,
        "scale",
        inputs={"array": source},
        outputs={"array": result},
        params={"factor": factor},
        **options,
    )


def test_what_needs_a_stage_that_was_passed_over_is_passed_over_too() -> None:
    chain = Chain(
        [
            _scale("a", "x", "y", 2, when="max(x) > 0"),
            _scale("b", "y", "z", 2),
            _scale("c", "z", "w", 2),
            _scale("d", "x", "v", 3),
        ],
        outputs=["y", "z", "w", "v"],
    )
    assert {name: float(value) for name, value in chain.run({"x": np.float32(1)}).outputs.items()} == {
        "y": 2, "z": 4, "w": 8, "v": 3,
    }  # fmt: skip
    prediction = chain.run({"x": np.float32(-1)})
    assert set(prediction.outputs) == {"v"}
    assert {trace.stage: trace.skipped for trace in prediction.stages} == {
        "a": True, "b": True, "c": True, "d": False,
    }  # fmt: skip


def test_a_join_takes_the_first_branch_that_was_taken() -> None:
    chain = Chain(
        [
            _scale("small", "x", "s", 10, when="max(x) < 1"),
            _scale("middle", "x", "m", 100, when="max(x) < 5"),
            Stage.join("first", ["s", "m"], output="y"),
            _scale("after", "y", "z", 1),
        ]
    )
    for value, expected in ((0.5, 5), (3, 300)):
        assert float(chain.run({"x": np.float32(value)}).outputs["z"]) == pytest.approx(expected)
    prediction = chain.run({"x": np.float32(9)})
    assert prediction.outputs == {}
    assert all(trace.skipped for trace in prediction.stages)


def test_a_join_may_fall_back_on_what_the_caller_gave() -> None:
    chain = Chain([_scale("a", "x", "y", 2, when="max(x) > 0"), Stage.join("j", ["y", "x"], output="z")])
    assert float(chain.run({"x": np.float32(3)}).outputs["z"]) == 6
    assert float(chain.run({"x": np.float32(-3)}).outputs["z"]) == -3


def test_a_condition_may_ask_what_a_stage_answered(make_bundle: MakeBundle, image: Array) -> None:
    def chain(when: str) -> Chain:
        return Chain(
            [
                # It stands before the stage that it asks about, and still runs after it.
                _scale("more", "image", "more", 1, when=when),
                Stage.from_model("read", Model(make_bundle())),
            ],
            outputs=["logits", "more"],
        )

    answer = Chain.from_bundle(make_bundle()).run(image)
    assert answer.confidence is not None
    for when, runs in (
        (f"confidence('read') < {answer.confidence + 0.01}", True),
        (f"confidence('read') < {answer.confidence - 0.01}", False),
        (f"label('read') == '{answer.label}'", True),
        ("label('read') == 'another'", False),
        ("source('read') == 'device'", True),
        ("source('read') == 'cloud'", False),
    ):
        assert ("more" in chain(when).run(image).outputs) is runs, when


def test_a_condition_that_cannot_be_compared_fails_the_run_and_not_the_chain() -> None:
    chain = Chain([_scale("a", "x", "y", 2, when="x > 0")])
    for _ in range(2):
        with pytest.raises(HybridgeError, match="condition 'x > 0'") as caught:
            chain.run({"x": np.zeros(3, np.float32)})
        assert caught.value.code is ErrorCode.CHAIN_INVALID
    assert chain.run({"x": np.ones((), np.float32)}).outputs["y"] == 2


def test_a_nested_chain_may_pass_its_output_over(models: Path) -> None:
    inner = Chain([_scale("a", "x", "y", 2, when="max(x) > 0")])
    chain = Chain([Stage.from_chain("inner", inner), _scale("b", "y", "z", 2)], outputs=["y", "z"])
    assert float(chain.run({"x": np.float32(1)}).outputs["z"]) == 4
    prediction = chain.run({"x": np.float32(-1)})
    assert prediction.outputs == {}
    assert [trace.skipped for trace in prediction.stages] == [False, True]
    assert prediction.stages[0].parts[0].skipped


def test_branches_of_conditions_run_from_many_threads(models: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    chain = Chain(
        [
            _scale("up", "x", "u", 2, when="max(x) > 0"),
            _scale("down", "x", "d", 3, when="max(x) <= 0"),
            Stage.join("j", ["u", "d"], output="z"),
        ]
    )
    values = np.random.default_rng(0).normal(size=300).astype(np.float32)
    with ThreadPoolExecutor(6) as pool:
        for value, prediction in zip(
            values, pool.map(lambda value: chain.run({"x": value}), values), strict=True
        ):
            assert prediction.outputs["z"] == pytest.approx(value * (2 if value > 0 else 3))
    chain.close()
