"""A study's record as one compressed file: what `read_study` reads, without a database.

The file is gzipped JSON. It holds the study file as stored, every row with its curve, the generations, and what the
report shows of the networks; metric, arms and settings are derived from the study file when it is read. Owners of rows
(host names) and the storage's URL are left out, so that the file can be published.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ralr_tune.errors import UsageError
from ralr_tune.machine.files import opened
from ralr_tune.records import Generation, Row, StudyRecord, WarmStart
from ralr_tune.store.reading import study_record
from ralr_tune.store.studies import StoredStudy

FORM = 1
"""Version of the file's form."""
MAX_BYTES = 2**29
"""Of the JSON text (our choice): 10,000 trials of 50 epochs are a fifth of it."""

Examples = Mapping[str, Mapping[str, Any]]
"""By arm: what `Kind.examples` returned."""


@dataclass(frozen=True)
class RecordFile:
    """The content of the file."""

    study: StoredStudy
    rows: tuple[Row, ...]
    generations: tuple[Generation, ...]
    examples: Examples = field(default_factory=dict)
    start: WarmStart | None = None
    """What the study took from an earlier one; files written before `search.start_from` have none."""
    form: int = FORM

    def record(self, source: str) -> StudyRecord:
        """The study's record; `source`: what the report names as its storage."""
        return study_record(self.study, self.rows, self.generations, source, self.start)


_FORM = TypeAdapter(RecordFile)


def record_bytes(record: StudyRecord, examples: Examples) -> bytes:
    """The file of a study; the same bytes for the same record."""
    study = StoredStudy(record.name, record.spec_text, record.fingerprint, record.created, record.environment)
    rows = tuple(replace(row, owner=None) for row in record.rows())
    text = json.dumps(
        asdict(RecordFile(study, rows, record.generations, examples, record.start)), separators=(",", ":")
    )
    return gzip.compress(text.encode(), mtime=0)


def read_record_file(path: Path) -> RecordFile:
    """Raises UsageError, naming path and reason, for anything but a file of `record_bytes`; executes nothing of it."""
    try:
        with opened(path, MAX_BYTES) as file, gzip.open(file) as content:
            text = content.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        stored = json.loads(text)
        if isinstance(stored, dict) and stored.get("form") != FORM:
            raise ValueError(f"form = {str(stored.get('form'))[:20]}; allowed: {FORM}")
        return _FORM.validate_python(stored)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise _unusable(path, f"{where}: {first['msg']}") from None
    except (OSError, EOFError, ValueError, zlib.error, RecursionError) as error:
        raise _unusable(path, getattr(error, "strerror", None) or str(error)) from None


def _unusable(path: Path, reason: str) -> UsageError:
    return UsageError(f"{path}: {reason}; allowed: a file of `export --record`")
