"""`hybridge fallback`: what is worked out beside a fallback, such as the confidence below which it is asked."""

from __future__ import annotations

import click

from cloud_fallback.capacity.capacity_command import capacity
from cloud_fallback.threshold.fit_command import fit

__all__ = ["fallback"]


@click.group()
def fallback() -> None:
    """Fits the threshold below which the cloud is asked, and works out how many replicas answer."""


fallback.add_command(capacity)
fallback.add_command(fit)
