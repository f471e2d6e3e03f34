"""RapidOCR as a reader of images that another process asks; runs in an environment of its own, without hybridge.

A line of standard input is a path to a .npy with an RGB image; a line of standard output is what was read.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from rapidocr_onnxruntime import RapidOCR


def main() -> None:
    """Answers until standard input ends."""
    threads = int(sys.argv[1])
    engine = RapidOCR(intra_op_num_threads=threads, inter_op_num_threads=1)
    for line in sys.stdin:
        # OpenCV's order, as RapidOCR takes arrays.
        image = np.ascontiguousarray(np.load(line.strip())[:, :, ::-1])
        start = time.perf_counter()
        found, _ = engine(image)
        seconds = time.perf_counter() - start
        lines = [
            {"quad": quad, "text": text, "confidence": float(score)} for quad, text, score in found or []
        ]
        with open("/proc/self/status") as status:
            peak = next(int(row.split()[1]) * 1024 for row in status if row.startswith("VmHWM:"))
        sys.stdout.write(
            json.dumps({"seconds": seconds, "lines": lines, "peak_bytes": peak}, default=float) + "\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
