"""The exceptions that this package raises on purpose.

    RalrTuneError                 exit code 1: it ran and failed
    ├── UsageError                exit code 2: wrong usage; nothing was started
    │   └── StudyFileError        a study file (or an exported configuration) is invalid; see `.problems`
    ├── DataError                 a data set is missing, unreadable or contradicts itself
    ├── StorageError              a database cannot be reached, or this program did not write it
    │   └── LeaseLost             another worker owns the row now: stop quietly, write nothing
    ├── DiskError                 a file cannot be written: the disk is full, read-only or gone
    ├── TrialError                a trial failed; `.kind` is a FailureKind
    └── Interrupted               exit code 130: the user asked to stop; everything is saved and can be resumed

Every message names the field, its value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

FailureKind = Literal["oom", "diverged", "data", "bug", "lost"]


class RalrTuneError(Exception):
    """Base of all errors that a user can act on; shown as one line `error: ...`."""

    exit_code = 1


class UsageError(RalrTuneError):
    """The command, an argument or a file was wrong; nothing was started."""

    exit_code = 2


class StudyFileError(UsageError):
    """All problems of one file at once; each is one line that names file, key, value and what is allowed."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DataError(RalrTuneError):
    """A data set is missing, unreadable or contradicts itself."""


class StorageError(RalrTuneError):
    """A database cannot be reached, or holds data that this program did not write."""


class LeaseLost(StorageError):
    """Another worker owns the row now: the worker that gets this error stops and writes nothing more."""


class DiskError(RalrTuneError):
    """A file cannot be written. The trial itself is fine: it resumes once there is space."""


class TrialError(RalrTuneError):
    """A trial failed; `kind` selects the policy that handles it."""

    def __init__(self, kind: FailureKind, message: str, detail: str = "") -> None:
        self.kind: FailureKind = kind
        self.detail = detail
        """The traceback of the user's code that failed; shown once, before the message."""
        super().__init__(message)


class Interrupted(RalrTuneError):
    """The user asked to stop; the work so far is saved, and the same command resumes from it."""

    exit_code = 130
