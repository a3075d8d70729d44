"""Where a study is stored: one rule for every command.

Imports no database code, so that a mistyped study name or an invalid study file is reported at once.
"""

from __future__ import annotations

import os
from pathlib import Path

from ralr_tune.studyfile import StudySpec

STORAGE_VARIABLE = "RALR_TUNE_STORAGE"
"""The storage URL if no --storage is given. A launcher passes the URL to its workers in it."""

DATABASE = "study.db"
"""The SQLite file in the out folder of a study without a storage URL."""

RECORD_SUFFIX = ".json.gz"
"""End of the name of a file that holds a whole study without a database (store.record_file)."""


def given_url(option: str | None) -> str | None:
    """The storage URL that the user gave: `--storage`, otherwise RALR_TUNE_STORAGE; None if neither is set."""
    return option or os.environ.get(STORAGE_VARIABLE) or None


def storage_url(option: str | None, spec: StudySpec | None, out: Path) -> str:
    """The storage URL of a study: what the user gave, otherwise the study file's, otherwise OUT/study.db."""
    if url := given_url(option) or (spec.storage.url if spec else None):
        return url
    from ralr_tune.store.address import sqlite_url

    return sqlite_url((out / DATABASE).absolute())
