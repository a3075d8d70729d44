"""`export`: write one configuration of a study as a file; also best/ARM.toml of every arm, for `report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from ralr_tune.analysis.rows import scored
from ralr_tune.commands.locate import again
from ralr_tune.errors import UsageError
from ralr_tune.machine.files import encoded, write
from ralr_tune.records import ArmRecord, Row, StudyRecord
from ralr_tune.report.export import exported, render
from ralr_tune.search.stages import winners
from ralr_tune.store.database import Storage
from ralr_tune.store.reading import read_study, stored_spec
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.values import one_of

_MAX_LISTED = 20
"""Maximum number of trials that a message lists."""


def export_study(storage: Storage, name: str, *, arm: str | None, trial: int | None, form: str) -> str:
    """The text of the file, in one of report.export.FORMS.

    `arm`: the default is the arm with the best score. `trial`: Optuna's number; the default is the chosen trial of the
    arm. If the study has several blocks, the chosen trial's block is searched for the number first.

    Raises UsageError, naming what exists, for an unknown arm, a trial that is not complete, or if no trial is complete
    yet; StorageError if the storage holds no such study.
    """
    record = read_study(storage, name, curves=False)
    spec = stored_spec(record)
    chosen = chosen_rows(record, spec)
    if arm is not None and arm not in record.arms:
        raise UsageError(f"--arm {arm}: study {name} has no such arm; {one_of(record.arms, arm)}")
    if not chosen or (arm is not None and arm not in chosen):
        where = f"study {name}" if arm is None else f"arm {arm} of study {name}"
        raise UsageError(f"{where} has no complete trial yet; see: {again('status', name, storage.address)}")
    arm = arm or best_arm(record, chosen)
    row = chosen[arm] if trial is None else _trial(record, chosen[arm], trial)
    return render(exported(record, spec, arm, row), form)


def export_best(record: StudyRecord, spec: StudySpec, out: Path) -> dict[str, Path]:
    """Write OUT/best/ARM.toml for every arm that has a complete trial; returns the paths by arm, in the study's order.

    Raises DiskError.
    """
    paths = {}
    for arm, row in chosen_rows(record, spec).items():
        paths[arm] = out / "best" / f"{arm}.toml"
        write(paths[arm], encoded(render(exported(record, spec, arm, row), "toml")))
    return paths


def chosen_rows(record: StudyRecord, spec: StudySpec) -> dict[str, Row]:
    """The chosen search row of every arm with a complete trial."""
    found = {name: _chosen(spec, arm) for name, arm in record.arms.items()}
    return {name: row for name, row in found.items() if row is not None}


def _chosen(spec: StudySpec, arm: ArmRecord) -> Row | None:
    """The best of all blocks' winners: by the choosing seeds or, before those are done, by the search values."""
    return next(iter(winners(spec, arm.rows, arm.name)), None)


def best_arm(record: StudyRecord, chosen: dict[str, Row]) -> str:
    """The arm with the best mean over fresh seeds (validation) or, until all are confirmed, the best search value.

    The two are never compared with each other: the best value of many trials is biased upwards.
    """
    means = {arm: mean for arm, row in chosen.items() if (mean := _confirmed_mean(record, row)) is not None}
    searched = {arm: value for arm, row in chosen.items() if (value := row.value) is not None}
    values = means if len(means) == len(chosen) else searched
    return max(values, key=lambda arm: record.metric.as_gain(values[arm]))


def _confirmed_mean(record: StudyRecord, row: Row) -> float | None:
    """The mean over all fresh seeds, or None until all are done."""
    rows = [each for each in record.arms[row.arm].stage("judge") if (each.block, each.source) == (row.block, row.trial)]
    values = [value for _, value in scored(rows)]
    return fmean(values) if values and all(each.state == "done" for each in rows) else None


def _trial(record: StudyRecord, chosen: Row, number: int) -> Row:
    search = record.arms[chosen.arm].search()
    rows = sorted(
        (row for row in search if row.trial == number), key=lambda row: (row.block != chosen.block, row.block)
    )
    complete = [row for row in rows if row.outcome == "complete"]
    if complete:
        return complete[0]
    reason = "no such trial" if not rows else f"it is {_condition(rows[0])}, not complete"
    raise UsageError(f"--trial {number}: arm {chosen.arm}: {reason}; complete trials: {_listed(search)}")


def _condition(row: Row) -> str:
    return row.outcome or {"held": "running", "free": "waiting"}.get(row.state, row.state)


def _listed(rows: Sequence[Row]) -> str:
    numbers = sorted({row.trial for row in rows if row.outcome == "complete" and row.trial is not None})
    return ", ".join(map(str, numbers[:_MAX_LISTED])) + (", ..." if len(numbers) > _MAX_LISTED else "")
