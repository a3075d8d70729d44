"""Everything this package raises on purpose.

    RalrTuneError                 exit code 1: it ran and failed
    ├── UsageError                exit code 2: wrong usage, nothing was started
    │   └── StudyFileError        a study file (or an exported configuration) says something impossible; `.problems`
    ├── DataError                 a data set is missing, unreadable or contradicts itself
    ├── StorageError              a database cannot be reached, or holds something else
    │   └── LeaseLost             this worker's row now belongs to another: stop quietly, write nothing
    ├── DiskError                 a file cannot be written: the disk is full, read-only or gone
    ├── TrialError                a trial failed; `.kind` is a FailureKind
    └── Interrupted               exit code 130: asked to stop; everything is kept and can be resumed

Every message names the field, the value it had and what is allowed.
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
    """All problems of one file at once, each a whole line that names file, key, value and what is allowed."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DataError(RalrTuneError):
    """A data set is missing, unreadable or contradicts itself."""


class StorageError(RalrTuneError):
    """A database cannot be reached, or holds something else than this program wrote."""


class LeaseLost(StorageError):
    """Another worker owns the row now; whoever sees this stops and writes nothing more."""


class DiskError(RalrTuneError):
    """A file cannot be written. Nothing is wrong with the trial: it goes on once there is room."""


class TrialError(RalrTuneError):
    """A trial failed in a way that has a policy of its own."""

    def __init__(self, kind: FailureKind, message: str, detail: str = "") -> None:
        self.kind: FailureKind = kind
        self.detail = detail
        """The traceback of the user's own code that failed; shown once, before the message."""
        super().__init__(message)


class Interrupted(RalrTuneError):
    """Asked to stop; what was done is kept and the same command goes on from there."""

    exit_code = 130
