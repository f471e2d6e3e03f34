"""The models of the sign translator: fetched, converted and trained on first use, then taken from a folder.

Detection, direction and recognition are those of PP-OCR (Du et al., "PP-OCR: A Practical Ultra Lightweight OCR
System", 2020), version 4, from the wheel of `rapidocr-onnxruntime`; the endpoint's larger reader is that of version 5.
The network that translates and the one that tells fonts apart are trained by this package.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from benchmarks.onnx_ocr.models import MODELS, OcrModel, characters, fetch
from benchmarks.sign.translation.training import bundle_file
from edge_runtime.tensor_spec import Array

if TYPE_CHECKING:
    from convert import Conversion

__all__ = ["BUNDLES", "SignModel", "cache_folder", "cloud_chain", "prepare", "reading_chain", "sign_chain"]

# Its name is tied to the phrase book: another book is another network.
_TRANSLATION = bundle_file()
_DETECTION, _DIRECTION, _RECOGNITION, _CLOUD_RECOGNITION = MODELS


Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SignModel:
    """One model of the translator.

    Attributes:
        file: Its name in the folder.
        what: What it is, for the line of progress.
        make: Writes it, given the folder, the file's path, and where lines of progress go.
    """

    file: str
    what: str
    make: Callable[[Path, Path, Say], None]


def cache_folder() -> Path:
    """Where models are kept: ``$XDG_CACHE_HOME/hybridge/sign``, by default below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hybridge" / "sign"


def prepare(folder: Path, *, say: Say, models: Sequence[SignModel] | None = None) -> Path:
    """Makes what the folder lacks; returns the folder.

    Args:
        folder: Where models are kept.
        say: Takes a line of progress for each model that has to be made.
        models: Those that are needed; all by default.

    Raises:
        HybridgeError: What conversion raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for model in BUNDLES if models is None else models:
        path = folder / model.file
        if not path.exists():
            say(f"making {model.file}: {model.what}")
            # Beside it and renamed, so that an interrupted demo leaves no half of a model.
            unfinished = folder / f"unfinished-{model.file}"
            try:
                model.make(folder, unfinished, say)
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)
    return folder


def reading_chain(folder: Path, *, num_threads: int = 2) -> Path:
    """Writes the chain that reads, beside the models that it names, for so many threads; returns its path."""
    return _write_chains(folder, ("line.toml", "reading.toml"), num_threads=num_threads)


def sign_chain(folder: Path, *, num_threads: int = 2, endpoint: str | None = None) -> Path:
    """Writes the whole translator beside its models; returns its path.

    Args:
        folder: Where the models are.
        num_threads: Threads of the detector, and lines that are read at once.
        endpoint: Host and port of the endpoint that is asked when the device is unsure; without one it is alone.
    """
    names = ("line.toml", "reading.toml", "translation.toml", "sign.toml")
    return _write_chains(folder, names, num_threads=num_threads, endpoint=endpoint)


def cloud_chain(folder: Path) -> Path:
    """Writes the chain of the endpoint's larger reader beside its model; returns its path."""
    text = _chain_text("line.toml")
    for device, cloud in (
        ('name = "line"', 'name = "sign-reader"'),
        ("recognition.edge", "reader-v5.edge"),
        ("softmax_11.tmp_0", _output_of(folder / "reader-v5.edge")),
        ("characters.txt", "characters-v5.txt"),
    ):
        text = text.replace(device, cloud)
    path = folder / "sign-reader.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _write_chains(
    folder: Path, names: Sequence[str], *, num_threads: int, endpoint: str | None = None
) -> Path:
    for name in names:
        text = _chain_text(name)
        # The detector uses threads within an invocation; lines are read side by side.
        text = text.replace("num_threads = 2", f"num_threads = {num_threads}")
        text = text.replace("instances = 2", f"instances = {num_threads}")
        text = text.replace('"translation.edge"', f'"{_TRANSLATION}"')
        if "TRANSLATION_THRESHOLD" in text:
            text = text.replace("TRANSLATION_THRESHOLD", f"{_threshold_of(folder / _TRANSLATION):.6f}")
        lines = text.splitlines(keepends=True)
        if endpoint is None:
            lines = [line for line in lines if not line.startswith("fallback = ")]
        text = "".join(lines).replace("127.0.0.1:8001", endpoint or "")
        (folder / name).write_text(text, encoding="utf-8")
    return folder / names[-1]


def _chain_text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _threshold_of(bundle: Path) -> float:
    from edge_runtime import Bundle

    confidence = Bundle.open(bundle).manifest.confidence
    return confidence.threshold or 0.0 if confidence else 0.0


def _output_of(bundle: Path) -> str:
    from edge_runtime import Bundle

    return Bundle.open(bundle).manifest.signature.outputs[0].name


def _converted(
    model: OcrModel,
    folder: Path,
    recipe_name: str,
    shape: tuple[int | str, ...],
    *,
    method: str | None = None,
) -> Conversion:
    """A model that takes images of this shape, channels last; sizes that have names stay free."""
    import onnx

    from convert import Method, ParityBounds, convert, load_recipe
    from convert.recipe_options import with_options

    path = fetch(model, folder)
    name = onnx.load(path, load_external_data=False).graph.input[0].name
    recipe = load_recipe(recipe_name)
    if method is not None:
        recipe = with_options(recipe, method=Method(method))
    examples = {name: _examples(model)}
    return convert(
        path,
        recipe=recipe,
        name=f"sign-{model.kind}",
        shapes={name: shape},
        channels_last=True,
        representative=examples if recipe.needs_representative else None,
        evaluation=examples,
        # Judged by what it reads, in the benchmark: single probabilities may well differ.
        bounds=ParityBounds(),
    )


def _examples(model: OcrModel) -> Array:
    from benchmarks.onnx_ocr.text import lines, pages

    _, _, height, width = model.shape
    images = (
        pages(24, size=(height, width), seed=7)
        if model.kind == "detection"
        else lines(48, size=(height, width), seed=7)[0]
    )
    return images.transpose(0, 2, 3, 1)


def _make_detection(folder: Path, path: Path, _say: Say) -> None:
    shape = (1, "height=320", "width=320", 3)
    _converted(_DETECTION, folder, "dynamic-int8", shape, method="gptq").save(path)


def _make_direction(folder: Path, path: Path, _say: Say) -> None:
    _converted(_DIRECTION, folder, "weight-only-int8", (1, 48, 192, 3)).save(path)


def _make_recognition(folder: Path, path: Path, _say: Say) -> None:
    _converted(_RECOGNITION, folder, "dynamic-int8", (1, 48, "width=320", 3)).save(path)


def _make_cloud_reader(folder: Path, path: Path, _say: Say) -> None:
    _converted(_CLOUD_RECOGNITION, folder, "float32", (1, 48, "width=320", 3)).save(path)


def _make_translation(_folder: Path, path: Path, say: Say) -> None:
    from benchmarks.sign.translation import translation_bundle

    translation_bundle(say=say).bundle.save(path)


def _make_font(_folder: Path, path: Path, say: Say) -> None:
    from benchmarks.sign.font_model import train_font_model
    from benchmarks.sign.translation.phrase_book import phrase_book

    train_font_model(
        [phrase.english for phrase in phrase_book().phrases if not phrase.kinds], report=say
    ).save(path)


def _make_cloud_characters(folder: Path, path: Path, _say: Say) -> None:
    _write_characters(_CLOUD_RECOGNITION, folder, path)


def _make_characters(folder: Path, path: Path, _say: Say) -> None:
    _write_characters(_RECOGNITION, folder, path)


def _write_characters(model: OcrModel, folder: Path, path: Path) -> None:
    listed = characters(fetch(model, folder), model)
    # Without the first, which stands for none.
    path.write_text("".join(f"{each}\n" for each in listed[1:]), encoding="utf-8")


BUNDLES: tuple[SignModel, ...] = (
    SignModel("detection.edge", "PP-OCRv4 text detection, converted and quantised", _make_detection),
    SignModel("direction.edge", "PP-OCR text direction, converted and quantised", _make_direction),
    SignModel("recognition.edge", "PP-OCRv4 text recognition, converted and quantised", _make_recognition),
    SignModel("characters.txt", "the characters that it reads", _make_characters),
    SignModel(
        _TRANSLATION,
        "the network that finds a sign's phrase, trained on the phrase book",
        _make_translation,
    ),
    SignModel("font.edge", "the classifier of fonts, trained on those of matplotlib", _make_font),
)
CLOUD_BUNDLES: tuple[SignModel, ...] = (
    SignModel("reader-v5.edge", "PP-OCRv5 text recognition, converted, for the endpoint", _make_cloud_reader),
    SignModel("characters-v5.txt", "the characters that it reads", _make_cloud_characters),
)
