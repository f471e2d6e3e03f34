"""The runtime on the device: bundles, models, chains, operators and confidence, with no TensorFlow.

What is used is loaded when it is first asked for; all of it together loads NumPy, the TFLite interpreter and msgspec,
and nothing else of weight.

Example:
    >>> from edge_runtime import Chain
    >>> chain = Chain.from_bundle("digits-1.0.edge")
    >>> prediction = chain.run({"image": image})
    >>> prediction.label, prediction.confidence, prediction.source
    ('7', 0.98, <Source.DEVICE: 'device'>)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle
    from edge_runtime.chain import Canary, Chain, Stage, Tier, load_chain
    from edge_runtime.confidence import SCORES, Scorer
    from edge_runtime.errors import ErrorCode, HybridgeError, Kind
    from edge_runtime.fallback import Answer, Deferring, Fallback, LateAnswer, Query, open_fallback
    from edge_runtime.frame import Frame, StreamResult
    from edge_runtime.manifest import Confidence, Manifest
    from edge_runtime.memory_budget import MemoryBudget
    from edge_runtime.model import Model
    from edge_runtime.operators import operator
    from edge_runtime.prediction import Prediction, Reason, Source, StageTrace
    from edge_runtime.preprocessing import Preprocessor
    from edge_runtime.tensor_spec import TensorSpec

__version__ = "0.1.0"

__all__ = [
    "SCORES",
    "Answer",
    "Bundle",
    "Canary",
    "Chain",
    "Confidence",
    "Deferring",
    "ErrorCode",
    "Fallback",
    "Frame",
    "HybridgeError",
    "Kind",
    "LateAnswer",
    "Manifest",
    "MemoryBudget",
    "Model",
    "Prediction",
    "Preprocessor",
    "Query",
    "Reason",
    "Scorer",
    "Source",
    "Stage",
    "StageTrace",
    "StreamResult",
    "TensorSpec",
    "Tier",
    "__version__",
    "load_chain",
    "open_fallback",
    "operator",
]

_HOMES = {
    "Bundle": "bundle",
    "Chain": "chain",
    "Canary": "chain",
    "Stage": "chain",
    "Tier": "chain",
    "load_chain": "chain",
    "Frame": "frame",
    "StreamResult": "frame",
    "MemoryBudget": "memory_budget",
    "SCORES": "confidence",
    "Scorer": "confidence",
    "ErrorCode": "errors",
    "HybridgeError": "errors",
    "Kind": "errors",
    "Answer": "fallback",
    "Deferring": "fallback",
    "LateAnswer": "fallback",
    "Fallback": "fallback",
    "Query": "fallback",
    "open_fallback": "fallback",
    "Confidence": "manifest",
    "Manifest": "manifest",
    "Model": "model",
    "operator": "operators",
    "Prediction": "prediction",
    "Reason": "prediction",
    "Source": "prediction",
    "StageTrace": "prediction",
    "Preprocessor": "preprocessing",
    "TensorSpec": "tensor_spec",
}


def __getattr__(name: str) -> Any:
    # PEP 562: `hybridge --version` or a process that only needs the errors does not wait for NumPy.
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
