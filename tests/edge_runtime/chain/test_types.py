"""What a chain finds out about its tensors when it is made: everything that cannot be, at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import Chain, ErrorCode, HybridgeError, Model, Stage
from edge_runtime.operators import operator
from edge_runtime.tensor_type import ANYTHING
from tests.edge_runtime.chain.conftest import ramp


@pytest.fixture(autouse=True)
def typed_operators(own_operators: None) -> None:
    @operator("letters", gives={"text": "text[]"})
    def letters(array: Any) -> Any:
        return np.array("a")

    @operator("cut", takes={"image": "T[h, w, c]"}, gives={"crops": "T[h, w, c]*"})
    def cut(image: Any) -> Any:
        return [image, image[:1]]

    @operator("pair", takes={"one": "T[n, ...]", "two": "T[n, ...]"}, gives={"both": "T[n, ...]"})
    def pair(one: Any, two: Any) -> Any:
        return one

    @operator("pad", takes={"array": "T[n]"}, gives={"array": "T[size]"})
    def pad(array: Any, *, size: int) -> Any:
        return np.resize(array, size)

    @operator("floats", takes={"array": "float32[...]"})
    def floats(array: Any) -> Any:
        return array

    @operator("rows", takes={"array": "uint8[n, 4]"})
    def rows(array: Any) -> Any:
        return array


def _operator(name: str, kind: str, source: dict[str, str], result: dict[str, str], **options: Any) -> Stage:
    return Stage.from_operator(name, kind, inputs=source, outputs=result, **options)


def _problems(stages: list[Stage], **settings: Any) -> str:
    with pytest.raises(HybridgeError, match="cannot be") as caught:
        Chain(stages, **settings)
    assert caught.value.code is ErrorCode.CHAIN_INVALID
    return caught.value.message


def test_a_type_that_a_model_does_not_take_is_found(models: Path) -> None:
    said = _problems(
        [
            _operator("write", "letters", {"array": "x"}, {"text": "image"}),
            Stage.from_model("read", Model(models / "classifier.tflite")),
        ]
    )
    assert "stage 'read': input 'image' is 'image', text[], expected float32[1, 8, 8, 1]" in said


def test_a_shape_that_a_model_does_not_take_is_found(models: Path) -> None:
    said = _problems(
        [
            Stage.from_model("add", Model(models / "arithmetic.tflite")),
            Stage.from_model("read", Model(models / "classifier.tflite"), inputs={"image": "total"}),
        ]
    )
    assert "stage 'read': input 'image' is 'total', float32[2, 3], expected float32[1, 8, 8, 1]" in said


def test_items_where_one_array_is_expected_are_found_and_the_other_way_round() -> None:
    cut = _operator("cut", "cut", {"image": "x"}, {"crops": "crops"})
    said = _problems([cut, _operator("again", "cut", {"image": "crops"}, {"crops": "more"})])
    assert "stage 'again': input 'image' is 'crops', items (any[h, w, c]*), expected one array" in said
    said = _problems(
        [
            _operator("write", "letters", {"array": "x"}, {"text": "t"}),
            _operator("stack", "stack", {"items": "t"}, {"array": "y"}),
        ]
    )
    assert "'t', one array (text[]), expected items (T[...]*)" in said


def test_a_letter_is_one_type_and_a_name_one_size() -> None:
    def chain(one: str, two: str) -> list[Stage]:
        return [
            _operator("write", "letters", {"array": "x"}, {"text": "t"}),
            _operator("five", "pad", {"array": "a"}, {"array": "f"}, params={"size": 5}),
            _operator("six", "pad", {"array": "a"}, {"array": "s"}, params={"size": 6}),
            _operator("floats", "floats", {"array": "b"}, {"array": "g"}),
            _operator("pair", "pair", {"one": one, "two": two}, {"both": "p"}),
        ]

    assert "input 'two' is 's', any[6], expected any[5]" in _problems(chain("f", "s"))
    assert "input 'one' is 't', text[], expected text[n, ...]" in _problems(chain("t", "f"))
    Chain(chain("f", "f"))
    Chain(chain("f", "g"))


def test_what_a_setting_says_of_a_shape_is_known_behind_it() -> None:
    resized = _operator("pad", "pad", {"array": "a"}, {"array": "y"}, params={"size": 9})
    chain = Chain([resized, _operator("on", "pad", {"array": "y"}, {"array": "z"}, params={"size": 3})])
    assert str(chain.output_types["z"]) == "any[3]"
    assert "uint8[n, 4]" in _problems([resized, _operator("rows", "rows", {"array": "y"}, {"array": "z"})])


def test_everything_that_is_wrong_is_said_at_once(models: Path) -> None:
    said = _problems(
        [
            _operator("write", "letters", {"array": "x"}, {"text": "image"}),
            Stage.from_model("read", Model(models / "classifier.tflite")),
            _operator("write", "letters", {"array": "x"}, {"text": "other"}),
            _operator("floats", "floats", {"array": "imaeg"}, {"array": "logits"}),
            _operator("late", "floats", {"array": "x"}, {"array": "w"}, when="confidence('raed') > 1"),
        ],
        inputs=["x", "y"],
        outputs=["w", "othr"],
    )
    for problem in (
        "two stages are named 'write'",
        "stage 'read' and stage 'floats' both make 'logits'",
        "output 'othr' is made by no stage; did you mean 'other'?",
        "stage 'floats': 'imaeg' is made by no stage and is no input; did you mean 'image'?",
        "asks for stage 'raed', which there is not; did you mean 'read'?",
        "input 'image' is 'image', text[], expected float32[1, 8, 8, 1]",
    ):
        assert problem in said, problem


def test_stages_that_wait_for_each_other_are_found_however_long_the_way() -> None:
    def scale(name: str, source: str, result: str, **options: Any) -> Stage:
        return _operator(name, "scale", {"array": source}, {"array": result}, **options)

    itself = "stage 'a' waits for what it makes itself"
    assert itself in _problems([scale("a", "x", "x")])
    assert itself in _problems([scale("a", "x", "y", when="confidence('a') > 0")])
    assert itself in _problems([scale("a", "x", "y", when="max(y) > 0")])
    around = [scale("a", "c", "y"), scale("b", "y", "z"), scale("c", "z", "w", when="len(y) > 0")]
    Chain(around)
    said = _problems([*around[:2], scale("c", "z", "c")])
    for name in "abc":
        assert f"stage '{name}'" in said
    assert "wait for each other" in _problems(
        [scale("a", "x", "y", when="label('b') == ''"), scale("b", "y", "z")]
    )


def test_a_caller_s_input_that_two_stages_take_differently_is_found(models: Path) -> None:
    said = _problems(
        [
            Stage.from_model("read", Model(models / "classifier.tflite")),
            _operator("rows", "rows", {"array": "image"}, {"array": "z"}),
        ]
    )
    assert "input 'array' is 'image', float32[1, 8, 8, 1], expected uint8[n, 4]" in said


def test_free_sizes_of_a_model_say_nothing_of_each_other(models: Path) -> None:
    # The interpreter calls every free first axis "batch", and the axis of a map as that of the photograph.
    pads = [
        _operator(
            f"pad-{size}", "reshape", {"array": "a"}, {"array": f"a{size}"}, params={"shape": [size, 3]}
        )
        for size in (2, 5)
    ]
    boxes = [
        Stage.from_model(f"to-{size}", Model(models / "any-batch.tflite"), inputs={"x": f"a{size}"},
                         outputs={"y": f"y{size}"})
        for size in (2, 5)
    ]  # fmt: skip
    Chain([*pads, *boxes])

    @operator("four", takes={"array": ""}, gives={"array": "float32[4, 3]"})
    def four(array: Any) -> Any:
        return ramp(4, 3)

    @operator("seven", takes={"array": ""}, gives={"array": "float32[7, 3]"})
    def seven(array: Any) -> Any:
        return ramp(7, 3)

    @operator("large", takes={"array": ""}, gives={"array": "float32[1, 9, 9, 3]"})
    def large(array: Any) -> Any:
        return ramp(1, 9, 9, 3)

    @operator("small", takes={"array": "float32[1, 5, 5, 2]"})
    def small(array: Any) -> Any:
        return array

    pair = Chain(
        [
            _operator("four", "four", {"array": "x"}, {"array": "left"}),
            _operator("seven", "seven", {"array": "x"}, {"array": "right"}),
            Stage.from_model("pair", Model(models / "any-pair.tflite")),
        ]
    )
    assert pair.run(ramp(1)).outputs["products"].shape == (4, 7)
    chain = Chain(
        [
            _operator("large", "large", {"array": "x"}, {"array": "photo"}),
            Stage.from_model("map", Model(models / "any-size.tflite")),
            _operator("small", "small", {"array": "map"}, {"array": "y"}),
        ]
    )
    assert chain.run(ramp(1)).outputs["y"].shape == (1, 5, 5, 2)


def test_integers_that_are_not_dequantised_are_integers_to_the_next_stage(models: Path) -> None:
    @operator("bytes-only", takes={"array": "int8[1, 10]"})
    def bytes_only(array: Any) -> Any:
        return array

    integers = Model(models / "classifier-int8.tflite", dequantize=False)
    after = _operator("after", "bytes-only", {"array": "logits"}, {"array": "y"})
    chain = Chain([Stage.from_model("read", integers), after])
    assert chain.run(np.zeros((1, 8, 8, 1), np.float32)).outputs["y"].dtype == np.int8
    assert "expected int8[1, 10]" in _problems(
        [Stage.from_model("read", Model(models / "classifier-int8.tflite")), after]
    )


def test_types_go_through_a_nested_chain(models: Path) -> None:
    inner = Chain(
        [
            _operator("keep", "expand-dims", {"array": "side"}, {"array": "kept"}),
            _operator("cut", "pad", {"array": "raw"}, {"array": "short"}, params={"size": 4}),
            _operator("both", "pair", {"one": "short", "two": "other"}, {"both": "result"}),
        ],
        name="inner",
        outputs=["result"],
    )
    write = _operator("write", "letters", {"array": "x"}, {"text": "t"})
    nest = Stage.from_chain("nest", inner, inputs={"raw": "r", "other": "o", "side": "s"})

    def five(result: str) -> Stage:
        return _operator("five", "pad", {"array": "q"}, {"array": result}, params={"size": 5})

    # Directly: a text of no axes where there is to be one.
    bad = Stage.from_chain("nest", inner, inputs={"raw": "t", "other": "o", "side": "s"})
    said = _problems([write, bad])
    assert (
        "stage 'nest': input 'raw' is 't', text[], with which in chain 'inner' stage 'cut': input 'array'"
        in said
    )
    # Further in: five against the four that the stage within makes.
    said = _problems([five("o"), nest])
    assert (
        "input 'other' is 'o', any[5], with which in chain 'inner' stage 'both': input 'two' is 'other'"
        in said
    )
    # The same names within are not the same sizes.
    Chain([five("r"), nest])
    # What comes out is what the stages within make of what goes in.
    chain = Chain([nest, _operator("on", "pad", {"array": "result"}, {"array": "z"}, params={"size": 2})])
    assert str(chain.input_types["r"]) == "T[n]"
    assert "uint8[n, 4]" in _problems([nest, _operator("rows", "rows", {"array": "result"}, {"array": "z"})])


def test_a_nested_chain_takes_inputs_of_different_sizes_whose_operators_use_the_same_names() -> None:
    inner = Chain(
        [
            _operator("one", "pad", {"array": "a"}, {"array": "c"}, params={"size": 2}),
            _operator("two", "pad", {"array": "b"}, {"array": "d"}, params={"size": 3}),
        ]
    )
    Chain(
        [
            _operator("five", "pad", {"array": "x"}, {"array": "a"}, params={"size": 5}),
            _operator("six", "pad", {"array": "x"}, {"array": "b"}, params={"size": 6}),
            Stage.from_chain("inner", inner),
        ]
    )


def test_a_join_is_of_a_type_only_when_all_branches_are_known_to_be() -> None:
    write = _operator("write", "letters", {"array": "x"}, {"text": "t"}, when="max(x) > 0")
    after = _operator("after", "floats", {"array": "z"}, {"array": "y"})
    assert "text[]" in _problems([write, Stage.join("j", ["t"], output="z"), after])
    Chain([write, Stage.join("j", ["t", "x"], output="z"), after])


def test_items_are_held_against_what_the_step_takes(models: Path) -> None:
    cut = _operator("cut", "cut", {"image": "x"}, {"crops": "crops"})
    rows = Stage.from_operator("rows", "rows", inputs={"array": "crops"}, foreach="array")
    assert "input 'array' is 'crops', items of any[h, w, c], expected uint8[n, 4]" in _problems([cut, rows])
    read = Stage.from_model(
        "read", Model(models / "classifier.tflite"), inputs={"image": "crops"}, foreach="image"
    )
    chain = Chain([cut, read])
    assert str(chain.output_types["logits"]) == "float32[items, 10]"
    write = _operator("write", "letters", {"array": "x"}, {"text": "crops"})
    flat = _operator("flat", "pad", {"array": "x"}, {"array": "crops"}, params={"size": 5})
    assert "items of any[]" in _problems([flat, read])
    assert "text" in _problems([write, read])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda m: Stage.from_model("s", m, inputs={"imgae": "x"}), "imgae"),
        (lambda m: Stage.from_model("s", m, outputs={"logit": "x"}), "logit"),
        (lambda m: Stage.from_model("s", m, report={"confidense": "x"}), "confidense"),
        (lambda m: Stage.from_model("s", m, foreach="imgae"), "imgae"),
        (lambda m: Stage.from_model("s", m, when="len("), "len("),
        (lambda _: Stage.from_tiers("s", []), "none"),
        (lambda _: Stage.from_operator("s", "scale", params={"faktor": 1}), "faktor"),
    ],
)
def test_a_stage_with_names_that_its_step_does_not_have_is_refused(
    models: Path, make: Any, said: str
) -> None:
    with pytest.raises(HybridgeError, match=said.replace("(", r"\(")) as caught:
        make(Model(models / "classifier.tflite"))
    assert caught.value.code is ErrorCode.CHAIN_INVALID


def test_what_is_not_known_is_anything() -> None:
    chain = Chain([_operator("c", "cast", {"array": "x"}, {"array": "y"}, params={"dtype": "int8"})])
    assert chain.output_types["y"] == ANYTHING
    assert chain.input_types["x"] == ANYTHING
