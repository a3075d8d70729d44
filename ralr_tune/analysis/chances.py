"""How likely each verdict is at a true difference, by simulating studies with the package's own rules.

The rules are those of `comparison.compare` (seeds are fixed, or blocks), and of `sequential.next_analysis` and
`latest_analysis` (`confirm.seeds = "auto"`), for all studies at once; a test holds them to those functions. Values are
normal. One arm differs from the baseline by the true difference, all others are as good as the baseline. The same
random numbers serve every difference, so that a larger one is never less likely to be seen.

Symbols: S simulated studies, m comparisons (arms but the baseline), n seeds, B blocks; sigma is the standard deviation
of one configuration's value between seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import variance
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.comparison import MIN_SEEDS, What
from ralr_tune.analysis.power import ENOUGH_PAIRS, POWER
from ralr_tune.analysis.sequential import Plan, boundaries
from ralr_tune.records import StudyRecord

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

STUDIES = 4000
"""Simulated studies: the error of a probability (95%) is then at most 1.6 points."""
_FEWEST, _NUMBERS = 400, 4_000_000
"""Fewer studies, but these at least, are simulated if all would need more random numbers (our choice: 32 MB)."""
AGREEMENT = 0.9
"""Correlation of a pair's differences on the validation and the test split (our choice, as in `make calibrate`)."""
WINNERS = 0.3
"""Standard deviation of the true means of an arm's winners between blocks, in sigma (measured: LOG.md, 2026-11-30)."""
_ROUNDING = 1e-9
_FARTHEST = 1e4
"""Largest difference, in standard deviations of the pairs, that is tried: two pairs need 40."""


class Noise(NamedTuple):
    """How values vary, as standard deviations in the metric's own unit."""

    seeds: float
    """sigma."""
    pairs: float
    """Of the difference of two configurations on the same seed; sqrt(2) * sigma if seeds have no common effect."""
    winners: float
    """Of the difference of the winners' true means between blocks."""

    @classmethod
    def assumed(cls, sigma: float) -> Noise:
        """Without any common effect of a seed, and with `WINNERS` (our choice)."""
        return cls(sigma, math.sqrt(2) * sigma, math.sqrt(2) * WINNERS * sigma)


@dataclass(frozen=True)
class Design:
    """How a study decides one of its questions."""

    what: What
    """"configuration": over seeds; "arm": over blocks."""
    seeds: int
    """Fixed, or the largest number."""
    margin: float
    confidence: float
    blocks: int = 1
    comparisons: int = 1
    own_seeds: bool = False
    """Whether each block is judged on its own seeds (`search.divided`); otherwise all are judged on the same."""
    plan: Plan | None = None
    """The interim analyses of `confirm.seeds = "auto"`."""


@dataclass(frozen=True)
class Chances:
    """Probabilities of the verdicts on the arm that differs; they add up to 1, and `Simulation.error` bounds their
    error."""

    difference: float
    """The true one, in the metric's own unit; the arm is better by it."""
    right: float
    """"better". 0 at a difference of 0, at which every claim is wrong."""
    none: float
    wrong: float
    equivalent: float
    seeds: float
    """Mean number of seeds that are judged."""


class Simulation:
    """Simulated studies of one design. Pure: equal arguments give equal probabilities."""

    def __init__(self, design: Design, noise: Noise, *, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        of_blocks = design.blocks if design.what == "arm" else 1
        self.studies = min(STUDIES, max(_FEWEST, _NUMBERS // ((design.comparisons + 1) * (design.seeds * of_blocks))))
        studies, shape = self.studies, (self.studies, design.seeds)
        self._margin, self._scale = design.margin, noise.pairs
        self._counts: tuple[int, ...] = (design.seeds,)
        self._tested: list[_Analysis] = []
        if design.what == "arm":
            self._analyses = [_blocks(design, noise, studies, rng)]
            return
        values = noise.pairs * _paired(design.comparisons, shape, rng)
        if design.plan is None:
            self._analyses = [_seeds(design, values)]
            return
        self._counts, self._analyses = design.plan.analyses, _interim(design.plan, values)
        fresh = noise.pairs * _paired(design.comparisons, shape, rng)
        self._tested = _interim(design.plan, AGREEMENT * values + math.sqrt(1 - AGREEMENT**2) * fresh)

    @property
    def error(self) -> float:
        """Of any of its probabilities (95%), at most."""
        return 1.96 * math.sqrt(0.25 / self.studies)

    def chances(self, difference: float) -> Chances:
        """At a true difference of at least 0, in the metric's own unit."""
        verdicts, seeds = self._verdicts(difference)
        claimed = difference > 0
        return Chances(
            difference=difference,
            right=float((verdicts.differs & (verdicts.mean > 0)).mean()) if claimed else 0.0,
            none=float((~verdicts.differs & ~verdicts.equals).mean()),
            wrong=float((verdicts.differs & ((verdicts.mean <= 0) | (not claimed))).mean()),
            equivalent=float(verdicts.equals.mean()),
            seeds=seeds,
        )

    def visible(self, power: float = POWER) -> float | None:
        """The smallest true difference that is called right with this probability; None if no difference is."""
        low, high = 0.0, self._scale
        while self.chances(high).right < power:
            low, high = high, 2 * high
            if high > _FARTHEST * self._scale:
                return None
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (low, middle) if self.chances(middle).right >= power else (middle, high)
        return high

    def _verdicts(self, difference: float) -> tuple[_Verdicts, float]:
        """Of the arm that differs, in each study, and the mean number of seeds."""
        if not self._tested:
            return self._analyses[0].verdicts(difference, self._margin), float(self._counts[-1])
        stops = self._stops(difference)
        tested = [each.verdicts(difference, self._margin) for each in self._tested]
        found = _Verdicts(*(np.stack(each)[stops, np.arange(len(stops))] for each in zip(*tested, strict=True)))
        return found, float(np.asarray(self._counts)[stops].mean())

    def _stops(self, difference: float) -> npt.NDArray[np.intp]:
        """The analysis, by its index, after which every comparison of a study is settled; shape (S,)."""
        settled = np.stack([each.settled(difference, self._margin) for each in self._analyses])
        settled[-1] = True
        return np.asarray(settled.argmax(axis=0).max(axis=0))  # argmax: the first True of each comparison


# ---------------------------------------------------------------- one analysis of all studies


class _Verdicts(NamedTuple):
    """Of one arm; shape (S,) each."""

    mean: Floats
    differs: Bools
    equals: Bools


class _Analysis(NamedTuple):
    """All comparisons of all studies, at a true difference of 0."""

    mean: Floats
    """Shape (m, S)."""
    error: Floats
    """Standard errors; shape (m, S)."""
    differ: Floats
    """Critical values of |t| at each step of Holm, the strictest first; shape (steps, m, S) or (steps, 1, 1)."""
    equal: Floats

    def verdicts(self, difference: float, margin: float) -> _Verdicts:
        differs, equals = self._rejected(difference, margin)
        return _Verdicts(self.mean[0] + difference, differs[0] & ~equals[0], equals[0])

    def settled(self, difference: float, margin: float) -> Bools:
        """Whether a comparison has a verdict; shape (m, S)."""
        differs, equals = self._rejected(difference, margin)
        return differs | equals

    def _rejected(self, difference: float, margin: float) -> tuple[Bools, Bools]:
        mean = self.mean.copy()
        mean[0] += difference
        size = np.abs(mean)
        # as in `sequential`: an interval within the margin; without a margin nothing is equivalent
        return _holm(size > self.differ * self.error), _holm(size + self.equal * self.error < margin)


def _holm(passes: Bools) -> Bools:
    """Holm's step-down procedure (1979) from what passes at each level; shape (steps, m, S) to (m, S).

    k tests are rejected exactly if at least r pass at level r for every r up to k, but not for k + 1; they are those
    that pass at level k. A single step (Bonferroni) is its own result.
    """
    if len(passes) == 1:
        return np.asarray(passes[0])
    enough = passes.sum(axis=1) >= np.arange(1, len(passes) + 1)[:, None]
    rejected = np.cumprod(enough, axis=0).sum(axis=0)
    last = np.take_along_axis(passes, np.maximum(rejected - 1, 0)[None, None, :], axis=0)[0]
    return np.asarray(last & (rejected > 0))


def _levels(design: Design) -> Floats:
    """alpha / m, ..., alpha: the levels of Holm's steps."""
    return (1 - design.confidence) / np.arange(design.comparisons, 0, -1)


def _paired(comparisons: int, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Differences from one baseline, which makes them correlate by a half; standard deviation 1; shape (m, *shape)."""
    own = rng.standard_normal((comparisons, *shape))
    return own if comparisons == 1 else (own + rng.standard_normal(shape)) / math.sqrt(2)


def _seeds(design: Design, values: Floats) -> _Analysis:
    """A paired t-test over n seeds, or over n blocks with their own; values: shape (m, S, n)."""
    n, levels = values.shape[-1], _levels(design)[:, None, None]
    error = values.std(axis=-1, ddof=1) / math.sqrt(n)
    differ, equal = (-special.stdtrit(n - 1, tails) for tails in (levels / 2, levels))
    return _Analysis(values.mean(axis=-1), error, differ, equal)


def _interim(plan: Plan, values: Floats) -> list[_Analysis]:
    """Every analysis of a plan; values: shape (m, S, n)."""
    bounds = boundaries(plan.analyses, plan.alpha / 2)
    # computed only if something can be equivalent: a tenth of a second
    equals = boundaries(plan.analyses, plan.alpha) if plan.margin else (math.inf,) * len(bounds)
    found = []
    for n, differ, equal in zip(plan.analyses, bounds, equals, strict=True):
        first = values[..., :n]
        error = first.std(axis=-1, ddof=1) / math.sqrt(n)
        found.append(_Analysis(first.mean(axis=-1), error, *(np.full((1, 1, 1), each) for each in (differ, equal))))
    return found


def _blocks(design: Design, noise: Noise, studies: int, rng: np.random.Generator) -> _Analysis:
    """B blocks of n seeds. If blocks share their seeds: the means of the rows and of the columns of a table, and what
    neither explains. Of independent normal values these are independent."""
    blocks, n = design.blocks, design.seeds

    def drawn(scale: float, count: int) -> Floats:
        return scale * _paired(design.comparisons, (studies, count), rng)

    rows = drawn(noise.pairs / math.sqrt(n), blocks) + drawn(noise.winners, blocks)
    if design.own_seeds:
        return _seeds(design, rows)
    freedom = (blocks - 1) * (n - 1)
    rest = drawn(noise.pairs, freedom)
    runs = np.sqrt((rest**2).sum(axis=-1) / (max(1, freedom) * blocks * n))
    return _rows_and_columns(design, rows, drawn(noise.pairs / math.sqrt(blocks), n), runs)


def _rows_and_columns(design: Design, rows: Floats, columns: Floats, runs: Floats) -> _Analysis:
    """Blocks and seeds as samples; see `crossed`."""
    levels = _levels(design)
    error, critical = crossed(rows, columns, runs, np.concatenate([levels / 2, levels]))
    if design.seeds < MIN_SEEDS:
        critical = np.full_like(critical, math.inf)  # so few seeds give no verdict
    return _Analysis(rows.mean(axis=-1), error, *np.split(critical, 2))


def crossed(rows: Floats, columns: Floats, runs: Floats, tails: Floats) -> tuple[Floats, Floats]:
    """Standard errors and critical values of `comparison.paired_test` with `by_seed`, for many studies at once.

    rows: means of blocks, shape (..., B); columns: means of seeds, shape (..., n); runs: `comparison.run_error`, shape
    (...); critical values at one-sided probabilities: shape (tails, ...).
    """
    squares = np.stack([each.var(axis=-1, ddof=1) / each.shape[-1] for each in (rows, columns)])
    common = np.minimum(runs**2, squares.min(axis=0))
    own = np.where((squares > common).any(axis=0), squares - common, squares)
    freedoms = np.array([[rows.shape[-1] - 1], [columns.shape[-1] - 1]])
    quantiles = -special.stdtrit(freedoms, tails)
    critical = [np.tensordot(quantiles, each / each.sum(axis=0), axes=(0, 0)) for each in (squares, own)]
    return np.sqrt(squares.sum(axis=0) - common), np.maximum(*critical)


# ---------------------------------------------------------------- from a study's own rows


def observed_noise(record: StudyRecord) -> Noise | None:
    """From the judged configurations of each arm; None with fewer than `ENOUGH_PAIRS` seeds, or without spread.

    As in `Noise.assumed`: the spread of the winners between blocks, and that of pairs which are all equal.
    """
    stage = study_rows.stage_of(study_rows.split_of(record))
    found = {
        name: study_rows.scores(arm, stage, "best", candidate)
        for name, arm in record.arms.items()
        if (candidate := study_rows.chosen(arm, record.metric)) is not None
    }
    base = found.get(record.baseline, {})
    paired = [study_rows.differences(own, base) for name, own in found.items() if name != record.baseline]
    sigma, pairs = _pooled([list(own.values()) for own in found.values()]), _pooled(paired)
    if not sigma:
        return None
    # pairs that do not vary leave their spread unknown, as in `comparison.paired_test`
    return Noise.assumed(sigma)._replace(pairs=pairs) if pairs and pairs > _ROUNDING * sigma else Noise.assumed(sigma)


def _pooled(samples: Sequence[Sequence[float]]) -> float | None:
    """The standard deviation within samples, from those with enough values; None without any."""
    variances = [(len(each) - 1, variance(each)) for each in samples if len(each) >= ENOUGH_PAIRS]
    freedom = sum(count for count, _ in variances)
    return math.sqrt(sum(count * each for count, each in variances) / freedom) if freedom else None
