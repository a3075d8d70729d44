"""Tables of real training runs: configurations of two arms, each on the same seeds, every epoch kept.

A table is two files: NAME.toml, a study file that says what is recorded, and NAME.npz, what was. Shapes: A arms,
C configurations an arm (`search.trials`), S seeds (`confirm.seeds`), E epochs. Configuration c has the same shared
parameters in every arm (the package's quasi-random design), and seed s is the same seed in all runs.
"""

from __future__ import annotations

import io
import json
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tomli_w

from ralr_tune.errors import UsageError
from ralr_tune.machine.files import write
from ralr_tune.search.design import sobol_point, unit_params
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile import StudySpec, parse_study

FOLDER = Path(__file__).parent / "tables"
ARMS = ("monotone", "ralr")


@dataclass(frozen=True)
class Plan:
    """What a table records."""

    file: Path
    """NAME.toml."""
    data: str | None = None
    """The path of the data, in place of that in the file."""

    @property
    def name(self) -> str:
        return self.file.stem

    @property
    def values_file(self) -> Path:
        return self.file.with_suffix(".npz")

    @cached_property
    def text(self) -> str:
        return self.file.read_text()

    @cached_property
    def tables(self) -> dict[str, Any]:
        """The study file."""
        found = tomllib.loads(self.text)
        if self.data is not None:
            found["task"]["data"]["path"] = self.data
        return found

    @cached_property
    def spec(self) -> StudySpec:
        return parse_study(tomli_w.dumps(self.tables), source=self.file.name)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(A, C, S, E)."""
        spec = self.spec
        return len(ARMS), spec.search.trials, spec.confirm.max_seeds, spec.file.training.epochs

    @cached_property
    def params(self) -> tuple[list[dict[str, Any]], ...]:
        """The C configurations of each arm: points of one quasi-random sequence, so that any number of them is spread
        evenly."""
        spec, columns = self.spec, self.spec.columns()
        seed = derive_seed("design", spec.study.seed, 1)
        points = [sobol_point(len(columns), ordinal, seed) for ordinal in range(self.shape[1])]
        units = [{name: float(point[column]) for name, column in columns.items()} for point in points]
        return tuple([unit_params(spec.space(arm), unit) for unit in units] for arm in ARMS)

    def seed(self, index: int) -> int:
        """Training seed number `index`, the same for all configurations and arms."""
        return derive_seed("recorded", self.name, index)


@dataclass
class Table:
    """What was recorded so far."""

    plan: Plan
    values: npt.NDArray[np.float32]
    """(A, C, S, E): the metric on the validation split; NaN from the epoch on in which a run diverged."""
    done: npt.NDArray[np.bool_]
    """(A, C, S)."""
    seconds: npt.NDArray[np.float32]
    """(A, C, S): CPU time of a run; 0 if it is not done."""
    recorded_with: list[str]
    """Each different set of versions and processors, once."""

    @classmethod
    def of(cls, plan: Plan) -> Table:
        """The table as saved; an empty one if there is none. Raises UsageError if it is of another plan."""
        path, (arms, configurations, seeds, epochs) = plan.values_file, plan.shape
        runs = (arms, configurations, seeds)
        if not path.exists():
            empty = np.full((*runs, epochs), np.nan, np.float32)
            return cls(plan, empty, np.zeros(runs, bool), np.zeros(runs, np.float32), [])
        with np.load(path) as held:
            if str(held["study"]) != plan.text:
                raise UsageError(
                    f"{path.name}: recorded from another {plan.file.name}; restore that file, or move this"
                )
            return cls(plan, held["values"], held["done"], held["seconds"], json.loads(str(held["recorded_with"])))

    def add(self, key: tuple[int, int, int], curve: npt.NDArray[np.float32], seconds: float) -> None:
        """A finished run at (arm, configuration, seed); `curve`: (E,)."""
        self.values[key], self.done[key], self.seconds[key] = curve, True, seconds

    def save(self) -> None:
        """Atomically: a process may be killed at any moment."""
        content = io.BytesIO()
        np.savez_compressed(
            content, values=self.values, done=self.done, seconds=self.seconds, study=np.array(self.plan.text),
            recorded_with=np.array(json.dumps(self.recorded_with)),
        )  # fmt: skip
        write(self.plan.values_file, content.getvalue())

    @property
    def complete_seeds(self) -> int:
        """The number of leading seeds on which every configuration of every arm is done."""
        whole = self.done.all(axis=(0, 1))
        return len(whole) if whole.all() else int(np.argmin(whole))

    def waiting(self) -> list[tuple[int, int, int]]:
        """(arm, configuration, seed) of the runs that are not done: seed by seed, so that a table that is stopped early
        has all configurations, and arm next to arm."""
        _, configurations, seeds, _ = self.plan.shape
        order = ((arm, c, s) for s in range(seeds) for c in range(configurations) for arm in range(len(ARMS)))
        return [run for run in order if not self.done[run]]


def plan_of(name: str, data: str | None = None, folder: Path = FOLDER) -> Plan:
    """The plan of this name. Raises UsageError if there is none."""
    known = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in known:
        raise UsageError(f"table {name!r}: unknown; known: {', '.join(known)}")
    return Plan(folder / f"{name}.toml", data)
