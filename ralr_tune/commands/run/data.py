"""The data of a study, read before its first trial: can they be read, and are they those of earlier trials?"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ralr_tune.errors import DataError
from ralr_tune.records import Inventory
from ralr_tune.search.identity import needs_contents
from ralr_tune.search.tasks import data_inventory
from ralr_tune.store.database import Storage
from ralr_tune.studyfile import StudySpec

log = logging.getLogger(__package__)

ShowData = Callable[[Inventory], None]
"""Called once, before workers start."""


def inspected(storage: Storage, spec: StudySpec, out: Path, show: ShowData | None, *, here: bool) -> Inventory | None:
    """Verify the test data before the first trial, and show what the data hold. Raises DataError if unreadable.

    Unless workers run `here`, the data may be on their machines alone: each worker verifies them when it starts.
    """
    try:
        inventory = comparable(storage, spec, out)
    except DataError as error:
        if here:
            raise
        log.info("the data are left to the workers to verify: %s", error)
        return None
    if inventory is not None and show is not None:
        show(inventory)
    return inventory


def comparable(storage: Storage, spec: StudySpec, out: Path) -> Inventory | None:
    """The inventory of the data, with all that is needed to compare it with what earlier trials read."""
    inventory = data_inventory(spec, cache=out / "data")
    if inventory is None or not needs_contents(storage, spec.name, inventory):
        return inventory
    log.info("reading the data to compare them with those of earlier trials: their files are new or were modified")
    return data_inventory(spec, cache=out / "data", contents=True)
