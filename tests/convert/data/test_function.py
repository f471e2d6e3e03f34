from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from convert.data import load_dataset
from convert.data.function import MOST_SAMPLES
from edge_runtime import ErrorCode, HybridgeError, TensorSpec
from edge_runtime.manifest import PreprocessingStep, RawInput

POINT = (TensorSpec("point", ("batch", 2), "float32"),)
MODULE = """
import itertools
import numpy as np

def sample(index, **more):
    return {"point": np.float32([index, 1]), **more}

def labelled():
    for index in range(5):
        yield sample(index, label=index % 2, writer="ann" if index < 2 else "bob", unused=[1, 2])

def listed():
    return [sample(index) for index in range(3)]

def forever():
    return map(sample, itertools.count())

def varying():
    for size in (3, 5):
        yield {"point": np.arange(size * 2, dtype=np.uint8).reshape(size, 2)}

def nothing():
    return None

def none():
    return iter(())

def arrays():
    return {"point": np.zeros((4, 2), np.float32)}

def batches():
    yield {"point": np.zeros((4, 2), np.float32)}

def tuples():
    yield np.zeros(2, np.float32), 1

def misnamed():
    yield {"x": np.zeros(2, np.float32)}

def doubles():
    yield {"point": [1.0, 2.0]}

def broken():
    yield sample(0)
    raise KeyError("row 1")

def half_labelled():
    yield sample(0, label=1)
    yield sample(1)

def one_hot():
    yield sample(0, label=[0, 1])

def not_finite():
    yield sample(0)
    yield sample(np.nan)

def takes_one(path):
    yield sample(0)

VALUE = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_samples.py").write_text(MODULE)
    (tmp_path / "own_broken.py").write_text("import no_such_module")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield
    assert sys.path == before
    sys.modules.pop("own_samples", None)


def test_a_function_yields_a_dictionary_a_sample() -> None:
    data = load_dataset("own_samples:labelled", POINT, slices=("writer", "label"))
    assert data.inputs["point"].tolist() == [[0, 1], [1, 1], [2, 1], [3, 1], [4, 1]]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 0, 1, 0]
    assert data.slices["writer"].tolist() == ["ann", "ann", "bob", "bob", "bob"]
    assert data.notes == ()
    assert load_dataset("own_samples:labelled", POINT).digest == data.digest
    assert load_dataset("own_samples:listed", POINT).digest != data.digest


def test_one_that_yields_for_ever_is_stopped() -> None:
    assert load_dataset("own_samples:forever", POINT, limit=7).inputs["point"][:, 0].tolist() == list(
        range(7)
    )
    data = load_dataset("own_samples:forever", POINT)
    assert len(data) == MOST_SAMPLES
    assert "first 10,000 samples" in data.notes[0]


def test_raw_samples_may_vary_in_size() -> None:
    steps = (
        PreprocessingStep("resize", {"height": 1, "width": 2, "interpolation": "nearest"}),
        PreprocessingStep("scale", {"factor": 0.5}),
    )
    raw = RawInput("point", TensorSpec("point", ("size", 2), "uint8"), steps)
    assert load_dataset("own_samples:varying", POINT, (raw,)).inputs["point"].shape == (2, 2)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("own_samples:missing", "no attribute 'missing'"),
        ("no_such_package:f", "No module named 'no_such_package'"),
        ("own_broken:f", "No module named 'no_such_module'"),
        ("own_samples:VALUE", "not callable"),
        ("own_samples:nothing", "returns nothing"),
        ("own_samples:none", "no samples"),
        ("own_samples:arrays", "returns a dict"),
        ("own_samples:batches", "without the batch"),
        ("own_samples:tuples", "received a tuple"),
        ("own_samples:misnamed", "a dictionary with x"),
        ("own_samples:doubles", "float64, expected float32"),
        ("own_samples:broken", "raised KeyError: 'row 1'"),
        ("own_samples:half_labelled", "sample 1 of dataset 'own_samples:half_labelled': received no label"),
        ("own_samples:one_hot", "argmax"),
        ("own_samples:not_finite", "sample 1"),
        ("own_samples:takes_one", "missing 1 required positional argument"),
    ],
)
def test_a_function_that_gives_no_samples_is_refused(function: str, said: str) -> None:
    with pytest.raises(HybridgeError) as caught:
        load_dataset(function, POINT)
    assert caught.value.code is ErrorCode.DATA_INVALID
    assert said in caught.value.message


def test_a_slice_that_a_function_does_not_yield_is_refused() -> None:
    with pytest.raises(HybridgeError, match="point, writer"):
        load_dataset("own_samples:listed", POINT, slices=("writer",))


@pytest.mark.parametrize("text", ["no:such:thing", "own_samples.py:labelled/x", "data.npz", ":f", "3d:f"])
def test_text_that_names_nothing_is_file_not_found(text: str) -> None:
    with pytest.raises(HybridgeError, match="module:function") as caught:
        load_dataset(text, POINT)
    assert caught.value.code is ErrorCode.FILE_NOT_FOUND


def test_a_path_with_a_colon_is_a_path(tmp_path: Path) -> None:
    np.savez(tmp_path / "own_samples:labelled", point=np.zeros((2, 2), np.float32))
    (tmp_path / "own_samples:labelled.npz").rename(tmp_path / "own_samples:labelled")
    assert len(load_dataset("own_samples:labelled", POINT)) == 2
