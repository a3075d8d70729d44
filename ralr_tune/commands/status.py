"""`status`: which rows are done, running, waiting and failed, and why; few queries, no curves of finished trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ralr_tune.analysis.rows import ranked, trained_epochs
from ralr_tune.analysis.starting import start_sentence
from ralr_tune.errors import FailureKind
from ralr_tune.launch.engine import node
from ralr_tune.launch.local import tail
from ralr_tune.metric import Metric
from ralr_tune.records import Incident, Row, Stage, WarmStart
from ralr_tune.search.forecast import Left, epochs_left
from ralr_tune.search.interim import analysis_seeds
from ralr_tune.search.logs import stored_log
from ralr_tune.search.samplers import longest_run
from ralr_tune.search.stages import STAGES, pending_stage
from ralr_tune.search.warm_start import begun_with
from ralr_tune.store import artifacts, incidents, studies
from ralr_tune.store.database import Storage
from ralr_tune.store.increments import LiveRows
from ralr_tune.studyfile import StudySpec, parse_study

ShownStage = Literal["search", "confirm", "test", "done"]

_TAIL = 12
"""Lines to show of the latest failure's traceback."""

_SHOWN: dict[Stage, ShownStage] = {
    "search": "search",
    "audit": "search",
    "choose": "confirm",
    "judge": "confirm",
    "test": "test",
}


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
    """A snapshot of a study."""

    study: str
    storage: str
    stage: ShownStage
    arms: dict[str, ArmStatus]
    rows: Sequence[Row] = field(repr=False)
    epochs: int = 0
    """Epochs trained so far, in all stages."""
    epochs_per_trial: int = 0
    epochs_left: Mapping[Stage, Left] = field(default_factory=dict)
    is_adaptive: bool = False
    """Whether interim analyses decide how many seeds are judged."""
    failures: Mapping[FailureKind, int] = field(default_factory=dict)
    """Number of attempts that failed, by kind, including those whose retry succeeded."""
    latest: Incident | None = None
    """The latest failure."""
    generation: int = 1
    """The newest; trials of earlier ones are not counted."""
    start: WarmStart | None = None
    """What the study took from an earlier one."""
    artifacts: str | None = None
    """The store of the study's artifacts and logs; None: the out folders of its workers."""

    def as_json(self) -> dict[str, Any]:
        """The contract of `status --json`."""
        arms = {name: asdict(arm) for name, arm in self.arms.items()}
        return {
            "study": self.study,
            "storage": self.storage,
            "stage": self.stage,
            "generation": self.generation,
            "artifacts": self.artifacts,
            "arms": arms,
            "start": asdict(self.start) if self.start else None,
            "failures": {"counts": dict(self.failures), "latest": asdict(self.latest) if self.latest else None},
        }

    @property
    def running(self) -> list[Row]:
        return [row for row in self.rows if row.state == "held"]

    @property
    def ended(self) -> bool:
        """Whether no more work will start by itself: everything is done, or a row failed."""
        return self.stage == "done" or any(row.outcome == "failed" for row in self.rows)

    def left(self, until: Stage = "test") -> Left:
        """Epochs left up to and including a stage; the audits belong to the search."""
        last: Stage = "audit" if until == "search" else until
        stages = [self.epochs_left[stage] for stage in STAGES[: STAGES.index(last) + 1]]
        return Left(sum(left.expected for left in stages), sum(left.most for left in stages))

    def as_text(self, log_end: Callable[[str], Sequence[str]] = lambda owner: ()) -> str:
        """`log_end`: the last lines of a worker's log, to quote if the latest failure has no traceback."""
        generation = f"generation {self.generation}, " if self.generation > 1 else ""
        lines = [f"study {self.study}, {generation}{self.stage}, in {self.storage}"]
        lines += [f"  {start_sentence(self.start)}"] if self.start else []
        lines += [f"  {name}: {_arm_line(arm)}" for name, arm in self.arms.items()]
        lines += [f"  {stage}: {done} of {planned} runs done" for stage, done, planned in self.confirm_progress()]
        lines += [f"  {_running_line(row)}" for row in self.running]
        lines += [
            f"  {describe(row)} failed ({row.failure}): {row.message}" for row in self.rows if row.outcome == "failed"
        ]
        lines += [f"  artifacts and logs: {self.artifacts}"] if self.artifacts else []
        lines += _failure_lines(self, log_end)
        return "\n".join(lines)

    def confirm_progress(self) -> list[tuple[str, int, int]]:
        """(stage, rows done, rows planned) of each started stage after the search."""
        found: list[tuple[str, int, int]] = []
        for stage in STAGES[1:]:
            rows = [row for row in self.rows if row.stage == stage]
            if rows:
                found.append((stage, sum(row.state == "done" for row in rows), len(rows)))
        return found


def study_status(storage: Storage, name: str) -> Status:
    """The status of a stored study; a row whose worker is gone counts as waiting.

    Raises StorageError if the storage holds no study of this name.
    """
    place = artifacts.place_of(storage, name)
    return replace(LiveStatus(storage, name).refresh(), artifacts=None if place is None else str(place))


def worker_log_end(storage: Storage, name: str, logs: Path, owner: str) -> list[str]:
    """The last lines of a worker's log: in the folder `logs` if it ran on this machine, or in the study's store."""
    here = owner.startswith(f"{node()}:")
    found = tail(logs / f"worker-{owner.rpartition(':')[2]}.log", _TAIL) if here else []
    return found or stored_log(storage, name, owner, _TAIL)


class LiveStatus:
    """The status of a stored study, kept up to date at a cost that does not grow with its finished trials."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage, self.name = storage, name
        self._live = LiveRows(storage, name)
        self.changed: Sequence[Row] = ()
        """The rows that were new or different at the last refresh."""
        self._fingerprint: str | None = None
        self._spec: StudySpec | None = None
        self._start: WarmStart | None = None

    def refresh(self) -> Status:
        """The status now. Raises StorageError if the storage holds no such study or does not answer."""
        spec = self._read_spec()
        self.changed = self._live.refresh()
        rows, key = self._live.rows, self._live.ledger.key
        search = [row for row in rows if row.stage == "search"]
        return Status(
            study=self.name,
            storage=self.storage.masked,
            stage=_shown(pending_stage(spec, rows)),
            arms={arm: _arm([row for row in search if row.arm == arm], spec.metric) for arm in spec.arms},
            rows=rows,
            epochs=trained_epochs(rows),
            epochs_per_trial=longest_run(spec),
            epochs_left=epochs_left(spec, rows),
            is_adaptive=len(analysis_seeds(spec)) > 1,
            failures=incidents.counts(self.storage, key),
            latest=incidents.latest(self.storage, key),
            generation=self._live.ledger.generation,
            start=self._start,
        )

    def _read_spec(self) -> StudySpec:
        """The stored study file, parsed again only if it has changed."""
        fingerprint = studies.fingerprint(self.storage, self.name)
        if self._spec is None or fingerprint != self._fingerprint:
            text = studies.stored(self.storage, self.name).text
            self._spec, self._fingerprint = parse_study(text, source=f"{self.name} (as stored)"), fingerprint
            self._start = begun_with(self.storage, self._spec) if self._spec.search.start_from else None
        return self._spec


def _shown(stage: Stage | None) -> ShownStage:
    return _SHOWN[stage] if stage else "done"


def _arm(rows: Sequence[Row], metric: Metric) -> ArmStatus:
    best = next((row for row, _ in ranked(rows, metric)), None)
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
    return f"{done} of {arm.budget} trials done ({', '.join(others) or 'none started'}){best}"


def _counted(arm: ArmStatus) -> list[tuple[str, int]]:
    return [(what, getattr(arm, what)) for what in ("complete", "pruned", "diverged", "failed", "running", "waiting")]


def _running_line(row: Row) -> str:
    value = "" if row.value is None else f", {row.value:.4f}"
    paused = f", {row.paused}" if row.paused else ""
    return f"{describe(row)}: epoch {row.epoch}{value}, attempt {row.attempt}, by {row.owner}{paused}"


def _failure_lines(status: Status, log_end: Callable[[str], Sequence[str]]) -> list[str]:
    """Counts of each kind of failure, and the end of the latest traceback or log."""
    if status.latest is None:
        return []
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(status.failures.items()))
    row = next((row for row in status.rows if row.id == status.latest.row), None)
    title = describe(row) if row else f"row {status.latest.row}"
    latest = f"  latest: {title}, attempt {status.latest.attempt}, {status.latest.kind}: {status.latest.message}"
    end: Sequence[str] = status.latest.detail.splitlines()[-_TAIL:]
    if not end and status.latest.owner is not None:
        end = log_end(status.latest.owner)
    return [f"  failures so far: {kinds}", latest, *(f"    {line}" for line in end)]


def describe(row: Row) -> str:
    """A row's description, such as "search ralr 3"."""
    role = f" {row.part}" if row.role else ""
    return f"{row.stage} {row.arm}{role} {row.ordinal}"
