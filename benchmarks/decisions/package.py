"""Policy (e): this package as it is, in memory.

Sampler, pruner, planning of every stage, choice of winners, interim analyses and verdicts are the package's own
functions; this module only keeps the rows, in place of database and worker, and looks up what a run gives. Twins and
audits are run, too, since they are part of what the package spends.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, groupby
from typing import Any, Protocol

import optuna
from optuna.samplers import BaseSampler

from benchmarks.decisions.decision import Decision, Policy
from benchmarks.decisions.habits import TRIALS
from benchmarks.decisions.proposals import Offered
from benchmarks.decisions.worlds import ARMS, Curve, Match, Params, World, with_budget
from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.facts import winner
from ralr_tune.analysis.next_step import BLOCKS
from ralr_tune.analysis.verdicts import arm_verdicts, configuration_verdicts
from ralr_tune.records import ArmRecord, Outcome, Row, Stage, StudyRecord
from ralr_tune.search.interim import plan_of
from ralr_tune.search.pruning import Judge, amplified_epochs
from ralr_tune.search.samplers import make_pruner, make_sampler
from ralr_tune.search.space import suggest
from ralr_tune.search.stages import search_rows, stage_rows
from ralr_tune.search.telling import value_of_diverged
from ralr_tune.store.ledger import PlannedRow
from ralr_tune.studyfile import StudySpec


class Runs(Protocol):
    """What stands for training."""

    def sampler(self, own: BaseSampler) -> BaseSampler:
        """The sampler to use in place of the package's own for a trial."""

    def curve(self, row: PlannedRow, params: Params) -> Curve:
        """Of a planned row with these parameters."""

    def trained_with(self, seed: int) -> int:
        """The training seed of the run that stands for one of a row with this seed."""


@dataclass(frozen=True)
class WorldRuns:
    """Runs of a match."""

    world: World
    shifts: tuple[float, float] = (0.0, 0.0)
    """Added to the values of each arm."""

    def sampler(self, own: BaseSampler) -> BaseSampler:
        return Offered(self.world, own)

    def curve(self, row: PlannedRow, params: Params) -> Curve:
        curve = self.world.curve(params, row.seed, amplified=row.role != "twin")
        return curve + self.shifts[ARMS.index(row.arm)]

    def trained_with(self, seed: int) -> int:
        return self.world.trained_with(seed)


@dataclass
class Replay:
    """A study without database and worker: its rows so far."""

    spec: StudySpec
    runs: Runs
    rows: list[Row] = field(default_factory=list)

    def search(self) -> None:
        """Every block of every arm, in the order of a single worker."""
        planned = sorted(search_rows(self.spec, self.spec.search.trials), key=_place)
        for _, block in groupby(planned, key=_place):
            self.rows += self._searched(block)

    def finish(self, stage: Stage) -> None:
        """Plans and runs a stage after the search until nothing is planned any more."""
        there = {_key(row) for row in self.rows}
        while planned := [row for row in stage_rows(stage, self.spec, self.rows) if _key(row) not in there]:
            self.rows += [self._run(row) for row in planned]
            there |= {_key(row) for row in planned}

    def _searched(self, planned: Iterable[PlannedRow]) -> list[Row]:
        """One block of one arm, as `search.trial` searches it."""
        spec, rows = self.spec, []
        study = optuna.create_study(direction=spec.metric.direction, pruner=make_pruner(spec))
        judge = Judge(study, spec.search.prune_on)
        for row in planned:
            study.sampler = self.runs.sampler(make_sampler(spec, row.arm, row.block, row.ordinal))
            trial = study.ask()
            params = suggest(trial, spec, row.arm)
            curve = self.runs.curve(row, params)
            configuration = spec.configuration(row.arm, params)
            amplified = amplified_epochs(spec, configuration, self.runs.trained_with(row.seed))
            done = _row(row, *_followed(judge, trial, curve, amplified), trial=trial.number, params=params)
            rows.append(done)
            if done.outcome == "pruned":
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, value_of_diverged(spec.metric, rows, done) if done.value is None else done.value)
        return rows

    def _run(self, row: PlannedRow) -> Row:
        """A row that is not pruned."""
        curve = self.runs.curve(row, row.params)
        epochs = _until_divergence(curve)
        return _row(row, "complete" if epochs == len(curve) else "diverged", curve[:epochs])


def _followed(judge: Judge, trial: optuna.Trial, curve: Curve, amplified: Container[int]) -> tuple[Outcome, Curve]:
    """How a search trial ends, and its curve until then."""
    epochs = _until_divergence(curve)
    for epoch, value in enumerate(curve[:epochs].tolist(), 1):
        trial.report(value, epoch)
        if epoch < len(curve) and judge.should_prune(trial, amplified=amplified):
            return "pruned", curve[:epoch]
    return ("complete" if epochs == len(curve) else "diverged"), curve[:epochs]


def _until_divergence(curve: Curve) -> int:
    return next((epoch for epoch, value in enumerate(curve) if math.isnan(value)), len(curve))


_IDS = count(1)


def _row(planned: PlannedRow, outcome: Outcome, curve: Curve, **known: Any) -> Row:
    """The row of a run with this ending; `curve`: of the epochs that it trained to their end."""
    return Row(
        id=next(_IDS), arm=planned.arm, stage=planned.stage, block=planned.block, ordinal=planned.ordinal,
        role=planned.role, source=planned.source, seed=planned.seed, state="done", attempt=1, owner=None,
        outcome=outcome, failure="diverged" if outcome == "diverged" else None, message=None,
        epoch=len(curve), value=None if outcome == "diverged" else float(curve[-1]), train_value=None, curve=(),
        seconds=None, started=None, finished=None, **({"trial": None, "params": planned.params} | known),
    )  # fmt: skip


def _place(row: PlannedRow) -> tuple[str, int]:
    return row.arm, row.block


def _key(row: Row | PlannedRow) -> tuple[Any, ...]:
    return row.arm, row.stage, row.block, row.ordinal, row.role, row.source


# ---------------------------------------------------------------- the policy


@dataclass(frozen=True)
class Package:
    """This package with some keys of [search]."""

    blocks: int = 1
    trials: int = TRIALS
    """Of each arm in each block."""

    def search(self, match: Match) -> Replay:
        spec = with_budget(match.world.spec, match.seed("package"), trials=self.trials, blocks=self.blocks)
        replay = Replay(spec, WorldRuns(match.world))
        replay.search()
        replay.finish("audit")
        replay.finish("choose")
        return replay

    def decide(self, match: Match, found: Replay, shifts: tuple[float, float]) -> Decision:
        rows = [_plus(row, shifts[ARMS.index(row.arm)]) for row in found.rows]
        judged = Replay(found.spec, WorldRuns(match.world, shifts), rows)
        judged.finish("judge")
        record = record_of(judged.spec, judged.rows)
        returned = winner(record)
        return Decision(
            claim=claim(record, judged.spec),
            recipes=(_recipe(record, ARMS[0]), _recipe(record, ARMS[1])),
            returned=0 if returned is None else ARMS.index(returned),
            epochs=epochs_by_stage(judged.rows),
        )


def _plus(row: Row, shift: float) -> Row:
    return row if row.value is None else replace(row, value=row.value + shift)


def record_of(spec: StudySpec, rows: Sequence[Row]) -> StudyRecord:
    """The records of a study with these rows."""
    arms = {
        arm: ArmRecord(arm, spec.dimensions(arm), tuple(row for row in rows if row.arm == arm), spec.settings(arm))
        for arm in spec.arms
    }
    return StudyRecord(
        name=spec.name, spec_text="", fingerprint="", storage="", created=0.0, environment={},
        baseline=spec.study.baseline, metric=spec.metric, margin=spec.margin, confidence=spec.confirm.confidence,
        arms=arms,
    )  # fmt: skip


def claim(record: StudyRecord, spec: StudySpec) -> int | None:
    """The arm that the verdict calls better: the verdict on the schedules, or with a single block that on the two
    recipes, which the report does not call an answer about the schedules."""
    made = arm_verdicts(record, "validation").made
    made = made or configuration_verdicts(record, "validation", plan_of(spec)).made
    verdicts = {each.verdict: ARMS.index(each.arm) for each in made}
    if "better" in verdicts:
        return verdicts["better"]
    return 1 - verdicts["worse"] if "worse" in verdicts else None


def _recipe(record: StudyRecord, name: str) -> Params:
    """The confirmed configuration of an arm."""
    arm = record.arms[name]
    chosen = study_rows.chosen(arm, record.metric)
    return next(row.params for row in arm.search() if (row.block, row.trial) == chosen)


def epochs_by_stage(rows: Sequence[Row]) -> dict[str, int]:
    """Trained epochs; choosing and judging are "confirm", audits "search", as `status` shows them. Twins separately."""
    stages: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        search = row.stage in ("search", "audit")
        stages["search" if search else "confirm" if row.role == "best" else "twins"].append(row)
    return {stage: study_rows.trained_epochs(found) for stage, found in stages.items()}


def _settings(package: Package) -> str:
    about = "schedules over blocks" if package.blocks > 1 else "the two recipes, paired over seeds"
    return (
        f"TPE, median pruner, {package.blocks} x {package.trials} trials an arm, the best two of each block on fresh "
        f"seeds, winners on 5 further seeds; verdict on {about}"
    )


_ONE, _SEVERAL, _SMALL = Package(), Package(BLOCKS), Package(BLOCKS, TRIALS // BLOCKS)
POLICIES = (
    Policy("ralr_tune, 1 block", _ONE.search, _ONE.decide, _settings(_ONE)),
    Policy(f"ralr_tune, {BLOCKS} small blocks", _SMALL.search, _SMALL.decide, _settings(_SMALL)),
    Policy(f"ralr_tune, {BLOCKS} blocks", _SEVERAL.search, _SEVERAL.decide, _settings(_SEVERAL)),
)
