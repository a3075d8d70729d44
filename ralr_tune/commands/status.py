"""`status`: what is done, running, waiting and failed, and why; few queries, no curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ralr_tune.records import Row, Stage
from ralr_tune.search.samplers import longest_run
from ralr_tune.search.stages import STAGES, pending_stage
from ralr_tune.spec import parse_study
from ralr_tune.store import studies
from ralr_tune.store.database import Storage
from ralr_tune.store.ledger import Ledger

ShownStage = Literal["search", "confirm", "test", "done"]

_SHOWN: dict[Stage, ShownStage] = {"search": "search", "choose": "confirm", "judge": "confirm", "test": "test"}


@dataclass(frozen=True)
class ArmStatus:
    """Search trials of one arm; complete + pruned + diverged == budget when it is done."""

    budget: int
    complete: int
    pruned: int
    diverged: int
    failed: int
    running: int
    waiting: int
    best_value: float | None
    best_trial: int | None


@dataclass(frozen=True)
class Status:
    """One moment of a study."""

    study: str
    storage: str
    stage: ShownStage
    arms: dict[str, ArmStatus]
    rows: Sequence[Row] = field(repr=False)
    epochs: int = 0
    """Epochs trained so far, all stages."""
    epochs_a_trial: int = 0

    def as_json(self) -> dict[str, Any]:
        """The contract of `status --json`."""
        arms = {name: asdict(arm) for name, arm in self.arms.items()}
        return {"study": self.study, "storage": self.storage, "stage": self.stage, "arms": arms}

    @property
    def running(self) -> list[Row]:
        return [row for row in self.rows if row.state == "held"]

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself: all is done, or a row failed."""
        return self.stage == "done" or any(row.outcome == "failed" for row in self.rows)

    def as_text(self) -> str:
        lines = [f"study {self.study}, {self.stage}, in {self.storage}"]
        lines += [f"  {name}: {_arm_line(arm)}" for name, arm in self.arms.items()]
        lines += [f"  {stage}: {done} of {planned} runs done" for stage, done, planned in self.confirm_progress()]
        lines += [f"  {_running_line(row)}" for row in self.running]
        lines += [
            f"  {where(row)} failed ({row.failure}): {row.message}" for row in self.rows if row.outcome == "failed"
        ]
        return "\n".join(lines)

    def confirm_progress(self) -> list[tuple[str, int, int]]:
        """(stage, rows done, rows planned) of the stages after the search that have begun."""
        found: list[tuple[str, int, int]] = []
        for stage in STAGES[1:]:
            rows = [row for row in self.rows if row.stage == stage]
            if rows:
                found.append((stage, sum(row.state == "done" for row in rows), len(rows)))
        return found


def study_status(storage: Storage, name: str) -> Status:
    """The status of a stored study; a row whose worker is gone counts as waiting.

    Raises StorageError when there is none of this name.
    """
    spec = parse_study(studies.stored(storage, name).text, source=f"{name} (as stored)")
    ledger = Ledger(storage, name)
    abandoned = ledger.abandoned()
    rows = [replace(row, state="free") if row.id in abandoned else row for row in ledger.rows(curves=False)]
    return Status(
        study=name,
        storage=storage.masked,
        stage=_shown(pending_stage(spec, rows)),
        arms={arm: _arm([row for row in rows if row.arm == arm and row.stage == "search"]) for arm in spec.arms},
        rows=rows,
        epochs=sum(row.epoch for row in rows if row.stage != "test"),
        epochs_a_trial=longest_run(spec),
    )


def _shown(stage: Stage | None) -> ShownStage:
    return _SHOWN[stage] if stage else "done"


def _arm(rows: Sequence[Row]) -> ArmStatus:
    complete = [row for row in rows if row.outcome == "complete" and row.value is not None]
    best = max(complete, key=lambda row: row.value or 0.0, default=None)
    outcomes = [row.outcome for row in rows]
    return ArmStatus(
        budget=len(rows),
        complete=outcomes.count("complete"),
        pruned=outcomes.count("pruned"),
        diverged=outcomes.count("diverged"),
        failed=outcomes.count("failed"),
        running=sum(row.state == "held" for row in rows),
        waiting=sum(row.state == "free" for row in rows),
        best_value=best.value if best else None,
        best_trial=best.trial if best else None,
    )


def _arm_line(arm: ArmStatus) -> str:
    done = arm.complete + arm.pruned + arm.diverged
    best = "" if arm.best_value is None else f", best {arm.best_value:.4f} (trial {arm.best_trial})"
    others = [f"{count} {what}" for what, count in _counted(arm) if count]
    return f"{done} of {arm.budget} trials done ({', '.join(others) or 'none begun'}){best}"


def _counted(arm: ArmStatus) -> list[tuple[str, int]]:
    return [(what, getattr(arm, what)) for what in ("complete", "pruned", "diverged", "failed", "running", "waiting")]


def _running_line(row: Row) -> str:
    value = "" if row.value is None else f", {row.value:.4f}"
    return f"{where(row)}: epoch {row.epoch}{value}, attempt {row.attempt}, by {row.owner}"


def where(row: Row) -> str:
    """A row in words."""
    role = f" {row.role}" if row.role else ""
    return f"{row.stage} {row.arm}{role} {row.ordinal}"
