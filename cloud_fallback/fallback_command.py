"""`hybridge fallback`: what is worked out beside a fallback, such as the confidence below which it is asked."""

from __future__ import annotations

import click

from cloud_fallback.capacity.capacity_command import capacity
from cloud_fallback.client.drain_command import drain
from cloud_fallback.client.table_command import table
from cloud_fallback.endpoint.token_command import token
from cloud_fallback.threshold.fit_command import fit

__all__ = ["fallback"]


@click.group()
def fallback() -> None:
    """Works out when the cloud is asked and how many replicas answer; tables of answers, outboxes and tokens."""


fallback.add_command(capacity)
fallback.add_command(drain)
fallback.add_command(fit)
fallback.add_command(table)
fallback.add_command(token)
