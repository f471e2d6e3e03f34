"""Fixtures that every package's tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import Bundle, Confidence, Manifest, Model
from edge_runtime.interpreter import load_interpreter, signatures
from edge_runtime.manifest import SCHEMA_VERSION, PreprocessingStep, RawInput
from edge_runtime.tensor_spec import TensorSpec

# Before anything imports TensorFlow: its C++ log would drown the test's own output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# A shell that starts the tests in the background has them ignore interrupts, which tests of interrupts would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LABELS = tuple(f"class-{index}" for index in range(10))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Says which tests belong in one process, where several run them: those of TensorFlow, and those of one file."""
    for item in items:
        group = "tensorflow" if item.get_closest_marker("tensorflow") else item.path.as_posix()
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the `.tflite` files that `tests.models` makes, such as `classifier` and `any-batch`.

    TensorFlow makes them, except where `HYBRIDGE_TEST_MODELS` names a folder of those that another machine made.
    """
    made_elsewhere = os.environ.get("HYBRIDGE_TEST_MODELS")
    if made_elsewhere:
        return Path(made_elsewhere)

    from tests.models import make_models

    folder = tmp_path_factory.mktemp("models")
    make_models(folder)
    return folder


@pytest.fixture(scope="session")
def make_bundle(models: Path) -> Callable[..., Bundle]:
    """Makes a bundle of the classifier: `make_bundle(name=..., threshold=..., raw=True for uint8 images of 0..16)`."""

    def make(
        *, model: str = "classifier", name: str = "digits", threshold: float | None = 0.5, raw: bool = False
    ) -> Bundle:
        content = (models / f"{model}.tflite").read_bytes()
        steps = (PreprocessingStep("scale", {"factor": 0.0625}),)
        takes = TensorSpec("image", (1, 8, 8, 1), "uint8")
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=name,
            version="1.0",
            signature=next(iter(signatures(load_interpreter(content)).values())),
            preprocessing=(RawInput("image", takes, steps),) if raw else (),
            labels=LABELS,
            confidence=Confidence("logits", threshold=threshold),
        )
        return Bundle.create(manifest, {"model.tflite": content})

    return make


@pytest.fixture(scope="session")
def accelerated(models: Path) -> None:
    """Skips what counts on XNNPACK where it takes no operators: under qemu, which does not say what processor it is."""
    from edge_runtime import Model

    if not any(each.accelerated for each in Model(models / "heavy-1.tflite").placements()):
        pytest.skip("XNNPACK takes no operators here, so none is accelerated and no weights are packed")


@pytest.fixture
def image() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """One float32 image of shape (1, 8, 8, 1) in 0..1, the same every time."""
    return np.random.default_rng(3).random((1, 8, 8, 1), dtype=np.float32)


def count_invocations(*models: Model) -> list[Model]:
    """A list to which each invocation of an instance that is idle now adds its model."""
    invoked: list[Model] = []
    for model in models:
        for instance in model._idle:

            def counted(
                model: Model = model, invoke: Callable[[], None] = instance.interpreter.invoke
            ) -> None:
                invoked.append(model)
                invoke()

            instance.interpreter.invoke = counted  # type: ignore[method-assign]
    return invoked
