"""An open storage, a ledger on it, and processes that run at the same time."""

from __future__ import annotations

import multiprocessing
import secrets
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.ledger import Ledger

T = TypeVar("T")
Together = Callable[[int, Callable[[int], Any]], list[Any]]


@pytest.fixture(autouse=True)
def quick_opening(newest_optuna_revision: None) -> None:
    """Speeds up opening only: the tests of this folder create the tables as the program does."""


@pytest.fixture
def storage(storage_url: str) -> Iterator[Storage]:
    opened = open_storage(storage_url)
    yield opened
    opened.dispose()


@pytest.fixture
def sqlite(sqlite_url: str) -> Iterator[Storage]:
    opened = open_storage(sqlite_url)
    yield opened
    opened.dispose()


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def shared(request: pytest.FixtureRequest, new_database: Callable[..., str]) -> Iterator[Storage]:
    """One storage for all tests of a module; for tests that use only their own study."""
    opened = open_storage(new_database(request.param))
    yield opened
    opened.dispose()


@pytest.fixture
def name() -> str:
    """The name of a study that no other test uses."""
    return f"study-{secrets.token_hex(4)}"


@pytest.fixture
def ledger(shared: Storage, name: str) -> Ledger:
    return Ledger(shared, name, lease_s=30)


@pytest.fixture
def dying(ledger: Ledger) -> Ledger:
    """The same study, for workers whose leases have already expired when they claim a row."""
    return Ledger(ledger.storage, ledger.study, lease_s=-1)


@pytest.fixture
def together() -> Together:
    """`together(count, work)`: runs work(0), work(1), ... in `count` processes that start together; their results.

    Forked, since each would else import Optuna anew. They open databases of their own.
    """
    return _together


def _together(count: int, work: Callable[[int], T]) -> list[T]:
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(count), context.SimpleQueue()

    def child(index: int) -> None:
        start.wait()
        try:
            results.put((index, work(index), None))
        except BaseException:
            results.put((index, None, traceback.format_exc()))

    processes = [context.Process(target=child, args=(index,)) for index in range(count)]
    for process in processes:
        process.start()
    found = sorted((results.get() for _ in processes), key=lambda result: result[0])
    for process in processes:
        process.join()
    for _, _, trouble in found:
        assert trouble is None, trouble
    return [result for _, result, _ in found]
