"""The translator as a chain of three stages, which runs on its own or as a stage of another chain."""

from __future__ import annotations

from os import PathLike

from benchmarks.sign.translation import encoding, translating
from edge_runtime import Bundle, Chain, ErrorCode, HybridgeError, Model, Stage

__all__ = ["translation_chain"]

# The operators of this package are found without its being installed, too.
_OPERATORS = (encoding.encode_text, translating.translate)


def translation_chain(source: Bundle | str | PathLike[str], *, num_threads: int = 1) -> Chain:
    """A chain that takes `text` and gives `translation`, `confidence`, and whether it was `translated`.

    Args:
        source: The bundle that training made, or a path to it.
        num_threads: Threads that the network may use.

    Raises:
        HybridgeError: `file-not-found`, `bundle-damaged`; `confidence-invalid` for a bundle without a threshold.

    Example:
        >>> chain = translation_chain("sign-translation-1.edge")
        >>> str(chain.run({"text": np.array("N0 PARKlNG")}).outputs["translation"])
        'PROHIBIDO APARCAR'
    """
    model = Model(source, num_threads=num_threads)
    confidence = model.bundle.manifest.confidence if model.bundle else None
    if confidence is None or confidence.threshold is None:
        raise HybridgeError(
            ErrorCode.CONFIDENCE_INVALID,
            f"bundle '{model.name}'",
            received="no threshold",
            expected="a bundle made by benchmarks.sign.translation",
        )
    return Chain(
        [
            Stage.from_operator("encode", "sign-encode-text"),
            Stage.from_model("find", model),
            Stage.from_operator("translate", "sign-translate", params={"threshold": confidence.threshold}),
        ],
        name="translate",
        outputs=("translation", "confidence", "translated"),
        confidence="confidence",
    )
