"""Operators on the lines of a sign: which are kept, which are redrawn, and how the others are marked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_runtime import operator
from edge_runtime.operators import find_operator
from edge_runtime.tensor_spec import Array

__all__ = ["keep_lines", "mark_lines", "pick_translated", "upright_quads"]


@operator(
    "sign-keep",
    takes={
        "quads": "float32[n, 4, 2]",
        "crops": "uint8[h, w, 3]*",
        "texts": "",
        "confidences": "",
        "sources": "text[n]",
    },
    gives={
        "quads": "float32[kept, 4, 2]",
        "crops": "uint8[h, w, 3]*",
        "texts": "text[kept]",
        "confidences": "float32[kept]",
        "sources": "text[kept]",
    },
)
def keep_lines(
    quads: Array,
    crops: Sequence[Array],
    texts: Sequence[Array],
    confidences: Sequence[Array],
    sources: Array,
    *,
    threshold: float = 0.5,
) -> dict[str, Array | list[Array]]:
    """The lines that were read with some confidence; what a detector took for text and is none is mostly not.

    Args:
        quads: Corners of each line.
        crops: Each line, upright.
        texts: What it says.
        confidences: How sure that is, in 0..1.
        sources: Where the reading came from.
        threshold: The confidence below which a line is left out, 0.5 in RapidOCR too.
    """
    words = [str(np.asarray(text).reshape(-1)[0]) for text in texts]
    chances = np.array([float(np.asarray(each).reshape(-1)[0]) for each in confidences], np.float32)
    kept = [index for index, text in enumerate(words) if text.strip() and chances[index] >= threshold]
    return {
        "quads": quads[kept],
        "crops": [crops[index] for index in kept],
        "texts": np.array([words[index] for index in kept], np.str_),
        "confidences": chances[kept],
        "sources": np.array([str(sources[index]) for index in kept], np.str_),
    }


@operator(
    "sign-upright-quads",
    takes={"quads": "float32[n, 4, 2]", "probabilities": "float32[n, 2]"},
    gives={"quads": "float32[n, 4, 2]"},
)
def upright_quads(
    quads: Array, probabilities: Array, *, turn_ratio: float = 1.5, threshold: float = 0.9
) -> Array:
    """Corners that begin at the top left of the text, where its crop was turned.

    Args:
        quads: Corners of each line as the detector gives them.
        probabilities: Of each line's crop to be upright, and to be upside down.
        turn_ratio: As `crop-quads` was given it: such a line's crop was turned by a quarter.
        threshold: As `rotate-by-class` was given it: such a line's crop was turned by a half.
    """
    begun = quads.copy()
    for index, quad in enumerate(quads):
        across = max(np.linalg.norm(quad[1] - quad[0]), np.linalg.norm(quad[2] - quad[3]))
        down = max(np.linalg.norm(quad[3] - quad[0]), np.linalg.norm(quad[2] - quad[1]))
        quarters = int(bool(turn_ratio) and down >= across * turn_ratio)
        halves = int(probabilities[index].argmax() == 1 and probabilities[index, 1] > threshold)
        begun[index] = np.roll(quad, -(quarters + 2 * halves), axis=0)
    return begun


_PER_LINE = {
    "quads": "float32[n, 4, 2]",
    "texts": "text[n]",
    "translations": "text[n]",
    "translated": "bool[n]",
    "fonts": "text[n]",
    "inks": "uint8[n, 3]",
    "papers": "uint8[n, 3]",
    "extents": "float32[n, 4]",
    "softness": "float32[n]",
    "weights": "float32[n]",
}


@operator(
    "sign-pick-translated",
    takes=_PER_LINE,
    gives={name: kind.replace("[n", "[picked") for name, kind in _PER_LINE.items() if name != "translated"}
    | {"others": "float32[left, 4, 2]"},
)
def pick_translated(
    quads: Array,
    texts: Array,
    translations: Array,
    translated: Array,
    fonts: Array,
    inks: Array,
    papers: Array,
    extents: Array,
    softness: Array,
    weights: Array,
) -> dict[str, Array]:
    """Everything that is known of the lines that have a translation, and the corners of the `others`.

    A translation that says the same as the line is none: its letters are better than any that could be drawn.
    """
    is_new = np.array(
        [
            bool(done) and str(new) != str(old)
            for done, new, old in zip(translated, translations, texts, strict=True)
        ],
        bool,
    )
    picked = {
        "quads": quads,
        "texts": texts,
        "translations": translations,
        "fonts": fonts,
        "inks": inks,
        "papers": papers,
        "extents": extents,
        "softness": softness,
        "weights": weights,
    }
    kept_as_it_is = np.array([not done for done in translated], bool)
    return {name: values[is_new] for name, values in picked.items()} | {"others": quads[kept_as_it_is]}


@operator(
    "sign-mark",
    takes={"image": "uint8[height, width, 3]", "quads": "float32[n, 4, 2]"},
    gives={"image": "uint8[height, width, 3]"},
)
def mark_lines(image: Array, quads: Array) -> Array:
    """The image with a frame around the lines that stay as they were, since nobody could translate them."""
    if not len(quads):
        return image
    drawn: Array = find_operator("draw-quads").run({"image": image, "quads": quads}, {})["image"]
    return drawn
