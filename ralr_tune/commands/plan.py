"""`plan`: what a study will do and how long it will take, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ralr_tune.commands.check import load
from ralr_tune.launch.devices import Place, places
from ralr_tune.machine.cores import available_cores
from ralr_tune.records import Inventory
from ralr_tune.report.inventory import inventory_text
from ralr_tune.report.words import duration
from ralr_tune.search.design import unit_params
from ralr_tune.search.interim import analysis_seeds
from ralr_tune.search.samplers import longest_run
from ralr_tune.search.stages import choosing_seeds, judged_runs
from ralr_tune.search.tasks import Tasks, data_inventory
from ralr_tune.studyfile import StudySpec


@dataclass(frozen=True)
class ArmPlan:
    """One arm's share."""

    dimensions: dict[str, str]
    trials: int
    epochs: int
    """Search epochs at most; pruning trains fewer, and an audit no more than its pruning spared."""


@dataclass(frozen=True)
class Plan:
    """A study before it runs."""

    study: str
    arms: dict[str, ArmPlan]
    confirm_epochs: int
    """At most: all seeds of `looks`."""
    looks: tuple[int, ...]
    """Numbers of seeds after which a verdict may stand; one where the number is fixed."""
    seconds_per_epoch: float
    workers: int
    at_once: int
    """Workers that count: of those that share a GPU or a core one each, since what more of them gain is not known."""
    device: str
    data: Inventory | None = None
    """What the data hold; None for a kind of task without such a table."""

    @property
    def epochs(self) -> int:
        return sum(arm.epochs for arm in self.arms.values()) + self.confirm_epochs

    @property
    def seconds(self) -> float:
        """At most, with all workers busy."""
        return self.epochs * self.seconds_per_epoch / self.at_once

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"epochs": self.epochs, "seconds": self.seconds}

    def as_text(self) -> str:
        lines = [f"study {self.study}"]
        for name, arm in self.arms.items():
            lines.append(f"  arm {name}: {arm.trials} trials, at most {arm.epochs} epochs; searches")
            lines += [f"    {parameter}: {domain}" for parameter, domain in arm.dimensions.items()] or ["    nothing"]
        lines.append(f"  confirm: at most {self.confirm_epochs} epochs{self._looks()}")
        lines.append(
            f"  time: at most {duration(self.seconds)} on {self._workers()} ({self.device}): {self.epochs} epochs "
            f"of {self.seconds_per_epoch:.3g} s each, from a few timed steps; pruning makes it shorter"
        )
        return "\n".join([*lines, *([inventory_text(self.data)] if self.data else [])])

    def _workers(self) -> str:
        shared = f", counted as {self.at_once} since they share" if self.at_once < self.workers else ""
        return f"{self.workers} workers{shared}"

    def _looks(self) -> str:
        if len(self.looks) < 2:
            return ""
        return f", {self.looks[0]} to {self.looks[-1]} seeds: one looks after {', '.join(map(str, self.looks))}"


def plan_study(
    study: str,
    *,
    devices: str,
    workers: int | None,
    imports: bool = True,
    storage: str | None = None,
    out: Path | None = None,
) -> Plan:
    """Verify the data, load them, time a few steps on the first worker's device, and count.

    Raises UsageError, also where the file names code and `imports` is False, and DataError.
    """
    spec = load(study, imports=imports, storage=storage, out=out)
    where = places(devices, workers)
    data = data_inventory(spec, cache=(out or Path("runs") / spec.name) / "data")
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
        looks=analysis_seeds(spec),
        seconds_per_epoch=_timed(spec, where[0]),
        workers=len(where),
        at_once=_at_once(where),
        device=where[0].device,
        data=data,
    )


def _at_once(where: Sequence[Place]) -> int:
    """See Plan.at_once."""
    devices = {place.device for place in where} - {"cpu"}
    on_cores = sum(place.device == "cpu" for place in where)
    return len(devices) + min(on_cores, available_cores())


def confirm_runs(spec: StudySpec) -> int:
    """Training runs of choosing and judging, at most."""
    candidates = min(spec.confirm.top, spec.search.trials) * spec.search.blocks
    choosing = candidates * len(choosing_seeds(spec)) if candidates > 1 else 0
    return len(spec.arms) * choosing + judged_runs(spec)


def _timed(spec: StudySpec, place: Place) -> float:
    """Seconds an epoch of the first arm, in the middle of its space (batch size and network decide, not the rest)."""
    from ralr_tune.launch.worker import set_threads

    set_threads(place, spec.kind)
    arm = next(iter(spec.arms))
    configuration = spec.configuration(arm, unit_params(spec.space(arm), 0.5))
    task = Tasks(spec, device=place.device).of(configuration.task)
    return spec.kind.seconds_per_epoch(task, configuration)
