"""Optuna's RDBStorage with retries: transient errors are retried, others become StorageError."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Engine
from sqlalchemy.orm import scoped_session, sessionmaker

from ralr_tune.store.address import parse_address
from ralr_tune.store.connections import with_transactions
from ralr_tune.store.failures import retry, storage_errors
from ralr_tune.store.trials import read_trials

P = ParamSpec("P")
T = TypeVar("T")
Method = Callable[Concatenate[Any, P], T]


def _retried(method: Method[P, T], retry_s: float | None = None) -> Method[P, T]:
    @wraps(method)
    def call(storage: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with storage_errors(parse_address(storage.engine.url)):
            return retry(lambda: method(storage, *args, **kwargs), retry_s=retry_s)

    return call


_ended_only: ContextVar[bool] = ContextVar("ended_only", default=False)


@contextmanager
def ended_only() -> Iterator[None]:
    """Inside, trials that are still running are not read again in this thread: Optuna's cache keeps what it read first.

    Enough for what reads ended trials only, as most pruners do after every epoch: with hundreds of workers, the running
    trials are nearly all that would be read.
    """
    before = _ended_only.set(True)
    try:
        yield
    finally:
        _ended_only.reset(before)


def _read_trials(
    storage: RetryingStorage, study_id: int, states: Container[TrialState] | None, included: set[int], after: int
) -> list[FrozenTrial]:
    with storage.reader.connect() as connection:
        return read_trials(connection, study_id, states, included, after, running=not _ended_only.get())


class RetryingStorage(RDBStorage):
    """An RDBStorage that retries every method that `_CachedStorage` calls.

    Retries happen here, below the sampler, and not around `suggest` or `tell`: a second `suggest` could draw another
    value than the one that the first may have stored. All these methods may run twice: Optuna's inserts ignore existing
    rows, its other writes are idempotent.
    """

    _reader: Engine | None = None

    def use(self, engine: Engine) -> None:
        """Uses the connections of this engine, which are in autocommit mode, in place of those that Optuna opens."""
        self._reader = engine
        self.engine = with_transactions(engine)
        self.scoped_session = scoped_session(sessionmaker(bind=self.engine))

    @property
    def reader(self) -> Engine:
        """For single queries: without a transaction around them, each is one round trip."""
        return self._reader or self.engine

    # Not retried blindly: the first try may have created a trial. `studies.ask` checks for it before it retries.
    _create_new_trial = _retried(RDBStorage._create_new_trial, retry_s=0)

    create_new_study = _retried(RDBStorage.create_new_study)
    delete_study = _retried(RDBStorage.delete_study)
    get_all_studies = _retried(RDBStorage.get_all_studies)
    get_study_directions = _retried(RDBStorage.get_study_directions)
    get_study_id_from_name = _retried(RDBStorage.get_study_id_from_name)
    get_study_name_from_id = _retried(RDBStorage.get_study_name_from_id)
    get_study_system_attrs = _retried(RDBStorage.get_study_system_attrs)
    get_study_user_attrs = _retried(RDBStorage.get_study_user_attrs)
    get_trial = _retried(RDBStorage.get_trial)
    get_trial_id_from_study_id_trial_number = _retried(RDBStorage.get_trial_id_from_study_id_trial_number)
    set_study_system_attr = _retried(RDBStorage.set_study_system_attr)
    set_study_user_attr = _retried(RDBStorage.set_study_user_attr)
    set_trial_intermediate_value = _retried(RDBStorage.set_trial_intermediate_value)
    set_trial_system_attr = _retried(RDBStorage.set_trial_system_attr)
    set_trial_user_attr = _retried(RDBStorage.set_trial_user_attr)
    _get_best_trial_id = _retried(RDBStorage._get_best_trial_id)
    _read_trials = _retried(_read_trials)
    _set_trial_param = _retried(RDBStorage._set_trial_param)
    _set_state = _retried(RDBStorage.set_trial_state_values)

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """As Optuna's method, without its ORM. KeyError if there is no such study."""
        trials = self._read_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        if not trials and not _ended_only.get():
            self.get_study_name_from_id(study_id)
        return trials

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As Optuna's method, but setting the state that a trial already has is no error: a response may be lost."""
        try:
            return self._set_state(trial_id, state, values)
        except UpdateFinishedTrialError:
            if self.get_trial(trial_id).state != state:
                raise
            return True
