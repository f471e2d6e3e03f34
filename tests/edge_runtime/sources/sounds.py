"""Real sounds for tests."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from edge_runtime.tensor_spec import Array


def wave_file(
    samples: Array, *, rate: int = 16000, kind: int = 1, bits: int = 16, extra: Sequence[bytes] = ()
) -> bytes:
    """A WAV file of raw samples (n, channels), whose bytes are written as they are; `extra` chunks come first."""
    block = samples.shape[1] * bits // 8
    form = struct.pack("<HHIIHH", kind, samples.shape[1], rate, rate * block % 2**32, block, bits)
    data = samples.tobytes()
    chunks = b"".join([*extra, b"fmt " + struct.pack("<I", len(form)) + form])
    chunks += b"data" + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
