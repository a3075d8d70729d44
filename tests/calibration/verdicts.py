"""Calibrates the verdicts on simulated studies, and prints the tables: `python -m tests.calibration.verdicts`.

RALR_TUNE_CALIBRATE is the number of studies a row (1,000 by default here). Scores come from the simulated task's
formula, evaluated for whole arrays of trials; a test holds the two against each other. A seed's luck has three
independent parts: of the seed in all runs alike, of the seed in one arm, of the single run; their shares sum to 1.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ralr_tune.analysis.comparison import Comparison, Pairs, compare
from ralr_tune.analysis.sequential import Decision, Plan, latest_look, next_look
from ralr_tune.tasks.simulated import CEILING, CHANCE, CURVATURE, RATE, SimulatedTask

Array = npt.NDArray[np.float64]

EPOCHS = 12
TRIALS, TOP, CHOOSING, JUDGING = 24, 2, 3, 5
"""A search, its finalists, their choosing seeds, the winner's judging seeds: as a study file has them by default."""
SEVERAL = 3
"""Comparisons that are made together, where there are several."""


class Luck(NamedTuple):
    """Shares of the variance of a seed's luck; what is left belongs to the single run."""

    seed: float = 0.0
    seed_in_arm: float = 0.0


class Said(NamedTuple):
    """How often each verdict was said in how many studies."""

    what: str
    studies: int
    verdicts: Counter[str]
    seconds: float

    def share(self, *verdicts: str) -> float:
        return sum(self.verdicts[verdict] for verdict in verdicts) / self.studies

    @property
    def differs(self) -> float:
        """Share of studies that said better or worse."""
        return self.share("better", "worse")


class Looked(NamedTuple):
    """What a plan of looks came to."""

    said: Said
    pairs: float
    """Mean number of pairs at the end."""
    covered: float
    """Share of final intervals that hold the true difference."""
    flattered: float
    """Mean of the final difference beyond the true one, in its standard deviations."""


def studies_asked(default: int) -> int:
    """RALR_TUNE_CALIBRATE, or else the default."""
    return int(os.environ.get("RALR_TUNE_CALIBRATE", default))


def accuracy(lr: Array, luck: Array, wobble: Array, *, task: SimulatedTask = SimulatedTask()) -> Array:  # noqa: B008
    """The simulated task's accuracy after EPOCHS epochs without amplification, for standard normal luck and wobble."""
    learned = 1 - (1 + EPOCHS) ** -RATE
    asymptote = CEILING - CURVATURE * np.log10(lr / task.optimum) ** 2
    value = CHANCE + (asymptote - CHANCE) * learned + task.noise * luck + task.epoch_noise * wobble
    return np.asarray(np.clip(value, 0, 1))


# ---------------------------------------------------------------- configuration against configuration


def configurations(studies: int, seeds: int, luck: Luck, *, comparisons: int = 1, margin: float = 0.0) -> Said:
    """Two (or more) configurations with equal true means, paired by seed."""
    rng, started = np.random.default_rng([1, seeds, comparisons]), time.perf_counter()
    draws = _luck(rng, (studies, comparisons + 1, 1, seeds), luck)
    scores = accuracy(np.array(0.1), draws, rng.standard_normal(draws.shape))[:, :, 0]
    families = [[study[arm] - study[0] for arm in range(1, comparisons + 1)] for study in scores]
    verdicts = Counter(_worst_of(_compared(family, "configuration", margin)) for family in families)
    return Said(
        f"{seeds} seeds{_several(comparisons)}, {_shares(luck)}", studies, verdicts, time.perf_counter() - started
    )


def power(studies: int, *, seeds: int = 5, difference: float = 2.0) -> Said:
    """A true difference in standard deviations of the paired difference."""
    rng, started = np.random.default_rng(2), time.perf_counter()
    draws = 0.01 * (difference + rng.standard_normal((studies, seeds)))
    verdicts = Counter(_compared([d], "configuration", 0.0)[0].verdict for d in draws)
    return Said(f"{seeds} seeds, {difference:g} sd apart", studies, verdicts, time.perf_counter() - started)


def equivalence(studies: int, *, seeds: int) -> Said:
    """A true difference of just the margin, of one standard deviation: "equivalent" is wrong."""
    rng, started = np.random.default_rng(3), time.perf_counter()
    draws = 0.01 * (1 + rng.standard_normal((studies, seeds)))
    verdicts = Counter(_compared([d], "configuration", 0.01)[0].verdict for d in draws)
    return Said(f"{seeds} seeds, the margin apart", studies, verdicts, time.perf_counter() - started)


# ---------------------------------------------------------------- arm against arm


def arms(studies: int, blocks: int, luck: Luck, *, seeds_by_block: bool = False, margin: float = 0.0) -> Said:
    """Whole searches of two arms with the same best: random trials, finalists chosen on fresh seeds, winners judged."""
    rng, started = np.random.default_rng([4, blocks]), time.perf_counter()
    means = judged_winners(rng, studies, blocks, luck, seeds_by_block=seeds_by_block).mean(axis=-1)
    verdicts = Counter(_compared([study[1] - study[0]], "arm", margin)[0].verdict for study in means)
    drawn = ", seeds of each block" if seeds_by_block else ""
    return Said(f"{blocks} blocks{drawn}, {_shares(luck)}", studies, verdicts, time.perf_counter() - started)


def seeds_for_arms(studies: int, seeds: int) -> Said:
    """The mistake: one block each, its winners compared over seeds, and the verdict taken for one on arms."""
    rng, started = np.random.default_rng([5, seeds]), time.perf_counter()
    judged = judged_winners(rng, studies, 1, Luck(), judging=seeds)[:, :, 0]
    verdicts = Counter(_compared([study[1] - study[0]], "configuration", 0.0)[0].verdict for study in judged)
    return Said(f"1 block, winners over {seeds} seeds", studies, verdicts, time.perf_counter() - started)


def judged_winners(
    rng: np.random.Generator,
    studies: int,
    blocks: int,
    luck: Luck,
    *,
    judging: int = JUDGING,
    seeds_by_block: bool = False,
) -> Array:
    """Judged scores of each block's winner, shape (studies, arms, blocks, judging), as search.stages has it.

    Training seeds of search depend on block and ordinal, those of choosing and judging on the study alone
    (`seeds_by_block`: on the block, too); all are equal in both arms.
    """
    shape = (studies, 2, blocks, TRIALS)
    lr = 10 ** rng.uniform(-3, 0, shape)
    searched = accuracy(lr, _luck(rng, shape, luck), rng.standard_normal(shape))
    finalists = np.take_along_axis(lr, np.argsort(-searched, axis=-1)[..., :TOP], axis=-1)
    chosen = np.stack(
        [
            accuracy(finalists[..., place, None], *_again(rng, (studies, 2, blocks, CHOOSING), luck, seeds_by_block))
            for place in range(TOP)
        ],
        axis=-2,
    ).mean(axis=-1)
    winners = np.take_along_axis(finalists, chosen.argmax(axis=-1)[..., None], axis=-1)
    return accuracy(winners, *_again(rng, (studies, 2, blocks, judging), luck, seeds_by_block))


def _again(
    rng: np.random.Generator, shape: tuple[int, int, int, int], luck: Luck, seeds_by_block: bool
) -> tuple[Array, Array]:
    """Luck and wobble of runs on confirm's seeds."""
    return _luck(rng, shape, luck, seeds_by_block=seeds_by_block), rng.standard_normal(shape)


def _luck(
    rng: np.random.Generator, shape: tuple[int, int, int, int], luck: Luck, *, seeds_by_block: bool = True
) -> Array:
    """Standard normal luck of (studies, arms, blocks, seeds)."""
    studies, of_arms, blocks, seeds = shape
    own_blocks = blocks if seeds_by_block else 1
    of_seed = rng.standard_normal((studies, 1, own_blocks, seeds))
    of_seed_in_arm = rng.standard_normal((studies, of_arms, own_blocks, seeds))
    rest = np.sqrt(1 - luck.seed - luck.seed_in_arm) * rng.standard_normal(shape)
    return np.asarray(np.sqrt(luck.seed) * of_seed + np.sqrt(luck.seed_in_arm) * of_seed_in_arm + rest)


# ---------------------------------------------------------------- looks


def looks(studies: int, plan: Plan, difference: float) -> Looked:
    """A true difference in standard deviations of the paired difference; the plan's margin is in the same unit."""
    started = time.perf_counter()
    draws = np.random.default_rng(6).standard_normal((studies, plan.looks[-1])) + difference
    made = [next_look(list(d), plan) for d in draws]
    name = f"looks at {_spans(plan.looks)}, margin {plan.margin:g}, {difference:g} sd apart"
    return _looked(name, made, difference, time.perf_counter() - started)


def looks_then_test(studies: int, plan: Plan, validation: float, test: float, correlation: float) -> Looked:
    """The looks read validation values; once they have settled it, the test values of the same seeds are judged."""
    started, rng = time.perf_counter(), np.random.default_rng(7)
    shape = (studies, plan.looks[-1])
    first, second = rng.standard_normal(shape), rng.standard_normal(shape)
    tests = test + correlation * first + np.sqrt(1 - correlation**2) * second
    stops = [next_look(list(d), plan).n for d in first + validation]
    made = [latest_look(list(d[:n]), plan) for d, n in zip(tests, stops, strict=True)]
    name = f"looks at validation ({validation:g} sd), test {test:g} sd, correlation {correlation:g}"
    return _looked(name, made, test, time.perf_counter() - started)


def _looked(name: str, made: Sequence[Decision], difference: float, seconds: float) -> Looked:
    said = Said(name, len(made), Counter(decision.verdict for decision in made), seconds)
    known = [decision for decision in made if decision.interval is not None]
    covered = np.mean([low <= difference <= high for low, high in (decision.interval for decision in known)])  # type: ignore[misc]
    flattered = np.mean([decision.difference for decision in made]) - difference  # type: ignore[arg-type]
    return Looked(said, float(np.mean([decision.n for decision in made])), float(covered), float(flattered))


# ---------------------------------------------------------------- the tables


def configuration_table(studies: int) -> Iterator[Said]:
    for seeds in (5, 20):
        for luck in (Luck(), Luck(seed=0.5), Luck(seed=0.9)):
            yield configurations(studies, seeds, luck)
    yield configurations(studies, 5, Luck(), comparisons=SEVERAL)
    yield power(studies)
    yield from (equivalence(studies, seeds=seeds) for seeds in (5, 20))


def arm_table(studies: int) -> Iterator[Said]:
    for blocks in (3, 4, 5, 6):
        yield arms(studies, blocks, Luck())
        yield arms(studies, blocks, Luck(seed=0.9))
    for by_block in (False, True):
        yield arms(studies, 4, Luck(seed_in_arm=0.5), seeds_by_block=by_block)
    yield from (seeds_for_arms(studies, seeds) for seeds in (5, 20))


def look_table(studies: int) -> Iterator[Looked]:
    each, batches = tuple(range(3, 21)), (5, 8, 11, 14, 17, 20)
    for at in (each, batches):
        yield looks(studies, Plan(at, margin=0.0), 0.0)
        yield looks(studies, Plan(at, margin=1.0), 0.0)
        yield looks(studies, Plan(at, margin=1.0), 1.0)
        for difference in (0.5, 1.0, 2.0, 3.0):
            yield looks(studies, Plan(at, margin=0.0), difference)
    for validation, correlation in ((0.0, 0.9), (1.0, 0.9), (1.0, 0.5)):
        yield looks_then_test(studies, Plan(each, margin=0.0), validation, 0.0, correlation)
    for correlation in (0.5, 0.9):
        yield looks_then_test(studies, Plan(each, margin=0.0), 1.5, 1.5, correlation)


def main() -> None:
    """Prints the three tables as Markdown."""
    studies = studies_asked(1000)
    tables: list[tuple[str, Callable[[int], Iterator[Said]]]] = [
        ("configuration against configuration", configuration_table),
        ("arm against arm", arm_table),
    ]
    for title, table in tables:
        print(f"\n{title}, {studies} studies a row\n\n| | better or worse | equivalent | seconds |\n|---|---|---|---|")
        for said in table(studies):
            print(f"| {said.what} | {said.differs:.1%} | {said.share('equivalent'):.1%} | {said.seconds:.1f} |")
    print(f"\nlooks, {10 * studies} studies a row\n")
    print("| | better or worse | equivalent | pairs | interval covers | flattered, sd | seconds |")
    print("|---|---|---|---|---|---|---|")
    for found in look_table(10 * studies):
        said = found.said
        figures = f"{said.differs:.1%} | {said.share('equivalent'):.1%} | {found.pairs:.1f} | {found.covered:.1%}"
        print(f"| {said.what} | {figures} | {found.flattered:+.2f} | {said.seconds:.1f} |")


def _compared(family: Sequence[Array], what: str, margin: float) -> tuple[Comparison, ...]:
    pairs = [Pairs(what, f"arm {index}", "base", list(d)) for index, d in enumerate(family)]  # type: ignore[arg-type]
    return compare(pairs, margin=margin, confidence=0.95, direction="maximize")


def _worst_of(made: Sequence[Comparison]) -> str:
    """Better or worse where any comparison says so: one wrong word spoils a study."""
    verdicts = [comparison.verdict for comparison in made]
    return next((verdict for verdict in ("better", "worse", "equivalent") if verdict in verdicts), "inconclusive")


def _several(comparisons: int) -> str:
    return f", {comparisons} comparisons" if comparisons > 1 else ""


def _shares(luck: Luck) -> str:
    parts = [
        f"{value:.0%} of luck {name}"
        for name, value in (("the seed's", luck.seed), ("the arm's seed's", luck.seed_in_arm))
        if value
    ]
    return " and ".join(parts) or "luck of each run"


def _spans(at: Sequence[int]) -> str:
    steps = {b - a for a, b in pairwise(at)}
    return f"{at[0]}, {at[1]}, ..., {at[-1]}" if len(steps) == 1 and len(at) > 3 else ", ".join(map(str, at))


if __name__ == "__main__":
    main()
