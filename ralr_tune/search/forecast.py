"""How many epochs a study has still to train: those of planned rows, and of rows that later stages will plan.

`most` is a bound: no trial is pruned, and every seed of `confirm.seeds = "auto"` is needed. `expected` estimates what
pruning saves from the trials that have ended, and takes each remaining interim analysis as equally likely to be the
last one (our choice).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from ralr_tune.analysis.rows import searched_epochs
from ralr_tune.records import Row, Stage
from ralr_tune.search.audits import is_sampled_place
from ralr_tune.search.interim import analysis_seeds
from ralr_tune.search.samplers import longest_run
from ralr_tune.search.stages import STAGES, choosing_seeds, judged_runs
from ralr_tune.studyfile import StudySpec

TRAINED_SHARE = 0.4
"""Share of its epochs that a trial trains under a pruner, as expected before any trial has ended (our choice)."""
PRIOR_TRIALS = 4
"""The number of ended trials that this expectation counts for (our choice)."""
STARTUP_TRIALS = 5
"""Optuna's default of the median pruner: trials of each Optuna study that are not pruned."""
TEST_EPOCHS = 1 / 3
"""A test is one forward pass over a split: a third of an epoch, if the splits were equally large (our choice)."""

START_S = 5.0
"""Seconds from the command to the first trial: imports and data of the digits study (LOG.md, 2026-11-29)."""
REPORT_S = 6.0
"""Seconds from the last epoch to the answer: the workers end, and the report is written (digits, quiet machine: LOG.md,
2026-11-29)."""


class Left(NamedTuple):
    """Epochs left in a stage."""

    expected: float
    most: float


class _Place(NamedTuple):
    """A search trial, planned or not, and the epochs that it has trained so far."""

    arm: str
    block: int
    ordinal: int
    epoch: int = 0


def epochs_left(spec: StudySpec, rows: Sequence[Row]) -> dict[Stage, Left]:
    """Epochs left by stage. `rows`: all rows of the study; none if it has not been planned."""
    stages: dict[Stage, list[Row]] = {stage: [row for row in rows if row.stage == stage] for stage in STAGES}
    judge = _judge(spec, stages["judge"], over=bool(stages["test"]))
    return {
        **_search(spec, rows),
        "choose": _choose(spec, stages["choose"], over=bool(stages["judge"])),
        "judge": judge,
        "test": _test(spec, stages["test"], judge, sum(row.state == "done" for row in stages["judge"])),
    }


# ---------------------------------------------------------------- search and audit


def _search(spec: StudySpec, rows: Sequence[Row]) -> dict[Stage, Left]:
    longest, ended = longest_run(spec), [row for row in rows if row.stage == "search" and row.state == "done"]
    places = _unfinished(spec, rows)
    trials = len(places) + len(ended)
    shares = [_trained_share(spec, place.ordinal, ended) for place in places]
    left = [longest - place.epoch for place in places]
    expected = [epochs * share for epochs, share in zip(left, shares, strict=True)]
    saved = [
        epochs - trained
        for place, epochs, trained in zip(places, left, expected, strict=True)
        if is_sampled_place(spec, place.block, place.ordinal, trials // len(spec.arms))
    ]
    known = sum(_audits(spec, rows, ended, trials // len(spec.arms)))
    # an audit trains the epochs that pruning saved: the most of both is the trials' own
    return {"search": Left(sum(expected), sum(left)), "audit": Left(known + sum(saved), known)}


def _unfinished(spec: StudySpec, rows: Sequence[Row]) -> list[_Place]:
    found = [row for row in rows if row.stage == "search"]
    if found:
        return [_Place(row.arm, row.block, row.ordinal, row.epoch) for row in found if row.state != "done"]
    blocks, trials = range(1, spec.search.blocks + 1), range(spec.search.trials)
    return [_Place(arm, block, ordinal) for arm in spec.arms for block in blocks for ordinal in trials]


def _trained_share(spec: StudySpec, ordinal: int, ended: Sequence[Row]) -> float:
    """Expected share of its epochs that a search trial trains."""
    unpruned = _unpruned_trials(spec)
    if ordinal < unpruned:
        return 1.0
    seen = [row.epoch / longest_run(spec) for row in ended if row.ordinal >= unpruned]
    return (PRIOR_TRIALS * TRAINED_SHARE + sum(seen)) / (PRIOR_TRIALS + len(seen))


def _unpruned_trials(spec: StudySpec) -> float:
    """Trials at the start of each Optuna study that its pruner lets train to the end."""
    if spec.search.pruner == "none":
        return float("inf")
    if spec.search.pruner in ("median", "patient"):
        return float(spec.search.pruner_options.get("n_startup_trials", STARTUP_TRIALS))
    return 0.0


def _audits(spec: StudySpec, rows: Sequence[Row], ended: Sequence[Row], trials: int) -> Iterator[float]:
    """Epochs left of the audits of trials that were already pruned, planned or not."""
    planned = {(row.arm, row.block, row.ordinal): row for row in rows if row.stage == "audit"}
    inherited = searched_epochs(rows)
    for row in ended:
        audit = planned.get((row.arm, row.block, row.ordinal))
        if audit is not None:
            yield _left(spec, audit, inherited[audit.id])
        elif row.outcome == "pruned" and is_sampled_place(spec, row.block, row.ordinal, trials):
            yield longest_run(spec) - row.epoch


# ---------------------------------------------------------------- confirm and test


def confirm_runs(spec: StudySpec) -> int:
    """Maximum number of training runs of the stages choose and judge."""
    return choosing_runs(spec) + judged_runs(spec)


def most_epochs(spec: StudySpec) -> int:
    """Maximum number of epochs of a study: no trial is pruned, and every seed is needed."""
    searched = len(spec.arms) * spec.search.blocks * spec.search.trials
    return (searched + confirm_runs(spec)) * longest_run(spec)


def choosing_runs(spec: StudySpec) -> int:
    """The largest number of choose rows."""
    candidates = min(spec.confirm.top, spec.search.trials) * spec.search.blocks
    return len(spec.arms) * candidates * len(choosing_seeds(spec)) if candidates > 1 else 0


def _choose(spec: StudySpec, rows: Sequence[Row], *, over: bool) -> Left:
    runs = 0 if rows or over else choosing_runs(spec)
    epochs = sum(_left(spec, row) for row in rows) + runs * longest_run(spec)
    return Left(epochs, epochs)


def _judge(spec: StudySpec, rows: Sequence[Row], *, over: bool) -> Left:
    """`over`: the tests are planned, so that no further seeds will be."""
    seeds = [row.ordinal for row in rows]
    planned = sum(_left(spec, row) for row in rows)
    if over:
        return Left(planned, planned)
    a_seed = seeds.count(0) if rows else judged_runs(spec) / spec.confirm.max_seeds
    begun = max(seeds, default=-1) + 1
    last = [count for count in analysis_seeds(spec) if count >= begun] or [begun]
    further = [(count - begun) * a_seed * longest_run(spec) for count in last]
    return Left(planned + fmean(further), planned + max(further))


def _test(spec: StudySpec, rows: Sequence[Row], judge: Left, judged: int) -> Left:
    """Each judged run is tested once; `judged`: how many have ended."""
    if rows:
        left = TEST_EPOCHS * sum(row.state != "done" for row in rows)
        return Left(left, left)
    longest = longest_run(spec)
    return Left(*(TEST_EPOCHS * (judged + epochs / longest) for epochs in judge))


def _left(spec: StudySpec, row: Row, inherited: int = 0) -> float:
    return 0 if row.state == "done" else longest_run(spec) - max(row.epoch, inherited)
