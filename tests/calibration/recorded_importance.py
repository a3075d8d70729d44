"""How often importance is wrong on recorded real curves: `python -m tests.calibration.recorded_importance`.

A study searches RALR's space, and its trials read curves that were trained without amplification. So the parameters of
the amplification certainly have no effect, and every call "matters" of one of them is an error. The learning rate
(three decades) must be found; of the weight decay the truth is not known, so nothing is promised.

Only the parameters that act are matched to a recorded configuration (`Offered`, without replacement); the ignored ones
keep what the sampler proposed, which no curve depends on. With their recorded values every study would see the same
pairing of ignored values and curves, and two studies of 200 of 320 configurations would share most of it: rows would
tell how this one pairing came out, not how often importance errs.

What remains: the recorded configurations are one quasi-random sequence, more even than random ones, and a search that
has tried the good ones must go on with others. So TPE's studies of 200 trials cover the space more than they would
without a table, and calls of the learning rate and of the weight decay are about these configurations only. Training
seeds are drawn with replacement for each trial, as `benchmarks.decisions.recorded` says.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import optuna

from benchmarks.decisions.proposals import Offered
from benchmarks.decisions.recorded import RecordedWorld
from benchmarks.decisions.replays import known
from benchmarks.decisions.tables import FOLDER
from benchmarks.decisions.worlds import ARMS, Curve, Params
from ralr_tune.search.space import suggest
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile import StudySpec
from tests.calibration.importance import Cell, cells_of, counted, follow, sampler_of, study_of
from tests.calibration.tables import Counted, Promise, Table, rows_of, show

FOUND = Promise(("lr",), 0.8, at_least=True)
UNSEEN = "lr: indistinguishable"


@dataclass(frozen=True)
class IgnoringWorld:
    """The space of RALR's arm with the curves of the monotone one."""

    monotone: RecordedWorld
    spec: StudySpec
    """Of RALR's arm."""

    @classmethod
    def of(cls, name: str, folder: Path) -> IgnoringWorld:
        """Of the recorded table of this name."""
        monotone, ralr = (known(folder).worlds[f"{name}, {arm}"] for arm in ("monotone", "ralr"))
        assert isinstance(monotone, RecordedWorld)
        return cls(monotone, ralr.spec)

    @cached_property
    def acting(self) -> list[str]:
        return list(self.monotone.spec.space(ARMS[0]))

    @property
    def ignored(self) -> list[str]:
        return [name for name in self.spec.space(ARMS[0]) if name not in self.acting]

    @property
    def configurations(self) -> int:
        return self.monotone.table.plan.shape[1]

    def offered(self, params: Params, tried: Collection[Params]) -> Params:
        return {**params, **self.monotone.offered(params, [self._acting(each) for each in tried])}

    def curve(self, params: Params, seed: int) -> Curve:
        return self.monotone.curve(self._acting(params), seed)

    def _acting(self, params: Params) -> Params:
        return {name: value for name, value in params.items() if name in self.acting}


def recorded_study(world: IgnoringWorld, cell: Cell, seed: int) -> optuna.Study:
    """One study of a cell, in memory. A pure function of its arguments."""
    study = study_of(cell, Offered(world, sampler_of(cell, seed)))
    for number in range(cell.trials):
        trial = study.ask()
        params = suggest(trial, world.spec, ARMS[0])
        follow(study, trial, world.curve(params, derive_seed("importance", seed, number)).tolist())
    return study


def calibrate(studies: int, folder: Path, cell: Cell) -> Counted:
    """In how many studies of a cell each parameter was called "matters"."""
    world = IgnoringWorld.of(cell.curves, folder)
    promises = [Promise((name,), 0.05) for name in world.ignored] + [FOUND] * (cell.trials >= 50)
    return counted(studies, cell, partial(recorded_study, world), tuple(promises))


def tables(folder: Path = FOLDER) -> list[Table]:
    """One for each recorded table, since each has its own parameters: a row for each cell that it has configurations
    for."""
    names = [world.table.plan.name for world in known(folder).worlds.values() if isinstance(world, RecordedWorld)]
    return [_table(name, IgnoringWorld.of(name, folder), folder) for name in dict.fromkeys(names)]


def _table(name: str, world: IgnoringWorld, folder: Path) -> Table:
    cells = [cell for cell in cells_of(name) if cell.trials <= world.configurations]
    columns = {parameter: (parameter,) for parameter in [*world.ignored, *world.acting, UNSEEN]}
    title = f'Importance on the recorded curves of {name}: called "matters" (those of the amplification are ignored)'
    return Table(title, rows_of(calibrate, *((folder, cell) for cell in cells)), columns, 200, more=("pruned",))


if __name__ == "__main__":
    sys.exit("\n".join(show(tables())) or None)
