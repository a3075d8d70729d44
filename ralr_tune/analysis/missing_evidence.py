"""Evidence that a study lacks for an answer; `notes` has a sentence for each kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ralr_tune.analysis import rows as study_rows
from ralr_tune.records import ArmRecord, StudyRecord

Kind = Literal["no arms", "one arm", "no baseline", "empty arm", "all diverged", "few trials", "no spread"]

MIN_TRIALS = 10  # finished trials; below, importance and the range of good rates cannot be judged


@dataclass(frozen=True)
class MissingEvidence:
    """One reason why the report leaves something out."""

    kind: Kind
    arm: str
    """"" if the study itself lacks it."""
    count: int
    """Finished search trials of the arm; for the study, its number of arms."""


def missing_evidence(record: StudyRecord) -> tuple[MissingEvidence, ...]:
    """What the study lacks, then what each arm lacks."""
    found = list(_of_study(record))
    for arm in record.arms.values():
        found += _of_arm(arm)
    return tuple(found)


def _of_study(record: StudyRecord) -> Iterator[MissingEvidence]:
    if not record.arms:
        yield MissingEvidence("no arms", "", 0)
    elif record.baseline not in record.arms:
        yield MissingEvidence("no baseline", record.baseline, len(record.arms))
    elif len(record.arms) == 1:
        yield MissingEvidence("one arm", next(iter(record.arms)), 1)


def _of_arm(arm: ArmRecord) -> Iterator[MissingEvidence]:
    rows = study_rows.finished(arm)
    values = [value for _, value in study_rows.scored(rows)]
    if not arm.rows:
        yield MissingEvidence("empty arm", arm.name, 0)
    elif rows and all(row.outcome == "diverged" for row in rows):
        yield MissingEvidence("all diverged", arm.name, len(rows))
    elif len(values) > 1 and len(set(values)) == 1:
        yield MissingEvidence("no spread", arm.name, len(rows))
    elif 0 < len(rows) < MIN_TRIALS:
        yield MissingEvidence("few trials", arm.name, len(rows))
