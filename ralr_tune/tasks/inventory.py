"""Inventories of data as files in a folder that processes share, so that data are verified only once.

inventory-HASH.json    one for each state of the data
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ralr_tune.machine.files import replacing
from ralr_tune.records import Inventory

logger = logging.getLogger(__name__)

_FORM = TypeAdapter(Inventory)


def save(inventory: Inventory, folder: Path, stamp: str) -> None:
    """Write the inventory of this state of the data atomically; does nothing if the parent of `folder` does not
    exist."""
    text = _FORM.dump_json(inventory, indent=1).decode()
    path = _path(folder, stamp)
    try:
        folder.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        logger.info("%s: cannot be written (%s): the data are verified again at the next start", path, error.strerror)


def load(folder: Path, stamp: str) -> Inventory | None:
    """The inventory of this state of the data, marked as used now; None if there is none."""
    path = _path(folder, stamp)
    found = _read(path)
    if found is not None:
        with suppress(OSError):
            os.utime(path)
    return found


def _path(folder: Path, stamp: str) -> Path:
    return folder / f"inventory-{stamp[:32]}.json"


def _read(path: Path) -> Inventory | None:
    try:
        return _FORM.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        logger.warning("%s cannot be used (%s): the data are verified again", path, str(error).partition("\n")[0])
        return None
