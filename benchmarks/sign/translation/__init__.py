"""Translates what a sign says, English to Spanish, on the device: a phrase book, and a network that finds the phrase.

The network was trained with the mistakes that readers of signs make, and knows when a text is in no phrase of the
book: an endpoint that runs Apertium is then asked. ``python -m benchmarks.sign.translation`` trains, converts and
measures it.

A device needs `encode_text`, the model in the bundle, and `translate`, which are operators; only training needs more
than `edge_runtime`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.sign.translation.chain import translation_chain
    from benchmarks.sign.translation.phrase_book import Phrase, PhraseBook
    from benchmarks.sign.translation.training import Trained, bundle_file, translation_bundle

__all__ = ["Phrase", "PhraseBook", "Trained", "bundle_file", "translation_bundle", "translation_chain"]

# A device loads none of what trains.
_LOADED_ON_DEMAND = {
    "Phrase": "phrase_book",
    "PhraseBook": "phrase_book",
    "Trained": "training",
    "bundle_file": "training",
    "translation_bundle": "training",
    "translation_chain": "chain",
}


def __getattr__(name: str) -> Any:
    if name not in _LOADED_ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LOADED_ON_DEMAND[name]}"), name)
