"""A private database server that requires a password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pymysql
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from tests.faults.servers import PrivateServer, private_server
from tests.waiting import until


@dataclass(frozen=True)
class GuardedServer:
    """A server whose user `name` needs a password for the database of the same name."""

    server: PrivateServer
    password: str
    name: str

    @property
    def place(self) -> URL:
        """The URL without the password."""
        return make_url(self.server.url).set(username=self.name, database=self.name)

    @property
    def bare_url(self) -> str:
        return self.place.render_as_string()

    @property
    def url(self) -> str:
        """The URL with the password, percent-encoded."""
        return self.place.set(password=self.password).render_as_string(hide_password=False)


@contextmanager
def guarded_server(kind: str, password: str, name: str = "tuning") -> Iterator[GuardedServer]:
    """A running "postgresql" (SCRAM) or "mariadb" server; skips the test if it is not installed."""
    # not below the test's folder: the path of a socket may have at most 107 characters
    with TemporaryDirectory() as parent, private_server(kind, folder := Path(parent) / kind) as server:
        found = GuardedServer(server, password, name)
        _guard_postgresql(found, folder) if kind == "postgresql" else _guard_mariadb(found)
        yield found


def _guard_postgresql(guarded: GuardedServer, folder: Path) -> None:
    name = sql.Identifier(guarded.name)
    with psycopg.connect(guarded.server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(guarded.password)))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
        rules = [
            "local all all trust",
            "host all postgres 127.0.0.1/32 trust",
            "host all all 127.0.0.1/32 scram-sha-256",
        ]
        (folder / "data/pg_hba.conf").write_text("\n".join(rules) + "\n")
        connection.execute("SELECT pg_reload_conf()")  # returns before the configuration is reloaded
    until(lambda: _refuses(guarded.place.set(password="wrong")), "the server requires passwords")


def _refuses(url: URL) -> bool:
    try:
        psycopg.connect(url.render_as_string(hide_password=False)).close()
    except psycopg.OperationalError as error:
        return "password authentication failed" in str(error)
    return False


def _guard_mariadb(guarded: GuardedServer) -> None:
    url, name = make_url(guarded.server.url), guarded.name
    administrator = pymysql.connect(host=url.host, port=url.port or 0, user=url.username, autocommit=True)
    with administrator, administrator.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        cursor.execute(f"CREATE USER {name}@'127.0.0.1' IDENTIFIED BY %s", [guarded.password])
        cursor.execute(f"GRANT ALL ON {name}.* TO {name}@'127.0.0.1'")
