from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_runtime.chain.chain_file as chain_file
from edge_runtime import Bundle, ErrorCode, HybridgeError, MemoryBudget, load_chain
from edge_runtime.tensor_spec import Array

MakeBundle = Callable[..., Bundle]


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """A folder with a few models, to write chains into."""
    for name in ("classifier", "classifier-newer", "any-batch", "running-sum", "heavy-1", "heavy-2"):
        (tmp_path / f"{name}.tflite").write_bytes((models / f"{name}.tflite").read_bytes())
    return tmp_path


def _refusal(folder: Path, text: str) -> str:
    path = folder / "chain.toml"
    path.write_text(text)
    with pytest.raises(HybridgeError) as caught:
        load_chain(path)
    assert caught.value.code is ErrorCode.CHAIN_INVALID
    return caught.value.message


def _line(text: str, part: str) -> int:
    """The number of the line of a text that has `part`."""
    (number,) = [number for number, line in enumerate(text.split("\n"), 1) if part in line]
    return number


FULL = """
name = "digits"
outputs = ["logits", "sure", "more"]
deadline_ms = 500
late = "drop"
memory_mb = 64

[[stages]]
name = "scale"
operator = "scale"
inputs = { array = "raw" }
outputs = { array = "images" }
foreach = "array"
  [stages.params]
  factor = 0.0625

[[stages]]
name = "read"
inputs = { image = "images" }
foreach = ["image"]
batch_size = 4
report = { confidence = "sure" }
  [[stages.tiers]]
  model = "classifier.tflite"
  confidence = { output = "logits", threshold = 0.99 }
  [[stages.tiers]]
  model = "classifier-newer.tflite"
  num_threads = 2
  instances = 2
  confidence = { output = "logits" }

[[stages]]
name = "sum"
model = "running-sum.tflite"
states = { state = "next" }
inputs = { x = "moment" }
outputs = { y = "total" }
when = \"\"\"(
  len(images) > 0
  and max(sure) > 0
)\"\"\"

[[stages]]
name = "more"
join = ["total", "moment"]
outputs = { joined = "more" }
"""


def test_everything_that_a_file_can_say_is_said(folder: Path) -> None:
    (folder / "chain.toml").write_text(FULL)
    chain = load_chain(folder / "chain.toml")
    assert (chain.name, chain.deadline_s, chain.late) == ("digits", 0.5, "drop")
    assert set(chain.inputs) == {"raw", "moment"}
    images = [np.full((8, 8, 1), value, np.uint8) for value in (3, 9)]
    ones = np.ones((1, 2), np.float32)
    for total in (2, 3, 4):
        prediction = chain.run({"raw": images, "moment": ones}, deadline_s=60)
        assert prediction.outputs["logits"].shape == (2, 10)
        assert prediction.outputs["sure"].shape == (2,)
        assert prediction.outputs["more"][0, 0] == total
        assert [part.tier for part in prediction.stages[1].parts] == [1, 1]
    assert chain.run({"raw": [], "moment": ones}).outputs["more"] is ones
    chain.close()


@pytest.mark.usefixtures("accelerated")
def test_a_budget_in_the_file_is_shared_by_its_models_and_one_that_is_given_goes_first(folder: Path) -> None:
    two = "".join(
        f"[[stages]]\nname = '{n}'\nmodel = 'heavy-{n}.tflite'\noutputs = {{ y = 'y{n}' }}\n" for n in (1, 2)
    )
    (folder / "chain.toml").write_text("memory_mb = 6\n" + two)
    x = np.ones((1, 1024), np.float32)
    chain = load_chain(folder / "chain.toml")
    for _ in range(3):
        outputs = chain.run({"x": x}).outputs
        assert not np.array_equal(outputs["y1"], outputs["y2"])
    budget = MemoryBudget(20_000_000)
    chain = load_chain(folder / "chain.toml", budget=budget)
    chain.run({"x": x})
    assert budget.used_bytes > 8_000_000
    assert re.search(
        r"stage '1' \(line 4\): model 'heavy-1': received a need of",
        _refusal(folder, "memory_mb = 1\n" + two),
    )


WRONG = '''
# """ opens nothing here
name = "wrong"
inputs = ["image", "pixels"]
outputs = ["logits", "chnaces"]
deadlin_ms = 3
late = "never"

[[stages]]
name = "scale"
note = """
[[stages]]
"""
operator = "scale"
inputs = { array = "pixles" }
outputs = { array = "scaled" }

[[stages]]
name = "read"                     # a comment
model = "classifier.tflite"
inptus = { image = "scaled" }
num_threads = 0
batch_size = "many"

[[stages]]
name = "params"
operator = "scale"
outputs = { array = "p" }
  [stages.params]
  faktor = 3

[[stages]]
name = "condition"
operator = "scale"
inputs = { array = "image" }
when = "image.shape"
outputs = { array = "c" }

[[stages]]
name = "reports"
model = "classifier.tflite"
report = { confidense = "x" }
outputs = { logits = "r" }

[[stages]]
name = "tiers"
  [[stages.tiers]]
  model = "classifier.tflite"
  [[stages.tiers]]
  modle = "classifier.tflite"

[[stages]]
name = "both"
model = "classifier.tflite"
operator = "scale"

[[stages]]
model = "classifier.tflite"

[[stages]]
name = "kind"
operator = "scale"
instances = 2
states = { a = "b" }
foreach = "ary"
outputs = { array = "k" }

[[stages]]
name = "score"
model = "classifier.tflite"
confidence = { output = "logit" }
outputs = { logits = "s" }

[[stages]]
name = "joined"
join = ["c", "k"]
outputs = { jioned = "j" }

[[stages]]
name = "file"
chain = "none.toml"

[[stages]]
name = "cloud"
model = "classifier.tflite"
outputs = { logits = "l" }
confidence = { output = "logits" }
fallback = { url = "ftp://x/y", threshold = 0.5 }
'''


def test_everything_that_is_wrong_is_said_at_once_and_where(folder: Path) -> None:
    said = _refusal(folder, WRONG)
    tiers, both = (_line(WRONG, f'name = "{name}"') for name in ("tiers", "both"))
    for part, problem in {
        "inptus": "stage 'read' (line {}): unknown key 'inptus'; did you mean 'inputs'?",
        "num_threads = 0": "stage 'read' (line {}): 'num_threads': Expected `int` >= 1",
        'batch_size = "many"': "stage 'read' (line {}): 'batch_size': Expected `int`, got `str`",
        "[stages.params]": "stage 'params' (line {}): settings of operator 'scale': received faktor",
        'when = "image.shape"': "stage 'condition' (line {}): condition 'image.shape'",
        "confidense": "stage 'reports' (line {}): reports of stage 'reports': received confidense",
        "instances = 2": "stage 'kind' (line {}): 'instances' is for model, and this is operator",
        "states = {": "stage 'kind' (line {}): 'states' is for model, and this is operator",
        'foreach = "ary"': "stage 'kind' (line {}): foreach: received ary, expected names among the inputs array",
        'confidence = { output = "logit" }': "stage 'score' (line {}): confidence output: received 'logit'",
        "jioned": "stage 'joined' (line {}): outputs of stage 'joined': received jioned, expected names among joined",
        'chain = "none.toml"': "stage 'file' (line {}): file ",
        "fallback = {": "stage 'cloud' (line {}): fallback 'ftp://x/y'",
    }.items():
        assert problem.format(_line(WRONG, part)) in said, problem
    for problem in (
        "unknown key 'deadlin_ms'; did you mean 'deadline_ms'?",
        "'late': Invalid enum value 'never'",
        f"stage 'tiers' (line {tiers + 1}): 'tiers': ",
        "`modle`",
        f"stage 'both' (line {both - 1}): it is model and operator",
        "stage 'number 8' (line ",
        "'name' is missing",
        "a fallback's 'threshold' is for chain, and this is model",
    ):
        assert problem in said, problem


MISTYPED = """
inputs = ["image"]
outputs = ["logits", "chnaces"]

[[stages]]
name = "read"
model = "classifier.tflite"
inputs = { image = "imaeg" }

[[stages]]
name = "chances"
operator = "softmax"
outputs = { logits = "chances" }
when = "confidence('raed') > 0.5 and len(imgae) > 0"

[[stages]]
name = "again"
model = "classifier.tflite"
inputs = { image = "logits" }
outputs = { logits = "image" }
"""


def test_tensors_that_are_mistyped_are_found_where_inputs_are_declared(folder: Path) -> None:
    said = _refusal(folder, MISTYPED)
    for problem in (
        "output 'chnaces' is made by no stage; did you mean 'chances'?",
        "stage 'read' (line 5): 'imaeg' is made by no stage and is no input; did you mean 'image'?",
        "stage 'chances' (line 10): 'imgae' is made by no stage and is no input; did you mean 'image'?",
        "stage 'chances' (line 10): condition \"confidence('raed')",
        "did you mean 'read'?",
        "input 'image' is also made by stage 'again' (line 16)",
        "stage 'again' (line 16): input 'image' is 'logits', float32[1, 10], expected float32[1, 8, 8, 1]",
    ):
        assert problem.replace('condition "', "condition '") in said, problem


def test_lines_are_right_where_a_cycle_and_two_of_a_name_are(folder: Path) -> None:
    text = (
        "\n[[stages]]\nname = 'a'\noperator = 'scale'\ninputs = {array = 'q'}\noutputs = {array = 'p'}\n"
        "[[stages]]\nname = 'a'\noperator = 'scale'\ninputs = {array = 'p'}\noutputs = {array = 'q'}\n"
    )
    said = _refusal(folder, text)
    assert "two stages are named 'a' (lines 2 and 7)" in said
    assert "wait for each other" in said
    assert "stage 'a' (line 2)" in said
    assert "stage 'a' (line 7)" in said


def test_stages_written_inline_are_checked_without_lines(folder: Path) -> None:
    said = _refusal(
        folder,
        "stages = [{ name = 'a', operator = 'sclae' }, { name = 'b', model = 'classifier.tflite', inptus = 3 }]",
    )
    assert "stage 'a': operator: received 'sclae'" in said
    assert "stage 'b': unknown key 'inptus'; did you mean 'inputs'?" in said
    (folder / "chain.toml").write_text(
        "stages = [{ name = 'a', operator = 'scale', params = { factor = 2 }, outputs = { array = 'y' } }]"
    )
    assert load_chain(folder / "chain.toml").run(np.array(3, np.float32)).outputs["y"] == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no stages"),
        ("stages = 'x'", "'stages' is no array of tables"),
        ("[stages]\nname = 'a'", "'stages' is no array of tables"),
        ("stages = [1, 2]", "'stages' is no array of tables"),
        ("[[stages]]", "'name' is missing"),
        ("[[stages]]\nname = 3\noperator = 'scale'", "line 2): 'name': Expected `str`"),
        ("[[stages]]\nname = 'a'\noperator = 'scale'\nname = 'b'", "TOML"),
        ("\ufeff[[stages]]", "TOML"),
        ("[[stages]]\nname = 'a'\njoin = []", "it is nothing"),
        ("memory_mb = -1\n[[stages]]\nname = 'a'\noperator = 'scale'", "'memory_mb'"),
        ("deadline_ms = 0\n[[stages]]\nname = 'a'\noperator = 'scale'", "'deadline_ms'"),
        ("[[stages]]\nname = 'a'\ntiers = [{ model = 'classifier.tflite' }, { model = 'classifier.tflite' }]",
         "tier 'classifier': received no threshold"),
        ("[[stages]]\nname = 'a'\nmodel = 'classifier.tflite'\nlabels = 'no.txt'", "no.txt"),
        ("[[stages]]\nname = 'a'\nmodel = 'chain.toml'", "no TFLite file"),
        ("[[stages]]\nname = 'a'\nmodel = 'running-sum.tflite'\nstates = { state = 'no' }", "line 4): states of model"),
    ],
)  # fmt: skip
def test_other_files_that_are_no_chain_say_why(folder: Path, text: str, said: str) -> None:
    assert said in _refusal(folder, text)


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / "chain.toml").write_bytes(b"name = '\xff\xfe'")
    with pytest.raises(HybridgeError) as caught:
        load_chain(folder / "chain.toml")
    assert caught.value.code is ErrorCode.CHAIN_INVALID
    with pytest.raises(HybridgeError) as caught:
        load_chain(folder / "none.toml")
    assert caught.value.code is ErrorCode.FILE_NOT_FOUND


def test_chains_that_contain_each_other_are_refused(folder: Path) -> None:
    (folder / "a.toml").write_text("[[stages]]\nname = 'b'\nchain = 'b.toml'")
    (folder / "b.toml").write_text("[[stages]]\nname = 'a'\nchain = './a.toml'")
    with pytest.raises(HybridgeError, match="contains itself") as caught:
        load_chain(folder / "a.toml")
    assert caught.value.code is ErrorCode.CHAIN_INVALID


class Opened:
    """A fallback that notes whether it was closed."""

    def __init__(self, url: str, **options: Any):
        self.url, self.options, self.closed = url, options, 0
        OPENED.append(self)

    def resolve(self, query: Any) -> Any: ...

    def close(self) -> None:
        self.closed += 1


OPENED: list[Opened] = []


def test_fallbacks_that_were_opened_are_closed_when_the_chain_cannot_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_file, "open_fallback", Opened)
    OPENED.clear()
    stage = (
        "[[stages]]\nname = '{0}'\nmodel = 'classifier.tflite'\noutputs = {{ logits = '{0}' }}\n"
        "confidence = {{ output = 'logits' }}\nfallback = {{ url = 'x://y' }}\n"
    )
    (folder / "inner.toml").write_text(stage.format("a"))
    nest = "[[stages]]\nname = 'nest'\nchain = 'inner.toml'\n"
    _refusal(folder, nest + stage.format("b") + "[[stages]]\nname = 'bad'\noperator = 'sclae'\n")
    assert [each.closed for each in OPENED] == [1, 1]
    OPENED.clear()
    (folder / "chain.toml").write_text(nest + stage.format("b"))
    with load_chain(folder / "chain.toml"):
        assert [each.closed for each in OPENED] == [0, 0]
    assert [each.closed for each in OPENED] == [1, 1]


def test_a_chain_that_was_read_gives_what_its_stages_give(folder: Path, image: Array) -> None:
    (folder / "chain.toml").write_text(
        "[[stages]]\nname = 'double'\noperator = 'scale'\nparams = { factor = 2.0 }\n"
        "inputs = { array = 'raw' }\noutputs = { array = 'image' }\n"
        "[[stages]]\nname = 'read'\nmodel = 'classifier.tflite'\n"
    )
    from edge_runtime import Model

    expected = Model(folder / "classifier.tflite").run(image * 2)["logits"]
    np.testing.assert_array_equal(load_chain(folder / "chain.toml").run(image).outputs["logits"], expected)


def test_fallbacks_given_for_what_is_no_stage_that_can_ask_are_refused(folder: Path) -> None:
    class Never:
        def resolve(self, query: Any) -> Any:
            raise AssertionError(query)

        def close(self) -> None: ...

    path = folder / "chain.toml"
    path.write_text(
        '[[stages]]\nname = "scale"\noperator = "scale"\noutputs = { array = "image" }\n\n'
        '[[stages]]\nname = "read"\nmodel = "classifier.tflite"\nconfidence = { output = "logits" }\n'
    )
    for name, expected in (
        ("raed", "received raed, expected stages among scale, read"),
        ("scale", "stage 'scale' (line 1): a fallback is given for it, and this is operator"),
    ):
        with pytest.raises(HybridgeError) as caught:
            load_chain(path, fallbacks={name: Never()})
        assert caught.value.code is ErrorCode.CHAIN_INVALID
        assert expected in caught.value.message
    with load_chain(path, fallbacks={"read": Never()}) as chain:
        assert [stage.fallback is not None for stage in chain.stages] == [False, True]
