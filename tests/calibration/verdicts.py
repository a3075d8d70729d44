"""Calibrates the verdicts on simulated studies, and prints the tables: `python -m tests.calibration.verdicts`.

RALR_TUNE_CALIBRATE is the number of studies per row (1,000 by default; ten times as many for interim analyses). Scores
come from the simulated task's formula, evaluated for whole arrays of trials; tests compare the two, and `searches.py`
runs whole studies through the package's own search. The noise of a run has three independent parts: shared by all runs
of a seed, shared by its runs in one arm, and of the single run; their shares sum to 1.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ralr_tune.analysis.comparison import Comparison, Pairs, compare, run_error
from ralr_tune.analysis.sequential import Decision, Plan, latest_analysis, next_analysis
from ralr_tune.kinds.simulated.task import CEILING, CHANCE, CURVATURE, RATE, SimulatedTask
from tests.calibration.tables import Counted, Promise, Row, Table, rows_of, show
from tests.metrics import ACCURACY

Array = npt.NDArray[np.float64]

EPOCHS = 12
TRIALS, TOP, CHOOSING, JUDGING = 24, 2, 3, 5
"""A search, its finalists, their choosing seeds, the winner's judging seeds: as a study file has them by default."""
SEVERAL = 3
"""Comparisons that are made together, if there are several."""

DIFFERS = ("better", "worse")
RARELY_WRONG = Promise(DIFFERS, 0.05)
RARELY_EQUIVALENT = Promise(("equivalent",), 0.05)
SEEN = Promise(DIFFERS, 0.85, at_least=True)
RARELY_MISSED = Promise(("missed",), 0.05)
"""The interval of an analysis misses the true difference."""


class NoiseShares(NamedTuple):
    """Shares of the variance of the noise; the rest belongs to the single run."""

    seed: float = 0.0
    seed_in_arm: float = 0.0


def accuracy(
    lr: Array,
    noise: Array,
    wobble: Array,
    factor: Array = np.array(1.0),  # noqa: B008
    *,
    task: SimulatedTask = SimulatedTask(),  # noqa: B008
) -> Array:
    """The simulated task's accuracy after EPOCHS epochs, for standard normal noise and wobble and the last factor."""
    learned = 1 - (1 + EPOCHS) ** -RATE
    asymptote = CEILING - CURVATURE * np.log10(lr / task.optimum) ** 2
    spread = np.hypot(task.epoch_noise, task.jitter * np.log(factor))
    value = CHANCE + (asymptote - CHANCE) * learned + task.noise * noise + spread * wobble
    return np.asarray(np.clip(value, 0, 1))


# ---------------------------------------------------------------- configuration against configuration


def configurations(studies: int, seeds: int, noise: NoiseShares, comparisons: int = 1, margin: float = 0.0) -> Counted:
    """Two (or more) configurations with equal true means, paired by seed."""
    rng, started = np.random.default_rng([1, seeds, comparisons]), time.process_time()
    draws = _noise(rng, (studies, comparisons + 1, 1, seeds), noise)
    scores = accuracy(np.array(0.1), draws, rng.standard_normal(draws.shape))[:, :, 0]
    families = [[study[arm] - study[0] for arm in range(1, comparisons + 1)] for study in scores]
    verdicts = Counter(_worst_of(_compared(family, "configuration", margin)) for family in families)
    what = f"{seeds} seeds{_several(comparisons)}, {_shares(noise)}"
    return Counted(what, studies, verdicts, time.process_time() - started, (RARELY_WRONG,))


def jittery(studies: int, seeds: int) -> Counted:
    """A configuration whose last epoch is amplified by up to 4 times in 3 runs of 10, against itself without."""
    rng, started = np.random.default_rng([8, seeds]), time.process_time()
    shape = (studies, seeds)
    factor = np.where(rng.random(shape) < 0.3, rng.uniform(1, 4, shape), 1.0)
    noise, wobble, own = rng.standard_normal((3, *shape))
    differences = accuracy(np.array(0.1), noise, own, factor) - accuracy(np.array(0.1), noise, wobble)
    verdicts = Counter(_compared([d], "configuration", 0.0)[0].verdict for d in differences)
    what = f"{seeds} seeds, differences with heavy tails (RALR's jitter)"
    return Counted(what, studies, verdicts, time.process_time() - started, (RARELY_WRONG,))


def skewed(studies: int, seeds: int) -> Counted:
    """Differences whose mean is 0 and whose distribution is exponential: outside the assumptions of the t-test."""
    rng, started = np.random.default_rng([9, seeds]), time.process_time()
    differences = 0.01 * (rng.exponential(size=(studies, seeds)) - 1)
    verdicts = Counter(_compared([d], "configuration", 0.0)[0].verdict for d in differences)
    return Counted(f"a limit: {seeds} seeds, exponential differences", studies, verdicts, time.process_time() - started)


def power(studies: int, seeds: int = 5, difference: float = 2.0) -> Counted:
    """A true difference in standard deviations of the paired difference."""
    rng, started = np.random.default_rng(2), time.process_time()
    draws = 0.01 * (difference + rng.standard_normal((studies, seeds)))
    verdicts = Counter(_compared([d], "configuration", 0.0)[0].verdict for d in draws)
    return Counted(f"{seeds} seeds, {difference:g} sd apart", studies, verdicts, time.process_time() - started, (SEEN,))


def equivalence(studies: int, seeds: int) -> Counted:
    """A true difference of just the margin, of one standard deviation: "equivalent" is wrong."""
    rng, started = np.random.default_rng(3), time.process_time()
    draws = 0.01 * (1 + rng.standard_normal((studies, seeds)))
    verdicts = Counter(_compared([d], "configuration", 0.01)[0].verdict for d in draws)
    what = f"{seeds} seeds, the margin apart"
    return Counted(what, studies, verdicts, time.process_time() - started, (RARELY_EQUIVALENT,))


# ---------------------------------------------------------------- arm against arm


def arms(studies: int, blocks: int, noise: NoiseShares) -> Counted:
    """Whole searches of two arms with the same best: random trials, finalists chosen on fresh seeds, winners judged."""
    rng, started = np.random.default_rng([4, blocks]), time.process_time()
    verdicts = Counter(_arm_verdict(scores) for scores in judged_winners(rng, studies, blocks, noise))
    what = f"{blocks} blocks, {_shares(noise)}"
    return Counted(what, studies, verdicts, time.process_time() - started, (RARELY_WRONG,))


def ralr_arms(studies: int, blocks: int, seeds: int = JUDGING, apart: float = 0.0) -> Counted:
    """The same with the first arm amplified: jitter, and the same trace for the same seed; rates equal trial by trial.

    The mean results of both arms are made equal (RALR's jitter misleads its search by some 0.03 points), or `apart`.
    """
    rng, started = np.random.default_rng([10, blocks, seeds]), time.process_time()
    scores = ralr_winners(rng, studies, blocks, seeds)
    scores[:, 1] += apart - (scores[:, 1].mean() - scores[:, 0].mean())
    verdicts = Counter(_arm_verdict(study) for study in scores)
    what = f"{blocks} blocks, {seeds} seeds, RALR's jitter" + (f", {100 * apart:g} points apart" if apart else "")
    return Counted(what, studies, verdicts, time.process_time() - started, () if apart else (RARELY_WRONG,))


def blocks_alone(studies: int, blocks: int) -> Counted:
    """The mistake: all blocks are judged on the same seeds, and only their spread is used."""
    rng, started = np.random.default_rng([10, blocks, JUDGING]), time.process_time()
    scores = ralr_winners(rng, studies, blocks, JUDGING)
    scores[:, 1] -= scores[:, 1].mean() - scores[:, 0].mean()
    verdicts = Counter(_compared([d], "arm", 0.0)[0].verdict for d in (scores[:, 1] - scores[:, 0]).mean(axis=-1))
    what = f"mistake: {blocks} blocks, RALR's jitter, noise of the seeds ignored"
    return Counted(what, studies, verdicts, time.process_time() - started)


def seeds_for_arms(studies: int, seeds: int) -> Counted:
    """The mistake: one block each, its winners compared over seeds, and the verdict interpreted as one on arms."""
    rng, started = np.random.default_rng([5, seeds]), time.process_time()
    judged = judged_winners(rng, studies, 1, NoiseShares(), judging=seeds)[:, :, 0]
    verdicts = Counter(_compared([study[1] - study[0]], "configuration", 0.0)[0].verdict for study in judged)
    what = f"mistake: 1 block, its winners over {seeds} seeds"
    return Counted(what, studies, verdicts, time.process_time() - started)


def judged_winners(
    rng: np.random.Generator, studies: int, blocks: int, noise: NoiseShares, *, judging: int = JUDGING
) -> Array:
    """Judged scores of each block's winner, shape (studies, arms, blocks, judging), as search.stages has it.

    Training seeds of search depend on block and ordinal, those of choosing and judging on the study alone; all are
    equal in both arms.
    """
    shape = (studies, 2, blocks, TRIALS)
    lr = 10 ** rng.uniform(-3, 0, shape)
    finalists = best(accuracy(lr, _noise(rng, shape, noise), rng.standard_normal(shape)), lr, TOP)
    again = (studies, 2, blocks, CHOOSING)
    chosen = [
        accuracy(finalists[..., [place]], _noise(rng, again, noise, blocks_share=True), rng.standard_normal(again))
        for place in range(TOP)
    ]
    winners = best(np.stack(chosen, axis=-2).mean(axis=-1), finalists, 1)
    judge = (studies, 2, blocks, judging)
    return accuracy(winners, _noise(rng, judge, noise, blocks_share=True), rng.standard_normal(judge))


def ralr_winners(rng: np.random.Generator, studies: int, blocks: int, judging: int) -> Array:
    """The same for a monotone arm and a RALR arm of five dimensions, with the noise of the simulated task.

    A seed has one noise and one wobble in all runs, and one pair of uniforms for the last factor.
    """
    shape = (studies, 2, blocks, TRIALS)
    lr = np.broadcast_to(10 ** rng.uniform(-3, 0, (studies, 1, blocks, TRIALS)), shape)
    amplify = np.stack([rng.uniform(low, high, shape) for low, high in ((0.05, 0.6), (1, 2), (0, 4))])
    amplify[0, :, 0] = 0
    found = np.stack([lr, *amplify], axis=-1)
    finalists = best(_amplified(found, _seeds(rng, (studies, 1, blocks, TRIALS))), found, TOP)
    on = _seeds(rng, (studies, 1, 1, 1, CHOOSING))
    chosen = _amplified(finalists[..., None, :], on).mean(axis=-1)
    winners = best(chosen, finalists, 1)
    return _amplified(winners, _seeds(rng, (studies, 1, 1, judging)))


def best(scores: Array, found: Array, top: int) -> Array:
    """The `found` (..., n) or (..., n, k) with the best scores (..., n): (..., top) or (..., top, k)."""
    order = np.argsort(-scores, axis=-1)[..., :top]
    return np.take_along_axis(found, order if found.ndim == scores.ndim else order[..., None], axis=scores.ndim - 1)


def _seeds(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array, Array, Array]:
    """Noise, wobble, and two uniforms of each seed."""
    return rng.standard_normal(shape), rng.standard_normal(shape), rng.random(shape), rng.random(shape)


def _amplified(found: Array, seeds: tuple[Array, Array, Array, Array]) -> Array:
    """Accuracies of found (..., [lr, probability, lower, width]) on seeds, as `schedules.amplification` draws."""
    lr, probability, lower, width = np.moveaxis(found, -1, 0)
    noise, wobble, whether, how = seeds
    return accuracy(lr, noise, wobble, np.where(whether < probability, lower + width * how, 1.0))


def _noise(
    rng: np.random.Generator, shape: tuple[int, int, int, int], noise: NoiseShares, *, blocks_share: bool = False
) -> Array:
    """Standard normal noise of (studies, arms, blocks, seeds); `blocks_share`: all blocks have the same seeds."""
    studies, of_arms, blocks, seeds = shape
    own_blocks = 1 if blocks_share else blocks
    of_seed = rng.standard_normal((studies, 1, own_blocks, seeds))
    of_seed_in_arm = rng.standard_normal((studies, of_arms, own_blocks, seeds))
    rest = np.sqrt(1 - noise.seed - noise.seed_in_arm) * rng.standard_normal(shape)
    return np.asarray(np.sqrt(noise.seed) * of_seed + np.sqrt(noise.seed_in_arm) * of_seed_in_arm + rest)


# ---------------------------------------------------------------- interim analyses


def analyses(studies: int, plan: Plan, difference: float) -> Counted:
    """A true difference in standard deviations of the paired difference; the plan's margin is in the same unit."""
    started = time.process_time()
    draws = np.random.default_rng(6).standard_normal((studies, plan.analyses[-1])) + difference
    made = [next_analysis(list(d), plan) for d in draws]
    what = f"analyses at {_spans(plan.analyses)}, margin {plan.margin:g}, {difference:g} sd apart"
    promises = (RARELY_MISSED,)
    promises += () if difference else (RARELY_WRONG,)
    promises += (RARELY_EQUIVALENT,) if difference >= plan.margin > 0 else ()
    return _counted(what, made, difference, time.process_time() - started, promises)


def several_analyses(studies: int, plan: Plan) -> Counted:
    """Several arms against one baseline, all equal: a study errs if any of them is called better or worse."""
    started, rng = time.process_time(), np.random.default_rng(11)
    scores = rng.standard_normal((studies, plan.comparisons + 1, plan.analyses[-1]))
    verdicts: Counter[str] = Counter()
    for study in scores:
        found = {next_analysis(list(own - study[0]), plan).verdict for own in study[1:]}
        verdicts[next((name for name in ("better", "worse") if name in found), "none")] += 1
    what = f"analyses at {_spans(plan.analyses)}, {plan.comparisons} comparisons, 0 sd apart"
    more = {"pairs": "", "bias, sd": ""}
    return Counted(what, studies, verdicts, time.process_time() - started, (RARELY_WRONG,), more)


def analyses_then_test(studies: int, plan: Plan, validation: float, test: float, correlation: float) -> Counted:
    """The interim analyses use validation values; when they have settled it, the same seeds' test values are judged."""
    started, rng = time.process_time(), np.random.default_rng(7)
    shape = (studies, plan.analyses[-1])
    first, second = rng.standard_normal(shape), rng.standard_normal(shape)
    tests = test + correlation * first + np.sqrt(1 - correlation**2) * second
    stops = [next_analysis(list(d), plan).n for d in first + validation]
    made = [latest_analysis(list(d[:n]), plan) for d, n in zip(tests, stops, strict=True)]
    what = f"analyses on validation ({validation:g} sd), test {test:g} sd, correlation {correlation:g}"
    promises = (RARELY_MISSED,) if test else (RARELY_MISSED, RARELY_WRONG)
    return _counted(what, made, test, time.process_time() - started, promises)


def _counted(
    what: str, made: Sequence[Decision], difference: float, seconds: float, promises: tuple[Promise, ...]
) -> Counted:
    counts = Counter(decision.verdict for decision in made)
    known = [decision.interval for decision in made if decision.interval is not None]
    missed = sum(not low <= difference <= high for low, high in known)
    bias = float(np.mean([decision.difference for decision in made])) - difference  # type: ignore[arg-type]
    pairs = float(np.mean([decision.n for decision in made]))
    more = {"pairs": f"{pairs:.1f}", "bias, sd": f"{bias:+.2f}"}
    return Counted(what, len(made), Counter(counts) + Counter(missed=missed), seconds, promises, more)


# ---------------------------------------------------------------- the tables


def configuration_rows() -> list[Row]:
    shares = (NoiseShares(), NoiseShares(seed=0.5), NoiseShares(seed=0.9))
    return [
        *rows_of(configurations, *((seeds, noise) for seeds in (5, 20) for noise in shares)),
        *rows_of(configurations, (5, NoiseShares(), SEVERAL), (20, NoiseShares(seed=0.5), SEVERAL)),
        *rows_of(jittery, (5,), (20,)),
        *rows_of(power, ()),
        *rows_of(equivalence, (5,), (20,)),
        *rows_of(skewed, (5,), (20,)),
    ]


def arm_rows() -> list[Row]:
    shares = (
        NoiseShares(),
        NoiseShares(seed=0.9),
        NoiseShares(seed_in_arm=0.5),
        NoiseShares(seed=0.4, seed_in_arm=0.5),
    )
    return [
        *rows_of(arms, *((blocks, noise) for blocks in (3, 4, 5, 6) for noise in shares)),
        *rows_of(
            ralr_arms, (3,), (4,), (5,), (6,), (3, 3), (6, 3), (6, 20), *((4, 5, apart) for apart in (0.005, 0.01))
        ),
        *rows_of(blocks_alone, (3,), (6,)),
        *rows_of(seeds_for_arms, (5,), (20,)),
    ]


def analysis_rows() -> list[Row]:
    each, batches = tuple(range(3, 21)), (5, 8, 11, 14, 17, 20)
    known = [(margin, difference) for margin, difference in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))]
    known += [(0.0, difference) for difference in (0.5, 1.0, 2.0, 3.0)]
    tests = ((0.0, 0.0, 0.9), (1.0, 0.0, 0.9), (1.0, 0.0, 0.5), (1.5, 1.5, 0.5), (1.5, 1.5, 0.9))
    return [
        *rows_of(analyses, *((Plan(at, margin=m), difference) for at in (each, batches) for m, difference in known)),
        *rows_of(several_analyses, (Plan(batches, margin=0.0, comparisons=SEVERAL),)),
        *rows_of(analyses_then_test, *((Plan(each, margin=0.0), *test) for test in tests)),
    ]


COLUMNS = {"better or worse": DIFFERS, "equivalent": ("equivalent",)}
TABLES = [
    Table("Configuration against configuration", configuration_rows(), COLUMNS, 1000),
    Table("Arm against arm", arm_rows(), COLUMNS, 1000),
    Table(
        'Interim analyses (`seeds = "auto"`)',
        analysis_rows(),
        {**COLUMNS, "interval misses": ("missed",)},
        10_000,
        more=("pairs", "bias, sd"),
    ),
]


def _arm_verdict(scores: Array) -> str:
    """Of scores (2, blocks, seeds), as `analysis.verdicts` compares arms whose blocks were judged on the same seeds."""
    differences = scores[1] - scores[0]
    error = run_error(differences.tolist(), differences.size)
    pairs = Pairs("arm", "ralr", "monotone", list(differences.mean(axis=1)), list(differences.mean(axis=0)), error)
    return compare([pairs], margin=0.0, confidence=0.95, metric=ACCURACY)[0].verdict


def _compared(family: Sequence[Array], what: str, margin: float) -> tuple[Comparison, ...]:
    pairs = [Pairs(what, f"arm {index}", "base", list(d)) for index, d in enumerate(family)]  # type: ignore[arg-type]
    return compare(pairs, margin=margin, confidence=0.95, metric=ACCURACY)


def _worst_of(made: Sequence[Comparison]) -> str:
    """Better or worse if any comparison is: one wrong verdict makes a study wrong."""
    verdicts = [comparison.verdict for comparison in made]
    return next((verdict for verdict in ("better", "worse", "equivalent") if verdict in verdicts), "inconclusive")


def _several(comparisons: int) -> str:
    return f", {comparisons} comparisons" if comparisons > 1 else ""


def _shares(noise: NoiseShares) -> str:
    parts = [
        f"{value:.0%} of noise shared {name}"
        for name, value in (("by seed", noise.seed), ("by seed within arm", noise.seed_in_arm))
        if value
    ]
    return " and ".join(parts) or "independent noise"


def _spans(at: Sequence[int]) -> str:
    steps = {b - a for a, b in pairwise(at)}
    return f"{at[0]}, {at[1]}, ..., {at[-1]}" if len(steps) == 1 and len(at) > 3 else ", ".join(map(str, at))


if __name__ == "__main__":
    sys.exit("\n".join(show(TABLES)) or None)
