"""The runtime on the device: bundles, models, chains, operators and confidence, with no TensorFlow.

Importing this package loads NumPy, the TFLite interpreter and msgspec, and nothing else of weight.

Example:
    >>> from edge_runtime import Chain
    >>> chain = Chain.from_bundle("digits-1.0.edge")
    >>> prediction = chain.run({"image": image})
    >>> prediction.label, prediction.confidence, prediction.source
    ('7', 0.98, <Source.DEVICE: 'device'>)
"""

from edge_runtime.bundle import Bundle
from edge_runtime.chain import Chain
from edge_runtime.chain_file import load_chain
from edge_runtime.confidence import SCORES, Scorer
from edge_runtime.errors import ErrorCode, HybridgeError, Kind
from edge_runtime.fallback import Answer, Fallback, Query, open_fallback
from edge_runtime.manifest import Confidence, Manifest, TensorSpec
from edge_runtime.model import Model
from edge_runtime.operators import operator
from edge_runtime.prediction import Prediction, Reason, Source, StageTrace
from edge_runtime.preprocessing import Preprocessor
from edge_runtime.stage import Stage

__version__ = "0.1.0"

__all__ = [
    "SCORES",
    "Answer",
    "Bundle",
    "Chain",
    "Confidence",
    "ErrorCode",
    "Fallback",
    "HybridgeError",
    "Kind",
    "Manifest",
    "Model",
    "Prediction",
    "Preprocessor",
    "Query",
    "Reason",
    "Scorer",
    "Source",
    "Stage",
    "StageTrace",
    "TensorSpec",
    "__version__",
    "load_chain",
    "open_fallback",
    "operator",
]
