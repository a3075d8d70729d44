"""What a study takes from an earlier one, kept with its Optuna studies on every database."""

from __future__ import annotations

import pytest

from ralr_tune.errors import StorageError
from ralr_tune.records import StartTrial, WarmStart
from ralr_tune.store import starts, studies
from ralr_tune.store.database import Storage
from tests.metrics import ACCURACY

PARAMS = {"lr": 0.1 + 0.2, "task.model": "ünet", "schedule.milestones": [0.5, 0.75], "nesterov": True}
FULL = starts.sealed(
    WarmStart("earlier", 2, tuple(StartTrial("ralr", 1, number, PARAMS) for number in range(32)), ("epochs: 4 -> 7",))
)
"""As many configurations as are ever taken: MySQL cuts longer texts than its column holds."""


def test_what_is_kept_is_read_again_exactly(shared: Storage, name: str) -> None:
    names = [f"{name}/{arm}" for arm in ("absent", "without", "with")]
    for each in names[1:]:
        study = studies.optuna_study(shared, each, metric=ACCURACY)
        assert starts.of_study(study) is None
    starts.save(study, FULL)
    assert starts.first(shared, names) == FULL
    assert starts.of_study(studies.optuna_study(shared, names[2])) == FULL
    assert starts.first(shared, names[:2]) is None


def test_an_edited_start_is_refused(sqlite: Storage) -> None:
    study = studies.optuna_study(sqlite, "sim/ralr", metric=ACCURACY)
    starts.save(study, FULL)
    study.set_user_attr(starts.START, study.user_attrs[starts.START] | {"generation": 7})
    with pytest.raises(StorageError, match="was edited: its digest does not match"):
        starts.of_study(study)
    study.set_user_attr(starts.START, {"study": 3})
    with pytest.raises(StorageError, match="is not this program's"):
        starts.first(sqlite, ["sim/ralr"])
