"""`plan`: what a study will do and how long it will take, before it runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ralr_tune.analysis.chances import Noise, observed_noise
from ralr_tune.commands.check import checked, divided_notes, few_pairs_notes, split_here, start_notes
from ralr_tune.commands.connections import shortage_at
from ralr_tune.commands.locate import existing
from ralr_tune.commands.outlook import outlook_lines
from ralr_tune.commands.timing import seconds_per_epoch
from ralr_tune.commands.usual_rates import unusual_rates
from ralr_tune.errors import StorageError
from ralr_tune.invocation import command
from ralr_tune.launch.devices import Place, places
from ralr_tune.machine.cores import available_cores
from ralr_tune.metric import Metric
from ralr_tune.records import Inventory
from ralr_tune.report.inventory import inventory_text
from ralr_tune.report.words import duration
from ralr_tune.search.budget import budget_sentence
from ralr_tune.search.forecast import REPORT_S, START_S, confirm_runs, epochs_left
from ralr_tune.search.interim import analysis_seeds
from ralr_tune.search.outlook import Outlook, outlook
from ralr_tune.search.samplers import longest_run
from ralr_tune.search.tasks import data_inventory
from ralr_tune.store import studies
from ralr_tune.store.location import storage_url
from ralr_tune.store.reading import read_study
from ralr_tune.studyfile import StudySpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArmPlan:
    """The plan of one arm."""

    dimensions: dict[str, str]
    trials: int
    epochs: int
    """Maximum search epochs; pruning trains fewer, and an audit trains at most the epochs that pruning saved."""


@dataclass(frozen=True)
class Plan:
    """The plan of a study."""

    study: str
    arms: dict[str, ArmPlan]
    confirm_epochs: int
    """Maximum confirm epochs: all seeds of `looks`."""
    expected_epochs: float
    """Expected epochs of search, audits and confirm: pruning saves some, and interim analyses may decide early."""
    looks: tuple[int, ...]
    """Numbers of seeds at the interim analyses, each of which may decide; one number if the design is fixed."""
    seconds_per_epoch: float | None
    """None if only the trials will show it."""
    workers: int
    at_once: int
    """Effective workers: those that share a GPU or a core count as one, since the gain from sharing is not known."""
    device: str
    data: Inventory | None = None
    """The contents of the data; None for a kind of task without such a table."""
    budget: str | None = None
    """What `search.budget` was split into; None without one."""
    outlook: Outlook | None = None
    """How likely each verdict is, and what other splits of the same epochs can see; None if nothing is compared."""
    metric: Metric | None = None
    advice: tuple[str, ...] = ()
    """Sentences on learning rates that are unusual for the optimizer, and on a database with too few connections."""

    @property
    def epochs(self) -> int:
        return sum(arm.epochs for arm in self.arms.values()) + self.confirm_epochs

    @property
    def seconds(self) -> float | None:
        """Maximum time if all workers are busy, with the start and the report; None if unknown."""
        return self._seconds(self.epochs)

    @property
    def expected_seconds(self) -> float | None:
        """The same for the expected epochs."""
        return self._seconds(self.expected_epochs)

    def _seconds(self, epochs: float) -> float | None:
        if self.seconds_per_epoch is None:
            return None
        return START_S + epochs * self.seconds_per_epoch / self.at_once + REPORT_S

    def as_json(self) -> dict[str, Any]:
        derived = {"epochs": self.epochs, "seconds": self.seconds, "expected_seconds": self.expected_seconds}
        facts = asdict(replace(self, outlook=None, metric=None))
        del facts["metric"]
        return facts | derived | {"outlook": None if self.outlook is None else self.outlook.as_json()}

    def as_text(self) -> str:
        lines = [f"study {self.study}", *([f"  {self.budget}"] if self.budget else [])]
        for name, arm in self.arms.items():
            lines.append(f"  arm {name}: {arm.trials} trials, at most {arm.epochs} epochs; searched parameters:")
            lines += [f"    {parameter}: {domain}" for parameter, domain in arm.dimensions.items()] or ["    none"]
        lines.append(f"  confirm: at most {self.confirm_epochs} epochs{self._interim_analyses()}")
        lines.append(f"  time: {self._time()}")
        if self.outlook and self.metric:
            lines += outlook_lines(self.outlook, self.metric)
        lines += [f"  {sentence}" for sentence in self.advice]
        return "\n".join([*lines, *([inventory_text(self.data)] if self.data else [])])

    def _time(self) -> str:
        where = f"on {self._workers()} ({self.device})"
        epochs = f"about {self.expected_epochs:.0f} of at most {self.epochs} epochs"
        if self.expected_seconds is None or self.seconds is None:
            return (
                f"{epochs} {where}; how long one takes is not known before the first trial: `run` shows the time left"
            )
        return (
            f"about {duration(self.expected_seconds)}, at most {duration(self.seconds)}, {where}: {epochs}, "
            f"{self.seconds_per_epoch:.3g} s each, from a few timed steps"
        )

    def _workers(self) -> str:
        shared = f", counted as {self.at_once} because they share devices" if self.at_once < self.workers else ""
        return f"{self.workers} workers{shared}"

    def _interim_analyses(self) -> str:
        if len(self.looks) < 2:
            return ""
        return f", {self.looks[0]} to {self.looks[-1]} seeds: interim analyses after {', '.join(map(str, self.looks))}"


def plan_study(
    study: str,
    *,
    devices: str,
    workers: int | None,
    imports: bool = True,
    storage: str | None = None,
    out: Path | None = None,
) -> Plan:
    """Verify and load the data, time a few steps on the first worker's device, and count epochs.

    Raises UsageError (also if the file imports code and `imports` is False) and DataError, with every problem at once.
    """
    spec = checked(study, imports=imports, storage=storage, out=out)
    assigned, folder = places(devices, workers), out or Path("runs") / spec.name
    data = data_inventory(spec, cache=folder / "data")
    url = storage_url(storage, spec, folder)
    spec = split_here(spec, url, assigned[0])
    epochs = longest_run(spec)
    trials = spec.search.trials * spec.search.blocks
    arms = {
        arm: ArmPlan({name: str(domain) for name, domain in spec.space(arm).items()}, trials, trials * epochs)
        for arm in spec.arms
    }
    return Plan(
        study=spec.name,
        arms=arms,
        confirm_epochs=confirm_runs(spec) * epochs,
        expected_epochs=sum(left.expected for stage, left in epochs_left(spec, ()).items() if stage != "test"),
        looks=analysis_seeds(spec),
        seconds_per_epoch=seconds_per_epoch(spec, assigned[0]),
        workers=len(assigned),
        at_once=_effective_workers(assigned),
        device=assigned[0].device,
        data=data,
        budget=budget_sentence(spec),
        outlook=outlook(spec, _observed_noise(spec, url)),
        metric=spec.metric,
        advice=(
            *filter(None, [shortage_at(url, len(assigned))]),
            *(f"{each}; `{command('range', study)}` measures which rates train" for each in unusual_rates(spec)),
            *few_pairs_notes(spec),
            *divided_notes(spec),
            *start_notes(spec, storage, out),
            *spec.kind.notes(spec.task),
        ),
    )


def _observed_noise(spec: StudySpec, url: str) -> Noise | None:
    """From the study's own rows, if it was started with this storage; None if the storage cannot be reached."""
    try:
        with existing(url, force=True) as opened:
            if opened is None or spec.name not in studies.names(opened):
                return None
            return observed_noise(read_study(opened, spec.name, curves=False))
    except StorageError as error:
        log.warning("how seeds vary is assumed: %s", error)
        return None


def _effective_workers(assigned: Sequence[Place]) -> int:
    """See `Plan.at_once`."""
    devices = {place.device for place in assigned} - {"cpu"}
    on_cores = sum(place.device == "cpu" for place in assigned)
    return len(devices) + min(on_cores, available_cores())
