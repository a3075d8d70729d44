"""Puts the previous release's database and its checkpoints back, and says what that release came to from there."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from ralr_tune.store.address import parse_address

HERE = Path(__file__).parent
STUDIES = ("old-curves", "old-digits")

_HEADER_BYTES = len(b"ralr_tune checkpoint 2\n") + 2 * 32
"""Of a checkpoint file: the format, then two digests (SHA-256)."""


@dataclass(frozen=True)
class Restored:
    """Both studies, as the previous release's workers left them."""

    url: str
    out: Path

    @property
    def place(self) -> tuple[str, ...]:
        """Options that every command takes."""
        return "--storage", self.url, "--out", str(self.out)

    def recorded_seconds(self, study: str) -> dict[int, list[float]]:
        """Seconds of each epoch that a checkpoint holds, by ledger row."""
        paths = (self.out / "checkpoints").glob(f"{study}-row*.1.ckpt")
        return {int(path.name.split("-row")[1].split(".")[0]): _seconds(path) for path in paths}


def restore(url: str, out: Path) -> Restored:
    """Fills an empty database (SQLite: a file that does not exist yet) and an out folder."""
    kind = {"mysql": "mariadb"}.get(dialect := parse_address(url).dialect, dialect)
    statements = gzip.decompress((HERE / f"{kind}.sql.gz").read_bytes()).decode()
    {"sqlite": _into_sqlite, "postgresql": _into_postgresql, "mariadb": _into_mariadb}[kind](url, statements)
    shutil.copytree(HERE / "checkpoints" / kind, out / "checkpoints")
    return Restored(url, out)


def answers(study: str) -> dict[str, Any]:
    """What the previous release said of a study: before it continued, and at its end (see `make.answers`)."""
    found: dict[str, Any] = json.loads((HERE / f"{study}.json").read_text())
    return found


def _into_sqlite(url: str, statements: str) -> None:
    with sqlite3.connect(make_url(url).database or "") as connection:
        connection.executescript(statements)
    connection.close()


def _into_postgresql(url: str, statements: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements.encode())


def _into_mariadb(url: str, statements: str) -> None:
    import pymysql
    from pymysql.constants.CLIENT import MULTI_STATEMENTS

    parts = make_url(url)
    place: dict[str, Any] = {"host": parts.host, "port": parts.port or 3306, "database": parts.database}
    login: dict[str, Any] = {"user": parts.username, "password": parts.password or ""}
    with (
        pymysql.connect(**place, **login, autocommit=True, client_flag=MULTI_STATEMENTS) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(statements)
        while cursor.nextset():  # a statement that fails raises when its turn comes
            pass


def _seconds(path: Path) -> list[float]:
    content = path.read_bytes()[_HEADER_BYTES:]
    if content.startswith(b"["):
        curve = json.loads(content)
    else:
        import torch

        curve = torch.load(io.BytesIO(content), weights_only=True)["curve"]
    return [epoch["seconds"] for epoch in curve]
