"""The number of SQL statements of a trial does not grow with the study."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.filled import EPOCHS, fill, study
from ralr_tune.search.session import Session
from ralr_tune.search.tasks import Tasks
from ralr_tune.search.telling import settle
from ralr_tune.search.trial import epochs_of, work_on
from ralr_tune.store import studies
from ralr_tune.store.database import open_storage
from tests.statements import executed, transactions

NEVER_PRUNES = {"pruner": "median", "pruner_options": {"n_warmup_steps": EPOCHS}}
"""It still reads all trials at every epoch."""


def statements_of(folder: Path, trials: int, epochs: int = EPOCHS, **search: Any) -> tuple[Counter[str], Counter[str]]:
    """Statements of a worker's start and of its second trial, by first word; in a study with `trials` done per arm."""
    storage = open_storage(f"sqlite:///{folder}/{trials}-{epochs}.db", create=True)
    spec = study(trials + 2, epochs=epochs, **NEVER_PRUNES | search)
    ledger = fill(storage, spec, free=2)
    session = Session(spec, storage, ledger, Tasks(spec, device="cpu"), folder / "out", "me")
    try:
        with executed(storage) as start:
            settle(session)
        with executed(storage) as trial:
            for _ in range(3):  # the first one of each arm reads all trials
                trial.clear()
                row = ledger.claim("me", "search")
                assert row is not None
                work_on(session, row)
    finally:
        storage.dispose()
    return _first_words(start), _first_words(trial)


def _first_words(statements: list[str]) -> Counter[str]:
    return Counter(statement.split()[0] for statement in statements)


def test_a_trial_and_a_start_take_the_same_number_of_statements_in_a_study_of_any_size(tmp_path: Path) -> None:
    assert statements_of(tmp_path, 20) == statements_of(tmp_path, 120)


def test_an_epoch_is_one_transaction(tmp_path: Path) -> None:
    _, short = statements_of(tmp_path, 20, epochs=5)
    _, long = statements_of(tmp_path, 20, epochs=15)
    more = {word: long[word] - short[word] for word in ("BEGIN", "COMMIT", "UPDATE", "INSERT")}
    assert more == dict.fromkeys(more, 10)


def transactions_of(url: str, folder: Path, epochs: int) -> tuple[list[str], list[str]]:
    """What begins each transaction of a claim, and of a trial of this many epochs."""
    storage = open_storage(url)
    spec = study(5, epochs=epochs, **NEVER_PRUNES)
    ledger = fill(storage, spec, free=2)
    session = Session(spec, storage, ledger, Tasks(spec, device="cpu"), folder / "out", "me")
    try:
        for _ in range(3):  # the first one of each arm reads all trials
            with transactions(storage) as claim:
                row = ledger.claim("me", "search")
            assert row is not None
            with transactions(storage) as trial:
                work_on(session, row)
    finally:
        storage.dispose()
    return claim, trial


def test_a_claim_and_a_report_are_one_commit_each_and_a_verdict_is_one_query(
    new_database: Callable[..., str], tmp_path: Path
) -> None:
    """Also the lease, the state and Optuna's report; the lease's own thread has nothing to do while reports come."""
    (claim, short), (_, long) = (transactions_of(new_database("postgresql"), tmp_path, each) for each in (5, 15))
    assert len(claim) == 1
    more = Counter(_first_words(long)) - Counter(_first_words(short))
    assert more == {"BEGIN": 10, "SELECT": 10}


def test_a_running_trial_is_not_read_again_after_every_epoch(new_database: Callable[..., str], tmp_path: Path) -> None:
    """Neither its curve nor its parameters: with hundreds of workers, these are nearly all that there is to read."""
    storage = open_storage(new_database("postgresql"))
    spec = study(3, epochs=6, **NEVER_PRUNES)
    ledger = fill(storage, spec, free=2)
    session = Session(spec, storage, ledger, Tasks(spec, device="cpu"), tmp_path, "me")
    row = ledger.claim("me", "search")
    assert row is not None
    works = epochs_of(session, row)
    next(works)
    next(works)  # the first verdict reads the trials that ended before
    with executed(storage) as statements:
        next(works)
        next(works)
    works.close()
    storage.dispose()
    read = [statement for statement in statements if statement.startswith("SELECT")]
    assert len(read) == 2
    assert all("FROM trials" in statement for statement in read)


def test_the_attributes_of_a_trial_are_one_statement_in_the_transaction_that_ends_it(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/study.db", create=True)
    spec = study(3, epochs=2, **NEVER_PRUNES)
    ledger = fill(storage, spec, free=2)
    session = Session(spec, storage, ledger, Tasks(spec, device="cpu"), tmp_path / "out", "me")
    row = ledger.claim("me", "search")
    assert row is not None
    with executed(storage) as statements:
        work_on(session, row)
    done = next(n for n, text in enumerate(statements) if text.startswith("UPDATE") and "outcome" in text)
    inserted = [n for n, text in enumerate(statements) if text.startswith("INSERT INTO trial_user_attributes")]
    assert inserted[1:] == [done + 1]  # the first one is the mark of its row, when the trial was asked
    trial = studies.optuna_study(storage, studies.optuna_name(spec.name, row.arm)).trials[-1]
    storage.dispose()
    assert {"seed", "configuration", "device hours", "checkpoint", studies.ROW_MARK} == trial.user_attrs.keys()
    assert trial.user_attrs["seed"] == row.seed
    assert json.loads(trial.user_attrs["configuration"])["training"]["lr"] == trial.params["lr"]
