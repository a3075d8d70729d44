"""`search.budget`: the trials and seeds that its epochs buy.

The budget bounds the epochs that are planned: no trial pruned, every seed needed. Pruning and early verdicts save some
of them, which are not spent. Arms, blocks and `confirm.top` are the question, so the study file fixes them. Of trials
and seeds, what the file gives stays; what it does not give is chosen (our choice, simulated in LOG.md,
2026-11-30): seeds from half of the epochs, up to `USUAL_SEEDS`; trials from the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ralr_tune.search.forecast import confirm_runs, most_epochs
from ralr_tune.search.samplers import longest_run
from ralr_tune.studyfile import StudySpec
from ralr_tune.studyfile.budgets import Budget, SplitSection
from ralr_tune.studyfile.contradictions import Problem
from ralr_tune.studyfile.problems import shown
from ralr_tune.studyfile.sections import FROM_BUDGET

CONFIRM_SHARE = 0.5
"""Of the budget that seeds may take, while trials need the rest, too."""
USUAL_SEEDS = 20
"""The default of `confirm.most_seeds`: if trials are chosen, too, more seeds than these are not."""
MOST_SEEDS, MOST_TRIALS = 1_000, 1_000_000
"""Bounds of the study file."""


class TooSmall(ValueError):
    """A budget below the least that a verdict needs."""

    def __init__(self, least: SplitSection) -> None:
        super().__init__(least)
        self.least = least


def split_of(spec: StudySpec, epochs: int) -> SplitSection:
    """The split of these epochs. Raises TooSmall if they are fewer than a verdict needs."""
    least = least_split(spec)
    if epochs < least.epochs:
        raise TooSmall(least)
    trials, seeds = _given_trials(spec), _given_seeds(spec)
    if seeds is None:
        free = trials is None
        most, share = (USUAL_SEEDS, CONFIRM_SHARE) if free else (MOST_SEEDS, 1.0)
        first = least.trials if trials is None else trials
        # a share of the budget bounds what confirm takes; with fixed trials, seeds get what these leave
        seeds = largest(
            lambda n: _confirm_epochs(spec, first, n) <= share * epochs if free else _epochs(spec, first, n) <= epochs,
            least.seeds,
            most,
        )
    if trials is None:
        trials = largest(lambda n: _epochs(spec, n, seeds) <= epochs, least.trials, MOST_TRIALS)
    return SplitSection(epochs=epochs, trials=trials, seeds=seeds)


def least_split(spec: StudySpec) -> SplitSection:
    """The cheapest split that can give a verdict, with its epochs."""
    from ralr_tune.analysis.power import ENOUGH_PAIRS  # imported here: scipy takes 0.2 s

    trials, seeds = _given_trials(spec) or spec.confirm.top, _given_seeds(spec) or ENOUGH_PAIRS
    return SplitSection(epochs=_epochs(spec, trials, seeds), trials=trials, seeds=seeds)


def split_at_once(spec: StudySpec) -> StudySpec:
    """The study with its split, if that needs no timing: a budget in epochs, large enough. Otherwise the same study."""
    budget = spec.budget
    epochs = None if budget is None or not spec.needs_split else budget.epochs(None)
    if epochs is None:
        return spec
    try:
        return spec.with_split(split_of(spec, epochs))
    except TooSmall:
        return spec


def problems_of_budget(spec: StudySpec, seconds_per_epoch: float | None = None) -> Iterator[Problem]:
    """That the budget is below the least that a verdict needs, with that least. Hours need the duration of an epoch."""
    budget = spec.budget
    epochs = None if budget is None or not spec.needs_split else budget.epochs(seconds_per_epoch)
    if epochs is None or budget is None:
        return
    try:
        split_of(spec, epochs)
    except TooSmall as error:
        line = (
            f"search.budget = {shown(spec.file.search.budget)}: {_too_little(budget, error.least, seconds_per_epoch)}"
        )
        paths = (("search",), ("confirm",), ("training",), ("arms",), ("study", "baseline"))
        yield Problem(line, paths)


def _too_little(budget: Budget, least: SplitSection, seconds_per_epoch: float | None) -> str:
    needed = f"{least.epochs} epochs"
    if budget.seconds is not None and seconds_per_epoch is not None:
        amount = budget.amount * least.epochs / (budget.seconds / seconds_per_epoch)
        needed = f"{amount:.2g} {budget.unit} ({needed} of {seconds_per_epoch:.3g} s)"
    return (
        f"too little for a verdict, which needs at least {needed}: {least.trials} trials per arm and block, "
        f"{least.seeds} seeds"
    )


def budget_sentence(spec: StudySpec) -> str | None:
    """What the budget was split into; None without a budget, or before it is split."""
    split = spec.file.split
    if split is None or spec.file.search.budget is None:
        return None
    seeds = f"up to {split.seeds}" if spec.file.confirm.seeds == "auto" else split.seeds
    converted = "" if spec.budget is None or spec.budget.seconds is None else f", about {split.epochs} epochs"
    parts = f"{split.trials} trials per arm{_per_block(spec)}, {seeds} seeds; at most {most_epochs(spec)} epochs"
    return f"budget of {spec.file.search.budget}{converted}: {parts}"


def _per_block(spec: StudySpec) -> str:
    return f" and block ({spec.search.blocks} blocks)" if spec.search.blocks > 1 else ""


def _given_trials(spec: StudySpec) -> int | None:
    given = spec.file.search.trials
    return None if given == FROM_BUDGET else given


def _given_seeds(spec: StudySpec) -> int | None:
    """Seeds, or most seeds, if the file gives them."""
    confirm = spec.file.confirm
    key = "most_seeds" if confirm.seeds == "auto" else "seeds"
    return confirm.max_seeds if key in confirm.model_fields_set else None


def _epochs(spec: StudySpec, trials: int, seeds: int) -> int:
    return most_epochs(_with(spec, trials, seeds))


def _confirm_epochs(spec: StudySpec, trials: int, seeds: int) -> int:
    candidate = _with(spec, trials, seeds)
    return confirm_runs(candidate) * longest_run(candidate)


def _with(spec: StudySpec, trials: int, seeds: int) -> StudySpec:
    return spec.with_split(SplitSection(epochs=1, trials=trials, seeds=seeds))


def largest(fits: Callable[[int], bool], least: int, most: int) -> int:
    """The largest number within these that fits, by bisection, if none fits that is above one that does not; `least` if
    none fits."""
    low, high = least, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
