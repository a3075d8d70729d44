"""Whether a database's server allows as many connections as a study has workers."""

from __future__ import annotations

import logging

from ralr_tune.errors import StorageError, UsageError
from ralr_tune.store.address import parse_address
from ralr_tune.store.probing import Connections, connections

log = logging.getLogger(__name__)

FEW = 8
"""Fewer free connections than this are worth a warning, whatever number of workers is planned."""
REMEDY = "raise its max_connections, connect through a pooler such as pgbouncer, or start fewer workers"


def shortage(found: Connections, workers: int) -> str | None:
    """One sentence if there are more workers than connections; None if there are enough."""
    if workers <= found.free:
        return None
    if workers > found.allowed:
        return f"{workers} workers, and the database allows {found.allowed} connections: {REMEDY}"
    return f"{workers} workers, and {found.free} of the database's {found.allowed} connections are free: {REMEDY}"


def shortage_at(url: str, workers: int) -> str | None:
    """The same for a storage URL; a sentence, too, if the server does not say."""
    try:
        found = connections(url)
    except StorageError as error:
        return f"the database's connections were not compared with the workers: {error}"
    return None if found is None else shortage(found, workers)


def refuse_shortage(url: str, workers: int) -> None:
    """UsageError if a server allows fewer connections than there are workers; a warning if fewer are free now.

    A server that does not answer is left to what opens it, which waits for it.
    """
    try:
        found = connections(url)
    except StorageError:
        return
    if found is None or not (short := shortage(found, workers)):
        return
    if workers > found.allowed:
        raise UsageError(f"{parse_address(url)}: {short}")
    log.warning("%s", short)
