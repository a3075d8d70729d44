"""`export --record`: a whole study as one file, from which `report` makes the same report without a database."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

from ralr_tune.commands.files import write_bytes
from ralr_tune.commands.report import rehearsed, stored_examples
from ralr_tune.errors import UsageError
from ralr_tune.invocation import command
from ralr_tune.store.database import Storage
from ralr_tune.store.location import RECORD_SUFFIX
from ralr_tune.store.reading import read_study, stored_spec
from ralr_tune.store.record_file import record_bytes

log = logging.getLogger(__name__)

MAX_EXAMPLES_BYTES = 2**19
"""Of all examples (our choice): the file stays small enough to be committed."""


def write_record(storage: Storage, study: str, out: Path, path: Path) -> str:
    """Writes the file; returns a line that says how to use it. Examples of networks that are large are left out.

    Raises StorageError if the storage holds no such study, UsageError if the file cannot be written or `report` would
    not know it by its name.
    """
    if not path.name.endswith(RECORD_SUFFIX):
        raise UsageError(f"--record {path}: the name must end with {RECORD_SUFFIX}")
    record = read_study(storage, study)
    environment = {**record.environment, **rehearsed(stored_spec(record), storage.address, out, study)}
    found = stored_examples(storage, record, out)
    if (size := len(json.dumps(found))) > MAX_EXAMPLES_BYTES:
        log.warning(
            "%s: its examples are left out: %s bytes; allowed: %s", path, f"{size:,}", f"{MAX_EXAMPLES_BYTES:,}"
        )
        found = {}
    write_bytes(path, record_bytes(replace(record, environment=environment), found))
    return f"Wrote {path}. Its report, anywhere: {command('report', path)}"
