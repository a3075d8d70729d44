"""Texts in databases of every encoding: what a study file says survives, and no failure goes unrecorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from ralr_tune.store import incidents, studies
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.ledger import Ledger, PlannedRow

TEXTS = ["# plain\n", "# caf\u00e9\n", "# \U0001f680 caf\u00e9 \u4f60\u597d \\U0001f680 \\n\nx = 'a'\n"]
FAILED = "caf\udce9/\u00e9 \U0001f680: no\0 such file"  # \udce9: a byte of a file name that is not UTF-8 (PEP 383)


def postgresql(encoding: str) -> tuple[str, str]:
    return "postgresql", f"ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"


def mariadb(encoding: str) -> tuple[str, str]:
    return "mariadb", f"CHARACTER SET {encoding}"


DATABASES = [
    ("sqlite", ""),
    *map(postgresql, ["SQL_ASCII", "LATIN1", "KOI8R"]),  # the last has another name in Python
    mariadb("latin1"),
    *(pytest.param(postgresql(encoding), marks=pytest.mark.slow) for encoding in ("UTF8", "WIN1252", "EUC_JP")),
    *(pytest.param(mariadb(encoding), marks=pytest.mark.slow) for encoding in ("utf8mb4", "utf8mb3", "ascii")),
]


@pytest.fixture(scope="module", params=DATABASES, ids=lambda database: "-".join(database[1].split()[:2]) or "sqlite")
def opened(request: pytest.FixtureRequest, new_database: Callable[..., str]) -> Iterator[Storage]:
    kind, options = request.param
    storage = open_storage(new_database(kind, bare=True, options=options), create=True)
    yield storage
    storage.dispose()


def test_a_study_file_is_read_as_it_was_written(opened: Storage) -> None:
    for number, written in enumerate(TEXTS):
        name = f"study-{number}"
        assert studies.register(opened, name=name, text=written, fingerprint="x").text == written
        studies.update_text(opened, name, text=written * 2, fingerprint="x")
        assert studies.stored(opened, name).text == written * 2


def test_a_text_that_the_database_can_hold_is_stored_as_it_is(opened: Storage) -> None:
    """Other programs, and release 0.1, read it there."""
    name = "ascii"
    studies.register(opened, name=name, text=TEXTS[0], fingerprint="x")
    with opened.engine.connect() as connection:
        assert connection.scalar(text(f"SELECT text FROM ralr_tune_studies WHERE name = '{name}'")) == TEXTS[0]


def test_every_failure_is_recorded(opened: Storage) -> None:
    ledger = Ledger(opened, "failing", lease_s=30)
    ledger.plan([PlannedRow("ralr", "search", 1, 0, seed=0)])
    row = ledger.claim("me", "search")
    assert row is not None
    ledger.fail(row, kind="bug", message=FAILED, retry=False, detail=FAILED)
    latest = incidents.latest(opened, "failing")
    assert latest is not None
    for said in (latest.message, latest.detail, ledger.row(row.id).message):
        assert said in (
            "caf\\udce9/\u00e9 \U0001f680: no\\x00 such file",
            "caf\\udce9/\\xe9 \\U0001f680: no\\x00 such file",
        )
