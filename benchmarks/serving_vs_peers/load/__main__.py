"""The generator's process: reads a job a line from standard input, and writes an outcome a line to standard output."""

from __future__ import annotations

import sys

import msgspec

from benchmarks.serving_vs_peers.load.job import Job
from benchmarks.serving_vs_peers.load.run import run_job
from edge_runtime.errors import HybridgeError


def main() -> None:
    """Runs jobs until standard input ends."""
    decoder = msgspec.json.Decoder(Job)
    for line in sys.stdin.buffer:
        try:
            reply: object = run_job(decoder.decode(line))
        except HybridgeError as error:
            reply = {"error": {"code": error.code, "message": error.message}}
        sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
