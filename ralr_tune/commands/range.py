"""`range`: a learning-rate range test before the search, which proposes the range of `lr` to search."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ralr_tune.analysis.range_test import RangeProposal, SeedRange, diverged, growing_rates, propose, window_of
from ralr_tune.bounds import BOUNDS
from ralr_tune.commands.check import load
from ralr_tune.commands.files import write_text
from ralr_tune.errors import UsageError
from ralr_tune.invocation import Variable, command, relative_to_cwd
from ralr_tune.launch.devices import Place, places
from ralr_tune.records import RateSweep
from ralr_tune.report.figures import Figure
from ralr_tune.report.images import write_images
from ralr_tune.report.range_test import Panel, draw_range_test
from ralr_tune.search.design import unit_params
from ralr_tune.search.tasks import Tasks
from ralr_tune.seeds import derive_seed
from ralr_tune.store.address import parse_address
from ralr_tune.studyfile import Configuration, StudySpec
from ralr_tune.studyfile.configuration import ScheduleConfig
from ralr_tune.studyfile.contradictions import path_in_table
from ralr_tune.studyfile.optimizers import optimizer_spec
from ralr_tune.studyfile.problems import dotted
from ralr_tune.studyfile.values import Choice, Range
from ralr_tune.tasks.base import Task

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps planned, of all seeds."""

BELOW, ABOVE = 1 / 10, 30.0
"""The default sweep begins and ends at these multiples of the optimizer's usual rates (our choice)."""
MIN_SPAN = 10.0
"""Smallest ratio of the sweep's ends (our choice): a narrower sweep shows no fall and rise."""

_WHY = {
    "not finite": "the loss is not finite from the first steps on",
    "rises": "the loss rises before it falls",
    "flat": "the loss does not fall by more than its noise",
}


@dataclass(frozen=True)
class RangeOptions:
    """The options of the command; None: the default of the optimizer, the device's name as in `worker`."""

    seeds: int = 3
    steps: int = 300
    low: float | None = None
    high: float | None = None
    device: str = "auto"
    output: Path | None = None


@dataclass(frozen=True)
class ArmsTest:
    """The test of all arms that train the same way except for schedule, amplification and noise."""

    arms: tuple[str, ...]
    amplified: tuple[str, ...]
    """Those of the arms that amplify their rates."""
    tables: tuple[str, ...]
    """The tables of the file that contain the arms' `lr`."""
    in_file: str
    """`lr` as it is in the file now."""
    fixed: Mapping[str, Any]
    middle: Mapping[str, Any]
    """Searched parameters, at the middle of their ranges."""
    epochs: float
    """Passes over the training split of a whole sweep."""
    sweeps: tuple[RateSweep, ...]
    proposal: RangeProposal

    def as_json(self) -> dict[str, Any]:
        sweeps = [asdict(sweep) | {"losses": [_finite(loss) for loss in sweep.losses]} for sweep in self.sweeps]
        return asdict(self) | {"sweeps": sweeps, "proposal": self.proposal.as_json()}

    def as_text(self, again: Callable[..., str]) -> Iterator[str]:
        """`again` makes the command for a repetition with other options."""
        settings = [f"{key} = {_shown(value)}" for key, value in self.fixed.items()]
        settings += [f"{key} = {_shown(value)} (middle of its range)" for key, value in self.middle.items()]
        yield f"{_arms(self.arms)}, {self.epochs:.2g} epochs per seed: {', '.join(settings)}"
        if self.amplified:
            yield (
                f"  {_arms(self.amplified)}: tests the base rate only; amplified rates are higher and were not tried"
            )
        yield from (f"  {_seed_line(index, seed)}" for index, seed in enumerate(self.proposal.seeds, start=1))
        yield from self._advice(again)

    def _advice(self, again: Callable[..., str]) -> Iterator[str]:
        first, last = (_two_digits(rate) for rate in (self.sweeps[0].rates[0], max(s.rates[-1] for s in self.sweeps)))
        if self.proposal.line is None:
            yield f"  no proposal: {_why_none(self.proposal, again, first, last)}"
            return
        yield f"  paste into {' and '.join(f'[{table}]' for table in self.tables)}; now it is lr = {self.in_file}:"
        yield self.proposal.line
        if self.proposal.falls_at_once:
            lower = again("--low", _two_digits(first / 100))
            yield f"  the loss falls from the lowest rate on; to try lower rates: `{lower}`"
        if self.proposal.stays_low:
            higher = again("--high", _two_digits(min(last * 30, BOUNDS["lr"].high)))
            yield f"  the loss has not risen by half at the highest rate; to try higher rates: `{higher}`"


@dataclass(frozen=True)
class RangeReport:
    """The result of the command."""

    study: str
    device: str
    seeds: int
    steps: int
    tests: tuple[ArmsTest, ...]
    figure: Path
    typed: tuple[str | Path | Variable, ...]
    """STUDY and the options that find it again."""
    ends: Mapping[str, float]
    """The options --low and --high, as far as they were given."""

    @property
    def complete(self) -> bool:
        """Whether there is a proposal for all arms."""
        return all(test.proposal.line for test in self.tests)

    def as_json(self) -> dict[str, Any]:
        return {
            "study": self.study,
            "device": self.device,
            "seeds": self.seeds,
            "steps": self.steps,
            "tests": [test.as_json() for test in self.tests],
            "figure": str(self.figure),
        }

    def as_text(self) -> str:
        lines = [
            f"study {self.study}: learning-rate range test on {self.device}, {self.seeds} seeds of {self.steps} steps; "
            "the growing rate takes the place of schedule, amplification and noise"
        ]
        for test in self.tests:
            lines += test.as_text(self._again)
        lines.append(f"Open {self.figure}")
        if self.complete:
            lines.append(f"Then: {command('plan', *self.typed)}")
        return "\n".join(lines)

    def _again(self, option: str, rate: float) -> str:
        given = {**self.ends, option: rate}
        return command("range", *self.typed, *(word for name in given for word in (name, f"{given[name]:g}")))


def range_test(
    study: str,
    options: RangeOptions,
    *,
    imports: bool = True,
    storage: str | None = None,
    out: Path | None = None,
    progress: Progress = lambda done, planned: None,
) -> RangeReport:
    """Train new networks with growing rates, once for all arms that train the same way, and draw the figure.

    Reads the training split only and writes nothing but the figure: no database, ledger or checkpoint. Raises
    UsageError (also for a kind of task without training by torch), DataError, TrialError if it runs out of memory.
    """
    spec = load(study, imports=imports, storage=storage, out=out)
    spec.kind.range_test()  # raises before any data are read
    path = options.output or (out or Path("runs") / spec.name) / "range.html"
    if path.suffix not in (".html", ".png", ".svg"):
        raise UsageError(f"--output {path}: must end in .html, .png or .svg")
    place = _place(options.device, spec)
    found = tuple(_tests(spec, place, options, progress, cache=(out or Path("runs") / spec.name) / "data"))
    _write_figure(spec, found, path, window_of(options.steps))
    typed: list[str | Path | Variable] = [study, *(parse_address(storage).arguments() if storage else ())]
    typed += ["--out", relative_to_cwd(out)] if out else []
    ends = {name: end for name, end in (("--low", options.low), ("--high", options.high)) if end is not None}
    return RangeReport(spec.name, place.device, options.seeds, options.steps, found, path, tuple(typed), ends)


def sweep_ends(optimizer: str, low: float | None, high: float | None) -> tuple[float, float]:
    """The lowest and the highest rate of the sweep. Raises UsageError."""
    usual = optimizer_spec(optimizer).usual_rates
    first, last = usual[0] * BELOW if low is None else low, usual[1] * ABOVE if high is None else high
    most = BOUNDS["lr"].high
    if not 0 < first <= last / MIN_SPAN * (1 + 1e-9) or last > most:
        raise UsageError(
            f"--low {first:g} and --high {last:g}: allowed: --low above 0, --high at least {MIN_SPAN:g} times --low "
            f"and at most {most:g}"
        )
    return first, last


def _tests(
    spec: StudySpec, place: Place, options: RangeOptions, progress: Progress, *, cache: Path
) -> Iterator[ArmsTest]:
    shared = _shared_tests(spec)
    ends = [sweep_ends(plain.training.optimizer, options.low, options.high) for plain, _ in shared]
    tasks = Tasks(spec, device=place.device, cache=cache)
    counter = _Counter(progress, len(shared) * options.seeds * options.steps)
    for (plain, arms), (low, high) in zip(shared, ends, strict=True):
        task, rates = tasks.of(plain.task), growing_rates(low, high, options.steps)
        sweeps = tuple(_sweep(spec, task, plain, index, rates, counter) for index in range(options.seeds))
        epochs = options.steps / spec.kind.steps_per_epoch(task, plain)[0]
        yield _test(spec, plain, arms, epochs, sweeps, window_of(options.steps))


class _Counter:
    """Steps of all seeds: those that a diverged seed leaves out count as done."""

    def __init__(self, progress: Progress, planned: int) -> None:
        self._progress, self._planned, self._before = progress, planned, 0

    def advance(self, done: int) -> None:
        self._progress(self._before + done, self._planned)

    def next_seed(self, steps: int) -> None:
        self._before += steps
        self.advance(0)


def _sweep(
    spec: StudySpec, task: Task, plain: Configuration, index: int, rates: Sequence[float], counter: _Counter
) -> RateSweep:
    swept = spec.kind.range_test()(
        task,
        plain,
        seed=derive_seed("range", spec.study.seed, index),
        rates=rates,
        diverged=partial(diverged, window=window_of(len(rates))),
        advance=counter.advance,
    )
    counter.next_seed(len(rates))
    return swept


def _shared_tests(spec: StudySpec) -> list[tuple[Configuration, list[str]]]:
    """Arms by the configuration of their test: the middle of their space, without what the growing rate replaces."""
    found: list[tuple[Configuration, list[str]]] = []
    for arm in spec.arms:
        configuration = spec.configuration(arm, unit_params(spec.space(arm), 0.5))
        training = configuration.training.model_copy(update={"epochs": 1, "lr": 1.0})
        plain = configuration.model_copy(
            update={"training": training, "schedule": ScheduleConfig(), "amplify": None, "noise": None}
        )
        arms = next((arms for other, arms in found if other == plain), None)
        if arms is None:
            found.append((plain, [arm]))
        else:
            arms.append(arm)
    return found


def _test(
    spec: StudySpec,
    plain: Configuration,
    arms: Sequence[str],
    epochs: float,
    sweeps: tuple[RateSweep, ...],
    window: int,
) -> ArmsTest:
    keys = {key: value for key, value in spec.training(arms[0]).items() if key not in ("epochs", "lr")}
    used = dict(plain.training) | plain.training.options
    searched = {key for key, value in keys.items() if isinstance(value, Range | Choice)}
    middle = {key: used[key] for key in keys if key in searched and key in used}
    return ArmsTest(
        arms=tuple(arms),
        amplified=tuple(arm for arm in arms if spec.arms[arm].amplify is not None),
        tables=tuple(dict.fromkeys(_table_of_lr(spec, arm, plain.training.optimizer) for arm in arms)),
        in_file="; ".join(dict.fromkeys(str(_own_or_shared_lr(spec, arm, plain.training.optimizer)) for arm in arms)),
        fixed={key: used[key] for key in ("optimizer", *keys) if key in used.keys() - searched},
        middle=middle | {f"task.{path}": value for path, value in plain.task.items()},
        epochs=epochs,
        sweeps=sweeps,
        proposal=propose(sweeps, window),
    )


def _own_or_shared_lr(spec: StudySpec, arm: str, optimizer: str) -> Any:
    return spec.optimizer_tables(arm).get(optimizer, {}).get("lr", spec.training(arm)["lr"])


def _table_of_lr(spec: StudySpec, arm: str, optimizer: str) -> str:
    if "lr" in spec.optimizer_tables(arm).get(optimizer, {}):
        return dotted(path_in_table(spec, arm, optimizer, "lr")[:-1])
    own = spec.arms[arm].training
    return "training" if own is None or own.lr is None else f"arms.{arm}.training"


def _place(device: str, spec: StudySpec) -> Place:
    from ralr_tune.launch.worker import set_threads

    place = places(device, 1)[0]
    set_threads(place, spec.kind)
    return place


def _write_figure(spec: StudySpec, tests: Sequence[ArmsTest], path: Path, window: int) -> None:
    panels = [Panel(_arms(test.arms), test.sweeps, window, test.proposal) for test in tests]
    plot = draw_range_test(spec.name, panels)
    if path.suffix == ".html":
        write_text(path, plot.to_html(include_plotlyjs=True, full_html=True))
        return
    write_images([Figure("rates", path.stem, plot)], path.parent, ["png" if path.suffix == ".png" else "svg"])


def _arms(names: Sequence[str]) -> str:
    return f"{'arm' if len(names) == 1 else 'arms'} {', '.join(names)}"


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _seed_line(index: int, seed: SeedRange) -> str:
    if seed.problem:
        return f"seed {index}: {_WHY[seed.problem]}"
    start = "from the first rate on" if seed.falls_at_once else f"from {seed.low:.2g}"
    end = "and does not rise by half" if seed.stays_low else f"and has risen by half at {seed.high:.2g}"
    return f"seed {index}: the loss falls {start}, is lowest ({seed.lowest:.3g}) at {seed.lowest_at:.2g} {end}"


def _why_none(proposal: RangeProposal, again: Callable[..., str], first: float, last: float) -> str:
    """The most frequent problem of the seeds, and what to try."""
    problem = max(proposal.problems, key=proposal.problems.count)
    if problem == "flat" or (problem == "rises" and last > MIN_SPAN * first):
        return f"{_WHY[problem]}; a longer sweep may show more: `{again('--steps', 1000)}`"
    return f"{_WHY[problem]}; begin at lower rates: `{again('--low', first / 1000)}`"


def _two_digits(rate: float) -> float:
    return float(f"{rate:.2g}")


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
