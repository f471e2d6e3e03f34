"""Load for servers of the Open Inference Protocol, from a process of its own that costs little."""

from benchmarks.serving_vs_peers.load.job import Job, Outcome
from benchmarks.serving_vs_peers.load.load_generator import LoadGenerator

__all__ = ["Job", "LoadGenerator", "Outcome"]
