"""Weights & Biases: a run for each trial, with an id that follows from the study and the trial.

Offline (WANDB_MODE=offline), a run is a folder in OUT/wandb until `wandb sync`, which takes each id once: a run that an
earlier mirror left unfinished is written again as a whole. Online, W&B is asked what it has.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ralr_tune.mirror.runs import STUDY_RUN, VERDICT, Point, TrackedRun, TrackedStudy
from ralr_tune.mirror.tracker import Sent, Tracker

_TIMEOUT_S = 30.0


class WandB(Tracker):
    """`project`: PROJECT or ENTITY/PROJECT; `folder`: where `wandb` keeps its files."""

    kind = "wandb"

    def __init__(self, study: TrackedStudy, project: str, folder: Path) -> None:
        super().__init__(study)
        self._entity, _, self._project = project.rpartition("/")
        self._folder = folder
        self._open: dict[str, Any] = {}

    def sent(self, run: TrackedRun) -> Sent:
        number = self.study.run_id(run.name)
        if is_offline():
            self._discard(number)
            return Sent()
        self._run(run.name, run)
        return self._stored(number) if self._open[run.name].resumed else Sent()

    def send(self, run: TrackedRun, points: Sequence[Point]) -> None:
        made = self._run(run.name, run)
        try:
            made.config.update(dict(run.params), allow_val_change=True)
            for axis, step, values in _rows(points):
                made.log({axis: step, **values})
            if run.outcome is not None:
                made.summary.update({"outcome": run.outcome, **({"message": run.message} if run.message else {})})
                self._open.pop(run.name).finish(exit_code=int(run.outcome == "failed"))
        except BaseException:
            self._abandon(run.name)
            raise

    def conclude(self, verdict: str, facts: Mapping[str, str]) -> None:
        if is_offline():
            self._discard(self.study.run_id(STUDY_RUN))
        made = self._run(STUDY_RUN, None)
        made.notes = verdict
        made.summary.update({VERDICT: verdict, **facts})
        self._open.pop(STUDY_RUN).finish(exit_code=0)

    def close(self) -> None:
        for name in list(self._open):
            self._abandon(name)

    def _run(self, name: str, run: TrackedRun | None) -> Any:
        """The open run; created, or resumed, by its id."""
        import wandb

        if name not in self._open:
            self._open[name] = made = wandb.init(
                project=self._project,
                entity=self._entity or None,
                id=self.study.run_id(name),
                name=name,
                group=run.tags["arm"] if run else None,
                job_type=run.tags["stage"] if run else STUDY_RUN,
                tags=[self.study.key],
                config=dict(run.tags) if run else {"study": self.study.key},
                dir=self._folder,
                resume=None if is_offline() else "allow",
                reinit="create_new",
                settings=_settings(),
            )
            made.define_metric("epoch", hidden=True)
            made.define_metric("step", hidden=True)
            made.define_metric("*", step_metric="epoch")
            made.define_metric("steps/*", step_metric="step")
        return self._open[name]

    def _stored(self, number: str) -> Sent:
        """What W&B has of a run that was resumed."""
        import wandb

        path = "/".join(part for part in (self._entity, self._project, number) if part)
        run = wandb.Api(timeout=int(_TIMEOUT_S)).run(path)
        found = Sent(outcome=run.summary.get("outcome"))
        for row in run.scan_history():
            for metric, value in row.items():
                step = row.get("step" if metric.startswith("steps/") else "epoch")
                if value is not None and step is not None:
                    found.steps[metric] = max(int(step), found.steps.get(metric, -1))
        return found

    def _abandon(self, name: str) -> None:
        """Close a run that is not done: another mirror resumes it."""
        if made := self._open.pop(name, None):
            made.finish(exit_code=0)

    def _discard(self, number: str) -> None:
        """Remove what an earlier mirror wrote of a run offline; it is written again as a whole."""
        for folder in (self._folder / "wandb").glob(f"offline-run-*-{number}"):
            shutil.rmtree(folder, ignore_errors=True)


def is_offline() -> bool:
    """Whether W&B writes files instead of sending."""
    return os.environ.get("WANDB_MODE", "").lower() in ("offline", "dryrun")


def _settings() -> Any:
    import wandb

    return wandb.Settings(
        console="off",
        disable_git=True,
        disable_job_creation=True,
        init_timeout=_TIMEOUT_S,
        save_code=False,
        silent=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


def _rows(points: Sequence[Point]) -> list[tuple[str, int, dict[str, float]]]:
    """The points as (axis, step, values by metric), in order."""
    rows: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for point in points:
        axis = "step" if point.metric.startswith("steps/") else "epoch"
        rows[axis, point.step][point.metric] = point.value
    return [(axis, step, values) for (axis, step), values in sorted(rows.items())]
