"""How often pruners are wrong, by what they use: `python benchmarks/pruning.py` prints a table (about ten minutes).

The simulated task with strong jitter after an amplified epoch, searches of TRIALS trials per arm, in Optuna's
in-memory storage and without the ledger, but with the study's own samplers (random search, unless TPE is named),
pruners and views of the curves. EVERY pruned trial still trains to its end, as under `audit = 1`; `analysis.pruning`
defines what counts as wrong.

pruned   share of the trials
wrong    of these, those that end in the better half of the complete trials; in brackets the standard deviation
         between STUDIES studies, which differ only in their seed
truly    the same by the accuracy that the formula tends to, without any noise: a trial's final value may jitter, too
lost     pruned trials that end better than all complete ones, per study; on average they cost at most this many points
best     of the complete trials, on average
"""

from __future__ import annotations

import math
import warnings
from statistics import fmean, median, pstdev
from typing import Any, NamedTuple

import optuna
import tomli_w
from optuna.trial import Trial, TrialState

from ralr_tune.analysis.pruning import Audited, PruningAudit, pruning_audit
from ralr_tune.errors import TrialError
from ralr_tune.search.pruning import Judge
from ralr_tune.search.samplers import make_pruner, make_sampler
from ralr_tune.search.space import suggest
from ralr_tune.search.tasks import Tasks
from ralr_tune.seeds import derive_seed
from ralr_tune.studyfile import Configuration, StudySpec, parse_study

TRIALS = 200
EPOCHS = 12
JITTER = 0.03
STUDIES = 10
SEARCHES: dict[str, dict[str, Any]] = {
    "median, TPE": {"pruner": "median"},
    "median": {"pruner": "median", "sampler": "random"},
    "median, warm-up 4": {"pruner": "median", "pruner_options": {"n_warmup_steps": 4}, "sampler": "random"},
    "asha": {"pruner": "asha", "sampler": "random"},
    "hyperband": {"pruner": "hyperband", "sampler": "random"},
}
ROW = "| {:<17} | {:<8} | {:<8} | {:>6} | {:>8} | {:>8} | {:>4} | {:>6} | {:>5} |"

AMPLIFY = {
    "probability": {"low": 0.05, "high": 0.6},
    "lower": {"low": 1.0, "high": 2.0},
    "width": {"low": 0.0, "high": 4.0},
}
TABLES: dict[str, Any] = {
    "study": {"name": "pruning", "baseline": "monotone"},
    "task": {"kind": "simulated", "data": {"optimum": 0.1, "jitter": JITTER}},
    "training": {"epochs": EPOCHS, "batch_size": 32, "lr": {"low": 1e-3, "high": 1.0, "log": True}},
    "schedule": {"name": "cosine"},
    "arms": {"monotone": {}, "ralr": {"amplify": AMPLIFY}},
}


class Found(NamedTuple):
    """One arm's search."""

    audit: PruningAudit
    truly: float
    best: float


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore")
    print(ROW.format("search", "prune_on", "arm", "pruned", "wrong", "truly", "lost", "points", "best"))
    for name, search in SEARCHES.items():
        for prune_on in ("value", "smoothed", "best"):
            specs = [_spec(seed, search | {"prune_on": prune_on}) for seed in range(STUDIES)]
            for arm in TABLES["arms"]:
                print(ROW.format(name, prune_on, arm, *_cells([searched(spec, arm) for spec in specs])), flush=True)


def _spec(seed: int, search: dict[str, Any]) -> StudySpec:
    return parse_study(
        tomli_w.dumps(TABLES | {"study": TABLES["study"] | {"seed": seed}, "search": {"trials": TRIALS} | search})
    )


def _cells(found: list[Found]) -> list[str]:
    rates = [each.audit.rate for each in found if each.audit.rate is not None]
    truly = [each.truly for each in found]
    return [
        f"{100 * fmean(each.audit.audited for each in found) / TRIALS:.0f}%",
        f"{100 * fmean(rates):.0f}% ({100 * pstdev(rates):.0f})" if rates else "-",
        f"{100 * fmean(truly):.0f}% ({100 * pstdev(truly):.0f})",
        f"{fmean(each.audit.lost_best for each in found):.1f}",
        f"{100 * fmean(each.audit.cost or 0.0 for each in found):.1f}",
        f"{100 * fmean(each.best for each in found):.1f}",
    ]


def searched(spec: StudySpec, arm: str) -> Found:
    """A whole search of one arm, every pruning audited."""
    study = optuna.create_study(study_name=f"pruning/{arm}", direction="maximize", pruner=make_pruner(spec))
    judge = Judge(study, spec.search.prune_on)
    task: Any = Tasks(spec, device="cpu").of({})
    finals, audited, kept, stopped_ones = [], [], [], []
    for ordinal in range(TRIALS):
        study.sampler = make_sampler(spec, arm, 1, ordinal)
        trial = study.ask()
        suggest(trial, spec, arm)
        configuration = spec.configuration(arm, trial.params)
        curve = _curve(task, configuration, derive_seed("trial", spec.study.seed, 1, ordinal))
        stopped = _stopped(judge, trial, curve)
        if stopped is not None:
            study.tell(trial, state=TrialState.PRUNED)
            audited.append(Audited(arm, stopped, curve[stopped:]))
            stopped_ones.append(task.asymptote(configuration))
        elif math.isnan(curve[-1]):
            study.tell(trial, 0.0)  # as search.telling reports a diverged trial
        else:
            study.tell(trial, curve[-1])
            finals.append(curve[-1])
            kept.append(task.asymptote(configuration))
    (audit,) = pruning_audit(audited, {arm: finals}, metric=task.metric)
    truly = fmean(value > median(kept) for value in stopped_ones)
    return Found(audit, truly, max(finals))


def _curve(task: Any, configuration: Configuration, seed: int) -> list[float]:
    """All epochs; the last one is NaN if the trial diverges there."""
    curve = []
    try:
        for epoch in range(1, EPOCHS + 1):
            curve.append(task.point(configuration, seed=seed, epochs=epoch))
    except TrialError:
        curve.append(math.nan)
    return curve


def _stopped(judge: Judge, trial: Trial, curve: list[float]) -> int | None:
    """The epoch after which the trial is pruned."""
    for epoch, value in enumerate(curve, 1):
        if math.isnan(value):
            return None
        trial.report(value, epoch)
        if epoch < EPOCHS and judge.should_prune(trial):
            return epoch
    return None


if __name__ == "__main__":
    main()
