"""The chain as a reader of images that another process asks, by the same lines as `rapidocr_reader`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from edge_runtime import load_chain

__all__ = ["main"]

# What is read with less is left out, as RapidOCR and the translator do.
_LEAST = 0.5


def main() -> None:
    """Answers until standard input ends."""
    with load_chain(Path(sys.argv[1])) as chain:
        for line in sys.stdin:
            image = np.load(line.strip())
            start = time.perf_counter()
            outputs = chain.run({"image": image}).outputs
            seconds = time.perf_counter() - start
            rows = zip(outputs["quads"], outputs["texts"], outputs["confidences"], strict=True)
            lines = [
                {"quad": quad.tolist(), "text": str(text), "confidence": float(confidence)}
                for quad, text, confidence in rows
                if confidence >= _LEAST
            ]
            peak = next(
                int(row.split()[1]) * 1024
                for row in Path("/proc/self/status").read_text().splitlines()
                if row.startswith("VmHWM:")
            )
            sys.stdout.write(json.dumps({"seconds": seconds, "lines": lines, "peak_bytes": peak}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
