"""Reading Optuna's trials without its ORM gives the same trials, whatever their content."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import ResourceClosedError

from ralr_tune.store import trials
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.studies import optuna_study, running_trials
from tests.metrics import ACCURACY
from tests.statements import executed

DOMAINS: dict[str, Any] = {
    "width": FloatDistribution(0.0, 4.0),
    "depth": IntDistribution(1, 9, log=True),
    "kind": CategoricalDistribution(("sgd", None, 2, True)),
    "lr": FloatDistribution(1e-3, 1.0, log=True),
}
PARAMS = {"width": 1 / 3, "depth": 3, "kind": "sgd", "lr": 0.1}
KINDS = [
    create_trial(state=TrialState.RUNNING),
    create_trial(state=TrialState.RUNNING, params=PARAMS, distributions=DOMAINS, intermediate_values={1: 0.5, 2: 0.6}),
    create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {"lr": 0.1}}),
    create_trial(value=0.25, params=PARAMS, distributions=DOMAINS, user_attrs={"row": 1, "texts": ["é", None]}),
    create_trial(value=math.inf, params=PARAMS | {"kind": True}, distributions=DOMAINS),
    create_trial(state=TrialState.PRUNED, intermediate_values={1: math.nan, 2: math.inf, 3: -math.inf, 4: 1e-300}),
    create_trial(state=TrialState.PRUNED, value=0.5, system_attrs={"rung": 1}),
    create_trial(state=TrialState.FAIL),
]


@pytest.fixture
def study_id(shared: Storage, name: str) -> int:
    """A study with two trials of each kind, between those of another study."""
    study = optuna_study(shared, f"{name}/ralr", metric=ACCURACY)
    other = optuna_study(shared, f"{name}/monotone", metric=ACCURACY)
    for kind in KINDS * 2:
        study.add_trial(kind)
        other.add_trial(kind)
    return study._study_id


def both(storage: Storage, study_id: int, *which: Any) -> tuple[list[str], list[str]]:
    """Our trials and Optuna's, as text: NaN is not equal to itself."""
    rdb = storage._rdb
    ours = rdb._get_trials(study_id, *which)
    theirs = RDBStorage._get_trials(rdb, study_id, *which)
    return _as_text(ours), _as_text(theirs)


def _as_text(found: Sequence[FrozenTrial]) -> list[str]:
    """All content of the trials as text, including types and the order of parameters."""
    return [repr({**vars(trial), "intermediate_values": sorted(trial.intermediate_values.items())}) for trial in found]


@pytest.mark.parametrize("few", [500, 3])
def test_trials_are_those_that_optuna_reads(
    shared: Storage, study_id: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "_MAX_IDS", few)
    ours, theirs = both(shared, study_id, None, set(), -1)
    assert ours == theirs
    assert len(ours) == 2 * len(KINDS)


def test_only_requested_trials_are_read(shared: Storage, study_id: int) -> None:
    ids = [trial._trial_id for trial in shared._rdb.get_all_trials(study_id)]
    for states in (None, (TrialState.PRUNED, TrialState.FAIL), ()):
        for included in (set(), {ids[0], ids[3], ids[-1]}):
            for after in (-1, ids[0], ids[9], ids[-1]):
                ours, theirs = both(shared, study_id, states, included, after)
                assert ours == theirs


@pytest.mark.parametrize("on", [True, False])
def test_the_garbage_collector_is_restored_after_reading(shared: Storage, study_id: int, on: bool) -> None:
    with shared.engine.connect() as closed:
        pass
    if not on:
        gc.disable()
    try:
        shared._rdb._get_trials(study_id, None, set(), -1)
        after_reading = gc.isenabled()
        with pytest.raises(ResourceClosedError):
            trials.read_trials(closed, study_id, None, set(), -1)
        after_failing = gc.isenabled()
    finally:
        gc.enable()
    assert (after_reading, after_failing) == (on, on)


def test_a_missing_study_is_a_key_error(shared: Storage) -> None:
    with pytest.raises(KeyError):
        shared._rdb._get_trials(10**6, None, set(), -1)


def test_running_trials_are_read_without_the_finished_ones(shared: Storage, study_id: int, name: str) -> None:
    fresh = open_storage(shared.url)
    with executed(fresh) as statements:
        running = running_trials(fresh, f"{name}/ralr")
    cached = fresh.optuna._studies  # type: ignore[attr-defined]
    fresh.dispose()
    assert [trial.state for trial in running.values()] == [TrialState.RUNNING] * 4
    assert cached == {}
    assert len(statements) <= 8
