"""The sign translator at work: photographs or drawn signs in, the same signs in Spanish out, and a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sign.models import (
    BUNDLES,
    CLOUD_BUNDLES,
    cache_folder,
    cloud_chain,
    prepare,
    sign_chain,
)
from benchmarks.sign.report import render_report
from benchmarks.sign.texts import sign_texts
from edge_runtime import Chain, Prediction, load_chain
from edge_runtime.files import check_writable, write_file
from edge_runtime.operators import find_operator
from edge_runtime.prediction import StageTrace
from edge_runtime.sources.file_value import read_image
from edge_runtime.tensor_spec import Array

__all__ = ["Line", "Picture", "SignResult", "run_sign_demo"]

_DRAWN = 6
_SIZE = (360, 640)
_SEED = 20
# Share of the signs whose phrase goes over two lines.
_BROKEN = 0.4


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a sign: what it says, what it says in Spanish, how sure both are, and who said so."""

    text: str
    confidence: float
    source: str
    translation: str
    translated: bool
    translation_confidence: float
    translator: str
    font: str
    quad: list[list[float]]


@dataclass(frozen=True, slots=True)
class Picture:
    """One image: before and after as files, its lines, and milliseconds of each stage and in all."""

    name: str
    before: Path
    after: Path
    lines: tuple[Line, ...]
    stages_ms: dict[str, float]
    elapsed_ms: float


@dataclass(frozen=True, slots=True)
class SignResult:
    """All images, and where the report is."""

    pictures: tuple[Picture, ...]
    report: Path
    endpoint: bool
    apertium: bool

    def figures(self) -> dict[str, Any]:
        """For ``--format json``."""
        return {
            "pictures": [
                {
                    "name": picture.name,
                    "before": str(picture.before),
                    "after": str(picture.after),
                    "lines": picture.lines,
                    "stages_ms": picture.stages_ms,
                    "elapsed_ms": picture.elapsed_ms,
                }
                for picture in self.pictures
            ],
            "report": str(self.report),
            "endpoint": self.endpoint,
            "apertium": self.apertium,
        }


def run_sign_demo(
    out: Path,
    *,
    images: Sequence[Path] = (),
    endpoint: bool = True,
    overwrite: bool = False,
    models: Path | None = None,
    say: Callable[[str], None],
) -> SignResult:
    """Translates the signs in images; draws some when there are none.

    Args:
        out: Folder for pictures and report; made when it is missing.
        images: Photographs.
        endpoint: Whether to start one, with the larger reader and, where it is installed, Apertium.
        overwrite: Whether files of an earlier demo are replaced.
        models: Folder of the models, which are made on first use; the cache without it.
        say: Takes a line of progress.

    Raises:
        HybridgeError: `file-exists`, `file-not-found`, `input-invalid` for what is no image, `extra-missing`.
    """
    out.mkdir(parents=True, exist_ok=True)
    report = out / "report.html"
    check_writable(report, overwrite=overwrite)
    pictures = list(_pictures(images))
    folder = prepare(
        models or cache_folder(), say=say, models=(*BUNDLES, *(CLOUD_BUNDLES if endpoint else ()))
    )
    translates = False
    with ExitStack() as stack:
        address = None
        if endpoint:
            from benchmarks.sign.translation.apertium_pipeline import is_installed
            from cloud_fallback import EndpointProcess

            translates = is_installed("eng-spa")
            served = [str(cloud_chain(folder)), "benchmarks.sign.translation.apertium:english_spanish"]
            say("starting an endpoint with the larger reader" + (" and Apertium" if translates else ""))
            address = stack.enter_context(EndpointProcess(served)).address
        # What stays in the folder is the chain without an endpoint that is there no more.
        stack.callback(sign_chain, folder)
        chain = stack.enter_context(load_chain(sign_chain(folder, endpoint=address)))
        # The first image would otherwise pay for what is allocated once.
        chain.run({"image": pictures[0][1]})
        done = [_translated(chain, name, image, out, overwrite=overwrite) for name, image in pictures]
    result = SignResult(tuple(done), report, endpoint, translates)
    write_file(report, render_report(result).encode(), overwrite=overwrite)
    return result


def _pictures(paths: Sequence[Path]) -> Iterator[tuple[str, Array]]:
    if paths:
        for path in paths:
            yield path.stem, read_image(path)
        return
    from benchmarks.sign.drawing import sign_scenes

    scenes = sign_scenes(_DRAWN, size=_SIZE, seed=_SEED, phrases=sign_texts(), broken=_BROKEN)
    for number, scene in enumerate(scenes, 1):
        yield f"sign-{number}", scene.image


def _translated(chain: Chain, name: str, image: Array, out: Path, *, overwrite: bool) -> Picture:
    prediction = chain.run({"image": image})
    files = {"before": out / f"{name}-before.png", "after": out / f"{name}-after.png"}
    for path, pixels in zip(files.values(), (image, prediction.outputs["translated-image"]), strict=True):
        encoded: Array = find_operator("encode").run({"image": pixels}, {"format": "png"})["content"]
        write_file(path, encoded.tobytes(), overwrite=overwrite)
    return Picture(
        name,
        files["before"],
        files["after"],
        tuple(_lines(prediction)),
        {trace.stage: _milliseconds(trace) for trace in _flat(prediction.stages)},
        prediction.elapsed_ms,
    )


def _lines(prediction: Prediction) -> Iterator[Line]:
    outputs = prediction.outputs
    for index, text in enumerate(outputs["texts"]):
        yield Line(
            text=str(text),
            confidence=float(outputs["confidences"][index]),
            source=str(outputs["sources"][index]),
            translation=_word(outputs["translations"][index]),
            translated=bool(np.asarray(outputs["translated"][index]).reshape(-1)[0]),
            translation_confidence=float(
                np.asarray(outputs["translation-confidences"][index]).reshape(-1)[0]
            ),
            translator=str(outputs["translators"][index]),
            font=str(outputs["fonts"][index]),
            quad=outputs["quads"][index].tolist(),
        )


def _word(value: Array) -> str:
    return str(np.asarray(value).reshape(-1)[0])


def _flat(traces: Sequence[StageTrace]) -> Iterator[StageTrace]:
    """The stages, with those of a nested chain in its place; items are one stage together."""
    for trace in traces:
        nested = [part for part in trace.parts if part.stage.startswith(f"{trace.stage}/")]
        if nested:
            yield from _flat(nested)
        else:
            yield trace


def _milliseconds(trace: StageTrace) -> float:
    return round(trace.total_ms, 3)
