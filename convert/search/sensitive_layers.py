"""Which layers of one model to spare in mixed precision: those that cost most when they alone are quantised."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from convert.progress import Progress
from convert.recipes import Precision, Quantization

if TYPE_CHECKING:
    from convert.quantization import LayerSensitivity
    from convert.workbench import Workbench

__all__ = ["SensitiveLayers"]

# Layers after which it is clear how long all of them take.
_TIMED_LAYERS = 3


class SensitiveLayers:
    """See `LayerChoice`; ranks the layers once for each precision, when first asked.

    Args:
        workbench: The source and its data.
    """

    def __init__(self, workbench: Workbench):
        self._workbench = workbench
        self._ranked: dict[Precision, tuple[LayerSensitivity, ...]] = {}

    def count(self, base: Precision, *, seconds: float) -> int | None:
        """How many layers there are to spare; None when ranking them would take longer than that.

        Raises:
            HybridgeError: `data-invalid` without ranges that are needed; `conversion-failed`.
        """
        if base not in self._ranked:
            try:
                self._ranked[base] = self._rank(base, seconds)
            except _TooLongError:
                return None
        return len(self._ranked[base])

    def mixed(self, base: Quantization, keep: int) -> Quantization:
        """The quantization for all layers but the `keep` most sensitive ones, which `count` has ranked."""
        from convert.quantization import mixed

        return mixed(self._ranked[base.precision], base, keep)

    def _rank(self, base: Precision, seconds: float) -> tuple[LayerSensitivity, ...]:
        from convert.quantization import rank_layers

        bench, start = self._workbench, time.monotonic()
        bench.report(f"ranking layers by what {base} costs each alone")

        def watch(done: int, total: int) -> None:
            if done >= _TIMED_LAYERS and (time.monotonic() - start) / done * total > seconds:
                raise _TooLongError
            if isinstance(bench.report, Progress):
                bench.report.advance(done, total, "layers")

        content = bench.equalized(bench.float_model) if base.needs_representative else bench.float_model
        return rank_layers(
            content,
            bench.judged.batches(bench.batch_size),
            bench.ranges(content) if base.needs_representative else None,
            precision=base,
            scores=bench.scores,
            progress=watch,
        )


class _TooLongError(Exception):
    """Ends a ranking from within."""
