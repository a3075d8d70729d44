"""Private database servers that a test can stop, kill and restart without affecting other tests.

Each lives in a folder of its own and listens on a free port of 127.0.0.1.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import LONG_S, until


class PrivateServer:
    """One server process; `command` starts it in the foreground."""

    def __init__(self, command: list[str], user: str, port: int, url: str, stop_signal: signal.Signals) -> None:
        self._command, self._user, self._port, self._stop_signal = command, user, port, stop_signal
        self._process: subprocess.Popen[bytes] | None = None
        self.url = url

    def start(self) -> None:
        """Returns once the server answers. Retries: the leftovers of a killed server take time to disappear."""

        def started() -> bool:
            if self._answers():
                return True
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **_as(self._user)
                )
            return False

        until(started, f"{self._command[0]} starts")

    def stop(self) -> None:
        """Like an administrator: sessions are ended, nothing is lost."""
        self._end(self._stop_signal)

    def kill(self) -> None:
        """Like a power failure."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(LONG_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        from sqlalchemy import create_engine

        from ralr_tune.store.address import parse_address

        with suppress(Exception):
            engine = create_engine(parse_address(self.url).url)
            engine.connect().close()
            engine.dispose()
            return True
        return False


@contextmanager
def private_server(kind: str, folder: Path) -> Iterator[PrivateServer]:
    """A running server ("postgresql" or "mariadb") with an empty database; skips the test if it is not installed."""
    folder.mkdir(parents=True)
    server = _postgresql(folder) if kind == "postgresql" else _mariadb(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _postgresql(folder: Path) -> PrivateServer:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path(shutil.which("postgres") or "x").parent]
    if not (found[-1] / "initdb").exists():
        pytest.skip("no PostgreSQL server is installed here")
    programs, user, port, data = found[-1], _user("postgres"), _free_port(), folder / "data"
    _own(folder, user)
    made = [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync"]
    subprocess.run(made, check=True, capture_output=True, **_as(user))
    command = [programs / "postgres", "-D", data, "-p", port, "-h", "127.0.0.1", "-k", folder, "-c", "fsync=off"]
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    return PrivateServer([str(word) for word in command], user, port, url, signal.SIGINT)  # SIGINT: "fast" shutdown


def _mariadb(folder: Path) -> PrivateServer:
    install, server = (
        shutil.which("mariadb-install-db"),
        shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin"),
    )
    if not install or not server:
        pytest.skip("no MariaDB server is installed here")
    user, port, data = _user("mysql"), _free_port(), folder / "data"
    data.mkdir()
    _own(folder, user)
    # without the anonymous user of localhost, root can connect from 127.0.0.1 without a password
    made = [install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(made, check=True, capture_output=True, **_as(user))
    command = [server, "--no-defaults", f"--datadir={data}", f"--socket={folder}/s", f"--port={port}"]
    command += ["--bind-address=127.0.0.1", f"--pid-file={folder}/pid", "--max-connections=500"]
    return PrivateServer(command, user, port, f"mysql://root@127.0.0.1:{port}/mysql", signal.SIGTERM)


def _user(name: str) -> str:
    """The user to run a server as: servers refuse to run as root, and only root can switch to another user."""
    if os.getuid() != 0:
        return ""
    with suppress(KeyError):
        pwd.getpwnam(name)
        return name
    return "nobody"


def _as(user: str) -> dict[str, Any]:
    return {"user": user, "group": pwd.getpwnam(user).pw_gid} if user else {}


def _own(folder: Path, user: str) -> None:
    """Gives `user` access to a folder inside another user's private temporary folder."""
    if not user:
        return
    for part in (folder, *(folder / child for child in os.listdir(folder))):
        shutil.chown(part, user)
    for parent in folder.parents:
        with suppress(PermissionError):
            if not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)


def _free_port() -> int:
    """A free port, below the range from which the system assigns ports to connections and to port 0."""
    while True:
        port = secrets.SystemRandom().randrange(15_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
