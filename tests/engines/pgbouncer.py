"""A pgbouncer that pools transactions, in front of the tests' PostgreSQL server.

It runs as another user than root (it refuses root), listens on a free port of 127.0.0.1 alone, and keeps its files in a
folder of its own.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.conftest import POSTGRESQL
from tests.faults.servers import PrivateServer, _free_port, _own, _user

_INI = """
[databases]
* = host={host} port={server_port} user={user}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 200
logfile = {folder}/log
"""


class Pooler(PrivateServer):
    """The pooler's process. `url`: of the administrator's console, which answers without a database."""

    def through(self, database_url: str) -> str:
        """The URL of a database, by way of the pooler."""
        return make_url(database_url).set(host="127.0.0.1", port=self._port).render_as_string(hide_password=False)


@contextmanager
def pgbouncer(folder: Path, *, size: int) -> Iterator[Pooler]:
    """A running pooler with `size` sessions of the server for each database; skips the test if it is not installed."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("no pgbouncer is installed here")
    folder.mkdir(parents=True)
    server, user, port = make_url(POSTGRESQL), _user("postgres"), _free_port()
    words = {"host": server.host, "server_port": server.port or 5432, "user": server.username, "size": size}
    (folder / "ini").write_text(_INI.format(port=port, folder=folder, **words))
    _own(folder, user)
    url = server.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
    pooler = Pooler([program, "-q", str(folder / "ini")], user, port, url, signal.SIGINT)
    pooler.start()
    try:
        yield pooler
    finally:
        pooler.kill()
        with suppress(OSError):
            shutil.rmtree(folder)
