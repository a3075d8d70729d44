"""Policy (c): Ray Tune's ASHA, the arm of the best final value.

Ray's own scheduler and its own samples, driven by replayed results: starting Ray for every search would take minutes
for what is a table look-up. SLOTS trials run side by side and report epoch by epoch in turn, as on equal workers, since
ASHA decides with what has been reported so far.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.decisions.decision import Policy
from benchmarks.decisions.habits import TRIALS, Found, best_search_value, observed
from benchmarks.decisions.worlds import ARMS, Match, Params
from ralr_tune.studyfile.values import Choice, Domain

SLOTS = 4
"""Trials that run at the same time (our choice)."""
METRIC = "value"


def missing() -> str | None:
    """Why this policy cannot run here; None if it can."""
    return None if find_spec("ray") else "Ray is not installed (make bench-decisions installs it)"


def asha_search(match: Match) -> Found:
    """Random configurations and ASHA with the defaults of both, one search for each arm."""
    (one, value, epochs), (other, further_value, further) = (_searched(match, arm) for arm in (0, 1))
    return Found((one, other), (value, further_value), epochs + further)


def _searched(match: Match, arm: int) -> tuple[Params, float, int]:
    """The configuration with the best last value of all trials, stopped ones included, as Ray's `get_best_result` has
    it; its value; trained epochs."""
    from ray.tune.schedulers import ASHAScheduler, TrialScheduler

    epochs = match.world.spec.file.training.epochs
    scheduler: Any = ASHAScheduler(metric=METRIC, mode="max", max_t=epochs)
    waiting, running, ended = _trials(match, arm), list[Any](), list[Any]()
    while waiting or running:
        while waiting and len(running) < SLOTS:
            running.append(waiting.pop(0))
            scheduler.on_trial_add(None, running[-1])
        for trial in list(running):
            trial.epoch += 1
            trial.value = trial.values[trial.epoch - 1]
            result = {"training_iteration": trial.epoch, METRIC: trial.value}
            if scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP or trial.epoch == epochs:
                running.remove(trial)
                ended.append(trial)
    best = max(ended, key=lambda trial: trial.value)
    return best.params, best.value, sum(trial.epoch for trial in ended)


def _trials(match: Match, arm: int) -> list[Any]:
    """What the scheduler needs of a trial, `trial_id`, with its configuration and its values by epoch."""
    world, tried, found = match.world, list[Params](), list[Any]()
    domains = {name: _domain(domain) for name, domain in world.spec.space(ARMS[0]).items()}
    random = np.random.RandomState(match.seed("ray", arm))
    for ordinal in range(TRIALS):
        drawn = {name: domain.sample(random_state=random) for name, domain in domains.items()}
        params = world.offered(drawn, tried)
        tried.append(params)
        values = observed(world, world.curve(params, match.seed("ray run", arm, ordinal)))
        found.append(SimpleNamespace(trial_id=f"{ordinal}", params=params, values=values, epoch=0, value=0.0))
    return found


def _domain(domain: Domain) -> Any:
    """Ray's domain of a range."""
    from ray import tune

    if isinstance(domain, Choice):
        return tune.choice(list(domain.choices))
    return (tune.loguniform if domain.log else tune.uniform)(domain.low, domain.high)


POLICY = Policy(
    "Ray Tune, ASHA", asha_search, best_search_value,
    f"random search, ASHA, {TRIALS} trials an arm, {SLOTS} at a time; the arm of the best last value is called better",
)  # fmt: skip
