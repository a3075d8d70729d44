from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import GPSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from ralr_tune.errors import StorageError
from ralr_tune.metric import Metric
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.studies import (
    ROW_MARK,
    ask,
    mark_trial,
    names,
    optuna_name,
    optuna_study,
    optuna_trials,
    register,
    resume_trial,
    running_trials,
    set_environment,
    stored,
    study_lock,
    update_text,
)
from tests.metrics import ACCURACY, LOSS

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=3),
    "random": lambda seed: RandomSampler(seed=seed),
    "gp": lambda seed: GPSampler(seed=seed, n_startup_trials=3),
}
PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "median": lambda: MedianPruner(n_startup_trials=2),
    "asha": lambda: SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    "hyperband": lambda: HyperbandPruner(min_resource=1, max_resource=4, reduction_factor=2),
    "none": NopPruner,
}


def suggest(trial: Trial) -> dict[str, float]:
    return {"lr": trial.suggest_float("lr", 1e-3, 1.0, log=True), "wd": trial.suggest_float("wd", 0.0, 1.0)}


# Ours


def test_a_study_is_stored_once(shared: Storage, name: str) -> None:
    first = register(shared, name=name, text='[study]\nname = "ä"', fingerprint="f1")
    assert abs(first.created - time.time()) < 5
    assert (first.text, first.fingerprint, first.environment) == ('[study]\nname = "ä"', "f1", {})
    assert register(shared, name=name, text="other", fingerprint="f2") == first
    assert stored(shared, name) == first
    update_text(shared, name, text="other", fingerprint="f2")
    assert (stored(shared, name).text, stored(shared, name).fingerprint) == ("other", "f2")
    assert stored(shared, name).created == first.created


def test_the_first_environment_wins(shared: Storage, name: str) -> None:
    register(shared, name=name, text="", fingerprint="")
    set_environment(shared, name, {"torch": "2.15", "device": "µ"})
    set_environment(shared, name, {"torch": "9"})
    assert stored(shared, name).environment == {"torch": "2.15", "device": "µ"}


def test_an_unknown_study_is_reported_with_the_known_ones(storage: Storage) -> None:
    with pytest.raises(StorageError, match=r"no study 'x' is stored there; stored: none$"):
        stored(storage, "x")
    register(storage, name="b", text="", fingerprint="")
    register(storage, name="a", text="", fingerprint="")
    assert names(storage) == ["b", "a"]
    with pytest.raises(StorageError, match=r"stored: b, a$"):
        update_text(storage, "x", text="", fingerprint="")


def test_a_name_that_does_not_fit_is_refused(sqlite: Storage) -> None:
    with pytest.raises(StorageError, match=r"study 'x{201}' has 201 characters"):
        register(sqlite, name="x" * 201, text="", fingerprint="")


def test_study_lock_has_one_holder_for_each_study(shared: Storage, name: str) -> None:
    with study_lock(shared, name), study_lock(shared, f"{name}-other"):
        late = study_lock(shared, name, timeout_s=0.05)
        with pytest.raises(StorageError, match=f"lock 'study-{name}' has been held"):
            late.__enter__()
    with study_lock(shared, name, timeout_s=0.05):
        pass


def test_concurrent_processes_join_one_study(
    shared: Storage, name: str, together: Callable[[int, Callable[[int], Any]], list[Any]]
) -> None:
    def join(index: int) -> tuple[str, str]:
        storage = open_storage(shared.url)
        kept = register(storage, name=name, text=f"text {index}", fingerprint="f")
        set_environment(storage, name, {"worker": str(index)})
        ask(optuna_study(storage, f"{name}/ralr", metric=ACCURACY), storage, index)
        return kept.text, stored(storage, name).environment["worker"]

    assert len(set(together(4, join))) == 1
    trials = optuna_trials(shared, f"{name}/ralr")
    assert sorted(trials) == list(range(4))
    assert sorted(trial.user_attrs[ROW_MARK] for trial in trials.values()) == list(range(4))


# Optuna's


def test_names_of_optuna_studies() -> None:
    assert [optuna_name("s", "ralr"), optuna_name("s", "ralr", 2)] == ["s/ralr", "s/ralr#2"]


def test_an_optuna_study_is_created_only_if_its_metric_is_given(shared: Storage, name: str) -> None:
    with pytest.raises(StorageError, match=f"no Optuna study '{name}/ralr' is stored there"):
        optuna_study(shared, f"{name}/ralr")
    assert optuna_trials(shared, f"{name}/ralr") == {}
    assert running_trials(shared, f"{name}/ralr") == {}
    optuna_study(shared, f"{name}/ralr", metric=ACCURACY)
    study = optuna_study(shared, f"{name}/ralr", sampler=RandomSampler(), pruner=NopPruner(), metric=ACCURACY)
    assert study.direction.name == "MAXIMIZE"
    assert isinstance(study.sampler, RandomSampler)
    assert isinstance(study.pruner, NopPruner)
    assert optuna_study(shared, f"{name}/ralr").direction.name == "MAXIMIZE"
    with pytest.raises(StorageError, match="was created to maximize, not to minimize"):
        optuna_study(shared, f"{name}/ralr", metric=LOSS)


def test_an_optuna_study_names_the_metric_and_keeps_its_name(shared: Storage, name: str) -> None:
    study = optuna_study(shared, f"{name}/ralr", metric=LOSS)
    assert (study.direction.name, study.metric_names) == ("MINIMIZE", ["loss"])
    again = optuna_study(shared, f"{name}/ralr", metric=replace(LOSS, name="error"))
    assert again.metric_names == ["loss"]


@pytest.mark.parametrize("metric", [None, ACCURACY])
def test_two_arms_never_share_a_study(shared: Storage, name: str, metric: Metric | None) -> None:
    optuna_study(shared, f"{name}/RALR", metric=ACCURACY)
    if shared.engine.dialect.name == "mysql":
        with pytest.raises(StorageError, match=f"'{name}/ralr' and '{name}/RALR' are the same name to this database"):
            optuna_study(shared, f"{name}/ralr", metric=metric)
    elif metric is not None:
        assert optuna_study(shared, f"{name}/ralr", metric=metric).study_name == f"{name}/ralr"


def test_a_trial_is_created_with_its_mark(shared: Storage, name: str) -> None:
    study = optuna_study(shared, f"{name}/ralr", metric=ACCURACY)
    trial = ask(study, shared, 42)
    other = open_storage(shared.url)
    seen = running_trials(other, f"{name}/ralr")[trial.number]
    assert seen.user_attrs == {ROW_MARK: 42}
    assert seen.datetime_start is not None
    assert seen.params == {}
    study.tell(trial, 0.5)
    assert running_trials(other, f"{name}/ralr") == {}
    assert optuna_trials(other, f"{name}/ralr")[0].value == 0.5
    other.dispose()


def test_fixed_values_are_suggested(sqlite: Storage) -> None:
    study = optuna_study(sqlite, "s/ralr", sampler=RandomSampler(seed=1), metric=ACCURACY)
    assert suggest(ask(study, sqlite, 1, {"lr": 0.1}))["lr"] == 0.1
    assert suggest(ask(study, sqlite, 2))["lr"] != 0.1


def run(trial: Trial, study: optuna.Study, epochs: int = 4) -> None:
    params = suggest(trial)
    for epoch in range(1, epochs + 1):
        trial.report(params["wd"] * epoch, epoch)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, params["wd"])


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [*itertools.product(("tpe", "random"), sorted(PRUNERS)), ("gp", "hyperband")],
)
def test_asked_and_resumed_trials_behave_like_any_other(
    sqlite: Storage, sqlite_url: str, sampler: str, pruner: str
) -> None:
    """Ten trials, each asked in one process and resumed by another: before, while and after it got parameters."""
    storages = [sqlite, open_storage(sqlite_url)]
    studies = [
        optuna_study(storage, "s/ralr", sampler=SAMPLERS[sampler](5), pruner=PRUNERS[pruner](), metric=ACCURACY)
        for storage in storages
    ]
    for number in range(10):
        first, second = studies[number % 2], studies[1 - number % 2]
        trial = ask(first, storages[number % 2], number)
        assert trial.number == number
        left: dict[str, float] = {}
        if number % 3:
            left["lr"] = trial.suggest_float("lr", 1e-3, 1.0, log=True)
        if number % 3 == 2:
            left = suggest(trial)
            trial.report(left["wd"], 1)
        resumed = resume_trial(second, number)
        assert resumed.params == left
        assert resumed.user_attrs == {ROW_MARK: number}
        if number % 3 == 2:
            with pytest.warns(UserWarning, match="already reported"):
                run(resumed, second)
        else:
            run(resumed, second)
        assert left.items() <= resumed.params.items()
    trials = optuna_trials(sqlite, "s/ralr")
    assert [trial.state.is_finished() for trial in trials.values()] == [True] * 10
    assert len({trial.params["lr"] for trial in trials.values()}) > 5  # GP sometimes proposes the same bound
    if pruner in ("median", "asha"):
        assert any(trial.state == TrialState.PRUNED for trial in trials.values())
    storages[1].dispose()


def test_an_asked_trial_sees_what_other_workers_did_meanwhile(sqlite: Storage, sqlite_url: str) -> None:
    """As with `Study.ask`: otherwise the sampler would use the trials that were cached at the last pruning."""
    seen: list[int] = []

    class Counting(RandomSampler):
        def sample_independent(self, study: optuna.Study, *rest: Any) -> Any:
            seen.append(len(study._get_trials(deepcopy=False, use_cache=True)))
            return super().sample_independent(study, *rest)

    study = optuna_study(sqlite, "s/ralr", sampler=Counting(), metric=ACCURACY)
    other_storage = open_storage(sqlite_url)
    other = optuna_study(other_storage, "s/ralr", sampler=RandomSampler(), metric=ACCURACY)
    ask(study, sqlite, 1).suggest_float("lr", 0, 1)
    for row in (2, 3):
        other.tell(ask(other, other_storage, row), 0.5)
    ask(study, sqlite, 4).suggest_float("lr", 0, 1)
    other.tell(ask(other, other_storage, 5), 0.5)
    resume_trial(study, 0).suggest_float("wd", 0, 1)
    assert seen == [1, 4, 5]
    other_storage.dispose()


def test_the_study_draws_as_with_optuna_s_own_ask(sqlite: Storage) -> None:
    own = optuna_study(sqlite, "s/own", sampler=TPESampler(seed=3, n_startup_trials=2), metric=ACCURACY)
    ours = optuna_study(sqlite, "s/ours", sampler=TPESampler(seed=3, n_startup_trials=2), metric=ACCURACY)
    for number in range(6):
        pair = (own.ask(), ask(ours, sqlite, number))
        drawn = [suggest(trial) for trial in pair]
        assert drawn[0] == drawn[1]
        own.tell(pair[0], drawn[0]["wd"])
        ours.tell(pair[1], drawn[1]["wd"])


def test_marks_of_any_process_are_seen(sqlite: Storage, sqlite_url: str) -> None:
    study = optuna_study(sqlite, "s/ralr", metric=ACCURACY)
    trial = ask(study, sqlite, 1)
    other_storage = open_storage(sqlite_url)
    other = optuna_study(other_storage, "s/ralr")
    mark_trial(other, other_storage, 0, "why", "oom")
    assert study.trials[0].user_attrs == {ROW_MARK: 1, "why": "oom"}
    study.tell(trial, 0.5)
    mark_trial(other, other_storage, 0, "why", "late")
    assert study.trials[0].user_attrs["why"] == "oom"
    other_storage.dispose()


def test_only_running_trials_are_resumed(sqlite: Storage) -> None:
    study = optuna_study(sqlite, "s/ralr", metric=ACCURACY)
    with pytest.raises(StorageError, match="has no trial 0"):
        resume_trial(study, 0)
    study.add_trial(
        optuna.trial.create_trial(value=1.0, params={"x": 0.0}, distributions={"x": FloatDistribution(0, 1)})
    )
    with pytest.raises(StorageError, match="trial 0 of Optuna study 's/ralr' is COMPLETE, not RUNNING"):
        resume_trial(study, 0)
