"""How often pruners are wrong, by what they use: `python benchmarks/pruning.py` prints a table (about five minutes).

The simulated task with weak and strong jitter after an amplified epoch, searches of TRIALS trials per arm, in Optuna's
in-memory storage and without the ledger, but with the study's own samplers (random search, unless TPE is named),
pruners and views of the curves. EVERY pruned trial still trains to its end, as under `audit = 1`; `analysis.pruning`
defines what counts as wrong. Names of searches as arguments: only these.

waits    whether the pruner waits after amplified epochs, as this package's median pruner does (search/pruning.py)
pruned   share of the trials
saved    epochs that pruning saves, of those of all trials
wrong    of the pruned trials, those that end in the better half of the complete trials; in brackets the standard error
         over STUDIES studies, which differ only in their seed
calm     the same among the trials, pruned and complete, whose last epoch is not amplified
truly    the same by the accuracy that the formula tends to, without any noise: a trial's final value may jitter, too
lost     pruned trials that end better than all complete ones, per study; on average they cost at most this many points
best     the accuracy that the best complete trial tends to, on average
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from statistics import fmean, median, stdev
from typing import Any, NamedTuple

import optuna
import tomli_w
from optuna.trial import Trial, TrialState

from ralr_tune.analysis.pruning import Audited, PruningAudit, pruning_audit
from ralr_tune.errors import TrialError
from ralr_tune.search.pruning import WAITING, Judge, amplified_epochs
from ralr_tune.search.samplers import make_pruner, make_sampler
from ralr_tune.search.space import suggest
from ralr_tune.search.tasks import Tasks
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile import Configuration, StudySpec, parse_study

TRIALS = 200
EPOCHS = 12
JITTERS = (0.01, 0.03)
STUDIES = 10
SEARCHES: dict[str, dict[str, Any]] = {
    "median, TPE": {"pruner": "median"},
    "median": {"pruner": "median", "sampler": "random"},
    "median, smoothed": {"pruner": "median", "sampler": "random", "prune_on": "smoothed"},
    "median, best": {"pruner": "median", "sampler": "random", "prune_on": "best"},
    "median, warm-up 4": {"pruner": "median", "pruner_options": {"n_warmup_steps": 4}, "sampler": "random"},
    "patient": {"pruner": "patient", "sampler": "random"},
    "asha": {"pruner": "asha", "sampler": "random"},
    "hyperband": {"pruner": "hyperband", "sampler": "random"},
}
ROW = "| {:<17} | {:<14} | {:<5} | {:>6} | {:>5} | {:>10} | {:>10} | {:>10} | {:>4} | {:>6} | {:>5} |"
HEAD = ("search", "arm", "waits", "pruned", "saved", "wrong", "calm", "truly", "lost", "points", "best")

AMPLIFY = {
    "probability": {"low": 0.05, "high": 0.6},
    "lower": {"low": 1.0, "high": 2.0},
    "width": {"low": 0.0, "high": 4.0},
}
TABLES: dict[str, Any] = {
    "study": {"name": "pruning", "baseline": "monotone"},
    "task": {"kind": "simulated", "data": {"optimum": 0.1}},
    "training": {"epochs": EPOCHS, "batch_size": 32, "lr": {"low": 1e-3, "high": 1.0, "log": True}},
    "schedule": {"name": "cosine"},
    "arms": {"monotone": {}, "ralr": {"amplify": AMPLIFY}},
}


class Found(NamedTuple):
    """One arm's search."""

    audit: PruningAudit
    saved: float
    truly: float
    calm: float | None
    """None if no trial of one kind ended calm."""
    best: float


class Ended(NamedTuple):
    """One trial, trained to its end."""

    value: float
    limit: float
    """The accuracy that the formula tends to."""
    calm: bool
    """Its last epoch is not amplified."""


def main(names: Sequence[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore")
    print(ROW.format(*HEAD), ROW.format(*["---"] * len(HEAD)), sep="\n")
    for name in names or SEARCHES:
        print(ROW.format(name, "monotone", "", *_row(SEARCHES[name], "monotone", JITTERS[0], waits=True)), flush=True)
        for jitter in JITTERS:
            for waits in (False, True) if SEARCHES[name]["pruner"] in WAITING else (False,):
                cells = _row(SEARCHES[name], "ralr", jitter, waits)
                print(ROW.format(name, f"ralr, {jitter:g}", "yes" if waits else "no", *cells), flush=True)


def _row(search: dict[str, Any], arm: str, jitter: float, waits: bool) -> list[str]:
    return _cells([searched(_spec(seed, search, jitter), arm, waits) for seed in range(STUDIES)])


def _spec(seed: int, search: dict[str, Any], jitter: float) -> StudySpec:
    task = TABLES["task"] | {"data": TABLES["task"]["data"] | {"jitter": jitter}}
    study = TABLES["study"] | {"seed": seed}
    return parse_study(tomli_w.dumps(TABLES | {"task": task, "study": study, "search": {"trials": TRIALS} | search}))


def _cells(found: list[Found]) -> list[str]:
    return [
        f"{100 * fmean(each.audit.audited for each in found) / TRIALS:.0f}%",
        f"{100 * fmean(each.saved for each in found):.0f}%",
        _share([each.audit.rate for each in found]),
        _share([each.calm for each in found]),
        _share([each.truly for each in found]),
        f"{fmean(each.audit.lost_best for each in found):.1f}",
        f"{100 * fmean(each.audit.cost or 0.0 for each in found):.1f}",
        f"{100 * fmean(each.best for each in found):.1f}",
    ]


def _share(shares: Sequence[float | None]) -> str:
    known = [each for each in shares if each is not None]
    return f"{100 * fmean(known):.1f}% ({100 * stdev(known) / math.sqrt(len(known)):.1f})" if len(known) > 1 else "-"


def searched(spec: StudySpec, arm: str, waits: bool) -> Found:
    """A whole search of one arm, every pruning audited."""
    study = optuna.create_study(study_name=f"pruning/{arm}", direction="maximize", pruner=make_pruner(spec))
    judge = Judge(study, spec.search.prune_on)
    task: Any = Tasks(spec, device="cpu").of({})
    audited, epochs, kept, pruned = [], 0, list[Ended](), list[Ended]()
    for ordinal in range(TRIALS):
        study.sampler = make_sampler(spec, arm, 1, ordinal)
        trial = study.ask()
        suggest(trial, spec, arm)
        configuration, seed = spec.configuration(arm, trial.params), derive_seed("trial", spec.study.seed, 1, ordinal)
        curve, factors = _curve(task, configuration, seed), task.trajectory(configuration, seed=seed).factors
        stopped = _stopped(judge, trial, curve, amplified_epochs(spec, configuration, seed) if waits else frozenset())
        epochs += EPOCHS if stopped is None else stopped
        ended = Ended(curve[-1], task.asymptote(configuration), factors[-1] == 1.0)
        if stopped is not None:
            study.tell(trial, state=TrialState.PRUNED)
            audited.append(Audited(arm, stopped, curve[stopped:]))
            pruned.append(ended)
        elif math.isnan(ended.value):
            study.tell(trial, 0.0)  # as search.telling reports a diverged trial
        else:
            study.tell(trial, ended.value)
            kept.append(ended)
    (audit,) = pruning_audit(audited, {arm: [each.value for each in kept]}, metric=task.metric)
    return Found(
        audit=audit,
        saved=1 - epochs / (TRIALS * EPOCHS),
        truly=fmean(each.limit > median(other.limit for other in kept) for each in pruned),
        calm=_better_half([each.value for each in pruned if each.calm], [each.value for each in kept if each.calm]),
        best=max(kept).limit,
    )


def _better_half(pruned: Sequence[float], kept: Sequence[float]) -> float | None:
    return fmean(value > median(kept) for value in pruned) if pruned and kept else None


def _curve(task: Any, configuration: Configuration, seed: int) -> list[float]:
    """All epochs; the last one is NaN if the trial diverges there."""
    curve = []
    try:
        for epoch in range(1, EPOCHS + 1):
            curve.append(task.point(configuration, seed=seed, epochs=epoch))
    except TrialError:
        curve.append(math.nan)
    return curve


def _stopped(judge: Judge, trial: Trial, curve: list[float], amplified: frozenset[int]) -> int | None:
    """The epoch after which the trial is pruned."""
    for epoch, value in enumerate(curve, 1):
        if math.isnan(value):
            return None
        trial.report(value, epoch)
        if epoch < EPOCHS and judge.should_prune(trial, amplified=amplified):
            return epoch
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
