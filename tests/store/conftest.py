"""An open storage, a ledger on it, and processes that do something all at once."""

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
    """Opening alone: the tests of this room make the tables as the program does."""


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
    """One storage for all tests of a module, for those that keep to a study of their own."""
    opened = open_storage(new_database(request.param))
    yield opened
    opened.dispose()


@pytest.fixture
def name() -> str:
    """Of a study that no other test has."""
    return f"study-{secrets.token_hex(4)}"


@pytest.fixture
def ledger(shared: Storage, name: str) -> Ledger:
    return Ledger(shared, name, lease_s=30)


@pytest.fixture
def dying(ledger: Ledger) -> Ledger:
    """The same study, in the hands of workers whose leases have run out before they begin."""
    return Ledger(ledger.storage, ledger.study, lease_s=-1)


@pytest.fixture
def together() -> Together:
    """`together(count, work)`: work(0), work(1), ... in so many processes that start at one moment; their results.

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
