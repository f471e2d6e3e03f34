"""Chains: graphs of models, operators and other chains over named tensors, in Python and in TOML."""

from edge_runtime.chain.chain import Chain
from edge_runtime.chain.chain_file import load_chain
from edge_runtime.chain.stage import Stage
from edge_runtime.chain.swap import Canary
from edge_runtime.chain.tier import Tier

__all__ = ["Canary", "Chain", "Stage", "Tier", "load_chain"]
