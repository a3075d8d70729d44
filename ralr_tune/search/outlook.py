"""What a study can see: how likely each verdict is at a few true differences, and with other splits of its epochs.

Whether the schedules themselves differ is a question of blocks; whether two configurations do, one of seeds. More
trials find better configurations, which no probability here counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from ralr_tune.analysis.chances import Chances, Design, Noise, Simulation
from ralr_tune.analysis.comparison import MIN_SEEDS, What
from ralr_tune.analysis.power import ENOUGH_PAIRS
from ralr_tune.search.budget import MOST_TRIALS, USUAL_SEEDS, largest
from ralr_tune.search.forecast import epochs_left, most_epochs
from ralr_tune.search.interim import plan_of
from ralr_tune.studyfile import StudySpec

DIFFERENCES = (0.0, 0.5, 1.0, 2.0)
"""True differences, in standard deviations between seeds, as in benchmarks.decisions."""
FEW_SEEDS = 5
OTHER_BLOCKS = (ENOUGH_PAIRS, 6)
"""Of the other splits (our choice, as in docs/budget.md)."""


@dataclass(frozen=True)
class Answer:
    """What one split says on one question."""

    what: What
    """"configuration": two configurations, over seeds; "arm": the schedules themselves, over blocks."""
    own: bool
    """Whether it is the study's own split."""
    trials: int
    """Of each arm in each block."""
    blocks: int
    seeds: int
    """The largest number."""
    adaptive: bool
    """Whether there may be fewer seeds: `confirm.seeds = "auto"`."""
    epochs: int
    """At most."""
    expected_epochs: float
    """With the pruning that is expected, and without the test."""
    visible: float | None
    """Smallest true difference that is claimed in 4 of 5 studies, in the metric's unit; None: none is ever claimed."""
    chances: tuple[Chances, ...]
    """At each of `DIFFERENCES`."""
    error: float
    """Of any of their probabilities (95%), at most: they are simulated."""


@dataclass(frozen=True)
class Outlook:
    """What a study and other splits of the same epochs can see."""

    noise: Noise
    measured: bool
    """Whether the noise comes from the study's own judged seeds; otherwise it is assumed."""
    known_unit: bool
    """Whether `noise` is in the metric's unit; otherwise one standard deviation counts as 1."""
    visible_range: tuple[float | None, float | None]
    """What the study's first answer sees if the noise is half, or twice, as large."""
    answers: tuple[Answer, ...]
    """The study's own first."""
    epochs_of_blocks: int
    """At most, if the study had `OTHER_BLOCKS[0]` blocks of the same trials: the least that compares schedules."""

    @property
    def own(self) -> Sequence[Answer]:
        """The study's answers on each of its questions."""
        return [answer for answer in self.answers if answer.own]

    @property
    def error(self) -> float:
        """Of any probability (95%), at most."""
        return max(answer.error for answer in self.answers)

    @property
    def compares_schedules(self) -> bool:
        """Whether any of the splits does."""
        return any(answer.what == "arm" for answer in self.answers)

    def as_json(self) -> dict[str, Any]:
        noise = {**self.noise._asdict(), "measured": self.measured, "known_unit": self.known_unit}
        visible = {"half": self.visible_range[0], "twice": self.visible_range[1]}
        return {
            "noise": noise,
            "visible_if_noise_is": visible,
            "error": self.error,
            "epochs_of_blocks": self.epochs_of_blocks,
            "answers": [asdict(answer) for answer in self.answers],
        }


def outlook(spec: StudySpec, observed: Noise | None) -> Outlook | None:
    """None if the study compares nothing. `observed`: from its own rows.

    Without it, one standard deviation between seeds is assumed to be the margin, the smallest difference that matters
    (our choice); without a margin, everything is in standard deviations.
    """
    if len(spec.arms) < 2:
        return None
    noise = observed or Noise.assumed(spec.margin or 1.0)
    own = [_answer(spec, what, noise, own=True) for what in _questions(spec)]
    others = [_answer(other, _questions(other)[-1], noise, own=False) for other in _other_splits(spec)]
    half, twice = (
        _simulation(spec, own[0].what, Noise(*(factor * each for each in noise))).visible() for factor in (0.5, 2.0)
    )
    return Outlook(
        noise=noise,
        measured=observed is not None,
        known_unit=observed is not None or spec.margin > 0,
        visible_range=(half, twice),
        answers=(*own, *others),
        epochs_of_blocks=most_epochs(_split(spec, spec.search.trials, OTHER_BLOCKS[0], FEW_SEEDS)),
    )


def _questions(spec: StudySpec) -> list[What]:
    if spec.search.divided:
        return ["arm"]  # two recipes mostly come from two blocks, which share no seed
    return ["configuration", "arm"] if spec.search.blocks > 1 else ["configuration"]


def _answer(spec: StudySpec, what: What, noise: Noise, *, own: bool) -> Answer:
    simulated = _simulation(spec, what, noise)
    return Answer(
        what=what,
        own=own,
        trials=spec.search.trials,
        blocks=spec.search.blocks,
        seeds=spec.confirm.max_seeds,
        adaptive=spec.confirm.seeds == "auto",
        epochs=most_epochs(spec),
        expected_epochs=sum(left.expected for stage, left in epochs_left(spec, ()).items() if stage != "test"),
        visible=simulated.visible(),
        chances=tuple(simulated.chances(each * noise.seeds) for each in DIFFERENCES),
        error=simulated.error,
    )


def _simulation(spec: StudySpec, what: What, noise: Noise) -> Simulation:
    plan = plan_of(spec)
    # blocks are judged on as many seeds as the interim analyses of configurations need: here the fewest
    seeds = spec.confirm.max_seeds if plan is None or what == "configuration" else plan.analyses[0]
    design = Design(
        what=what,
        seeds=seeds,
        margin=spec.margin,
        confidence=spec.confirm.confidence,
        blocks=spec.search.blocks,
        comparisons=len(spec.arms) - 1,
        own_seeds=spec.search.divided,
        plan=plan if what == "configuration" else None,
    )
    return Simulation(design, noise)


# ---------------------------------------------------------------- other splits of the same epochs


def _other_splits(spec: StudySpec) -> Iterator[StudySpec]:
    """Fewer trials and more seeds, all seeds at once, more trials and few seeds, and blocks, each with at most the
    epochs of the study.

    Those that do not fit, or are hardly another split, are left out.
    """
    epochs, seeds, least = most_epochs(spec), spec.confirm.max_seeds, max(2, spec.confirm.top)
    fewer = max(least, spec.search.trials // 2)
    more_seeds = _most(epochs, ENOUGH_PAIRS, lambda n: _split(spec, fewer, 1, n), max(seeds, USUAL_SEEDS))
    if more_seeds is not None and more_seeds.confirm.max_seeds > seeds:
        yield more_seeds
    if spec.confirm.seeds == "auto":
        yield _split(spec, spec.search.trials, 1, seeds)
    if spec.confirm.seeds == "auto" or seeds > FEW_SEEDS or spec.search.blocks > 1:
        yield from filter(None, [_most(epochs, least, lambda n: _split(spec, n, 1, FEW_SEEDS))])
    for blocks in OTHER_BLOCKS:
        if blocks != spec.search.blocks:
            cut = partial(_split, spec, blocks=blocks, seeds=max(MIN_SEEDS, min(seeds, FEW_SEEDS)))
            yield from filter(None, [_most(epochs, least, cut)])


def _most(epochs: int, least: int, split: Callable[[int], StudySpec], most: int = MOST_TRIALS) -> StudySpec | None:
    """The split with the largest number that fits; None if not even the least does."""
    found = split(largest(lambda n: most_epochs(split(n)) <= epochs, least, most))
    return found if most_epochs(found) <= epochs else None


def _split(spec: StudySpec, trials: int, blocks: int, seeds: int) -> StudySpec:
    """The study with another split: a search per block, and a fixed number of seeds."""
    update = {
        "search": spec.search.model_copy(update={"trials": trials, "blocks": blocks, "divided": False}),
        "confirm": spec.confirm.model_copy(update={"seeds": seeds}),
        "split": None,
    }
    return replace(spec, file=spec.file.model_copy(update=update))
