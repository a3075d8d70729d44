"""A password with every awkward character works in every way to pass it, and is visible nowhere afterwards.

Against servers of one's own that ask for it. Whatever form it might be written in, its letters at both ends stay what
they are: that is what is looked for.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from ralr_tune.commands.dashboard import make_app
from ralr_tune.commands.run import run
from ralr_tune.commands.run.options import RunOptions
from ralr_tune.secrecy import HidingFormatter
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import parse_study
from tests.commands.conftest import Cli, Ran
from tests.commands.test_commands_dashboard import ask
from tests.deploy.guarded import GuardedServer, guarded_server
from tests.launch import elsewhere
from tests.studies import simulated_text

PASSWORD = r"""Xq7{0}%40/:@#?&'"\ é<%s>9wKz"""
ENDS = ("Xq7", "9wKz")

Way = Callable[[GuardedServer, Path], tuple[list[str], dict[str, str]]]


def leaks(text: str) -> list[str]:
    """Lines that contain a part of the password."""
    return [line[:300] for line in text.splitlines() if any(end in line for end in ENDS)]


def without_leaks(ran: Ran) -> Ran:
    """Returns the result after asserting that its output does not contain the password."""
    assert leaks(ran.out) == []
    assert leaks(ran.err) == []
    return ran


@pytest.fixture(scope="module")
def postgresql() -> Iterator[GuardedServer]:
    with guarded_server("postgresql", PASSWORD) as server:
        open_storage(server.url, create=True).dispose()
        yield server


@pytest.fixture(scope="module")
def mariadb() -> Iterator[GuardedServer]:
    with guarded_server("mariadb", PASSWORD) as server:
        open_storage(server.url, create=True).dispose()
        yield server


@pytest.fixture
def sim(tmp_path: Path) -> Path:
    """The working folder, with a study file."""
    (tmp_path / "sim.toml").write_text(simulated_text(search={"trials": 2}, confirm={"top": 1, "seeds": 2}))
    return tmp_path


# ---------------------------------------------------------------- ways to pass it


def by_url(server: GuardedServer, folder: Path) -> tuple[list[str], dict[str, str]]:
    return [], {"RALR_TUNE_STORAGE": server.url}


def by_option(server: GuardedServer, folder: Path) -> tuple[list[str], dict[str, str]]:
    return ["--storage", server.url], {}


def by_variable(server: GuardedServer, folder: Path) -> tuple[list[str], dict[str, str]]:
    return ["--storage", server.bare_url], {"RALR_TUNE_STORAGE_PASSWORD": PASSWORD}


def by_file(server: GuardedServer, folder: Path) -> tuple[list[str], dict[str, str]]:
    (folder / "password").write_text(f"{PASSWORD}\n")
    named = {"RALR_TUNE_STORAGE_PASSWORD_FILE": str(folder / "password")}
    return [], {"RALR_TUNE_STORAGE": server.bare_url, **named}


def by_libpq_variable(server: GuardedServer, folder: Path) -> tuple[list[str], dict[str, str]]:
    return ["--storage", server.bare_url], {"PGPASSWORD": PASSWORD}


def by_pgpass(server: GuardedServer, folder: Path) -> tuple[list[str], dict[str, str]]:
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    (folder / ".pgpass").write_text(f"127.0.0.1:{server.place.port}:*:tuning:{escaped}\n")
    (folder / ".pgpass").chmod(0o600)
    return ["--storage", server.bare_url], {"HOME": str(folder)}


def by_passfile(server: GuardedServer, folder: Path) -> tuple[list[str], dict[str, str]]:
    by_pgpass(server, folder)
    return ["--storage", server.bare_url], {"PGPASSFILE": str(folder / ".pgpass")}


WAYS: list[Way] = [by_url, by_option, by_variable, by_file, by_libpq_variable, by_pgpass, by_passfile]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_pass_it_works_with_postgresql(way: Way, postgresql: GuardedServer, cli: Cli, sim: Path) -> None:
    options, environment = way(postgresql, sim)
    ran = without_leaks(cli("status", "nothing", *options, env=environment))
    assert ran.code == 1
    assert "no study 'nothing' is stored there" in ran.err
    assert ("warning: --storage shows the secret" in ran.err) == (way is by_option)


@pytest.mark.slow
@pytest.mark.parametrize("way", [by_url, by_option, by_variable, by_file])
def test_every_way_to_pass_it_works_with_mariadb(way: Way, mariadb: GuardedServer, cli: Cli, sim: Path) -> None:
    options, environment = way(mariadb, sim)
    assert "no study 'nothing'" in without_leaks(cli("status", "nothing", *options, env=environment)).err
    assert without_leaks(cli("run", "sim.toml", "--workers", 1, *options, env=environment)).code == 0


# ---------------------------------------------------------------- where it must not be


def commands_shown(process: int) -> str:
    """The process list of a process and its children only: other tests may contain the password."""
    lines = []
    for one in (psutil.Process(process), *psutil.Process(process).children(recursive=True)):
        with suppress(OSError):  # the process has ended
            lines.append(Path(f"/proc/{one.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(lines)


def watched_run(folder: Path, options: list[str], environment: dict[str, str]) -> Ran:
    """`run`, watching the process list from the time when the workers write their logs."""
    command = [sys.executable, "-m", "ralr_tune", "run", "sim.toml", "--workers", "2", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=folder, env=os.environ | environment, text=True, **pipes)
    shown: list[str] = []
    while process.poll() is None:
        if any(folder.glob("runs/sim/logs/*")):
            with suppress(psutil.NoSuchProcess):
                shown.append(commands_shown(process.pid))
        time.sleep(0.2)
    out, err = process.communicate()
    assert any("ralr_tune worker sim" in lines for lines in shown)
    assert [leaks(lines) for lines in shown if leaks(lines)] == []
    return Ran(process.returncode, out, err)


@pytest.mark.slow
@pytest.mark.parametrize("way", [by_option, by_url, by_file])
def test_a_whole_study_shows_it_nowhere(way: Way, postgresql: GuardedServer, cli: Cli, sim: Path) -> None:
    options, environment = way(postgresql, sim)
    name = f"sim-{way.__name__.replace('_', '-')}"
    text = (sim / "sim.toml").read_text().replace('name = "sim"', f'name = "{name}"')
    (sim / "sim.toml").write_text(text)
    shutil.rmtree(sim / "runs", ignore_errors=True)
    (sim / "runs").mkdir()
    (sim / "runs/sim").symlink_to(name)
    assert without_leaks(watched_run(sim, options, environment)).code == 0
    for arguments in (
        ["status", name],
        ["status", name, "--json"],
        ["report", name],
        ["report", name, "--json"],
        ["export", name],
        ["export", name, "--format", "json"],
        ["check", name],
        ["plan", name],
        ["status", "nothing", "--debug"],
        ["export", name, "--arm", "nothing", "--debug"],
        ["worker", name],
    ):
        ran = without_leaks(cli(*arguments, *options, env=environment))
        assert ran.code == (0 if "nothing" not in arguments else 1 if arguments[0] == "status" else 2), ran.err
    assert files_with_it(sim) == []
    assert leaks(dumped(postgresql)) == []


def test_workers_elsewhere_get_it_in_a_private_file_and_do_not_log_it(
    postgresql: GuardedServer, sim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher has the password from a variable that its workers do not have."""
    monkeypatch.setenv("RALR_TUNE_STORAGE_PASSWORD", PASSWORD)
    elsewhere.install(monkeypatch, sim / "site", elsewhere="tests.launch.elsewhere:Elsewhere")
    (sim / "engine").mkdir()
    spec = parse_study(simulated_text(study={"name": "remote"}, search={"trials": 1}))
    options = RunOptions(postgresql.bare_url, sim / "out", launcher="elsewhere", confirm=False)
    run(spec, options, launcher_options={"folder": str(sim / "engine")})
    assert {row.state for row in Ledger(open_storage(postgresql.url), "remote").rows()} == {"done"}
    log, script = sim / "engine/worker-0.log", sim / "engine/environment-0.sh"
    assert "-m ralr_tune worker remote" in log.read_text()
    assert leaks(log.read_text()) == []
    assert stat.S_IMODE(script.stat().st_mode) == 0o600
    assert [path for path in sim.rglob("*") if path.is_file() and ENDS[1].encode() in path.read_bytes()] == [script]


def files_with_it(folder: Path) -> list[str]:
    """Files in the working folder that contain a part of it, except for those that pass it."""
    given = {".pgpass", "password"}
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in given]
    assert {"report.html", "worker-0.log", "monotone.toml"} <= {path.name for path in files}
    return [str(path) for path in files if any(end.encode() in path.read_bytes() for end in ENDS)]


def dumped(server: GuardedServer) -> str:
    """Every row of the database."""
    with psycopg.connect(server.server.url, dbname="tuning") as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        rows = [connection.execute(f'SELECT * FROM "{name}"'.encode()).fetchall() for (name,) in tables]
    return "\n".join(str(row) for found in rows for row in found)


def test_a_study_file_may_contain_it(postgresql: GuardedServer, cli: Cli, sim: Path) -> None:
    changed = simulated_text(
        study={"name": "filed"}, storage={"url": postgresql.url}, search={"trials": 1}, confirm={"top": 1, "seeds": 2}
    )
    (sim / "sim.toml").write_text(changed)
    assert without_leaks(cli("run", "sim.toml", "--workers", 1)).code == 0
    (sim / "sim.toml").unlink()
    assert files_with_it(sim) == []
    assert leaks(dumped(postgresql)) == []


@pytest.mark.slow
def test_user_code_that_prints_its_environment_does_not_reveal_it(
    postgresql: GuardedServer, cli: Cli, sim: Path
) -> None:
    ours = "{name: text for name, text in os.environ.items() if 'RALR' in name}"  # all of them would be cut short
    (sim / "leaky.py").write_text(f"import os\ndef build(num_classes):\n    raise RuntimeError({ours})\n")
    changes = {"study": {"name": "leaky"}, "search": {"trials": 1}}
    task = {"kind": "classification", "data": {"source": "digits"}, "model": "leaky:build"}
    (sim / "sim.toml").write_text(simulated_text(task=task, **changes).replace("optimum = 0.1\n", ""))
    ran = without_leaks(cli("run", "sim.toml", "--workers", 1, "--debug", env={"RALR_TUNE_STORAGE": postgresql.url}))
    assert ran.code == 1
    assert "RALR_TUNE_STORAGE" in ran.err
    assert "RALR_TUNE_STORAGE" in dumped(postgresql)
    assert leaks(dumped(postgresql)) == []
    for path in (sim / "runs/leaky/logs").iterdir():
        assert leaks(path.read_text()) == []


@pytest.mark.parametrize(
    ("wrong", "debug"),
    [("password", False), ("password", True), ("port", True), ("database", True), ("user", True)],
)
def test_errors_and_tracebacks_do_not_reveal_it(
    postgresql: GuardedServer, cli: Cli, sim: Path, wrong: str, debug: bool
) -> None:
    url = {
        "password": postgresql.place.set(password=f"{PASSWORD}!"),
        "port": postgresql.place.set(password=PASSWORD, port=1),
        "database": postgresql.place.set(password=PASSWORD, database="none"),
        "user": postgresql.place.set(password=PASSWORD, username="nobody"),
    }[wrong].render_as_string(hide_password=False)
    ran = without_leaks(cli("status", "sim", *["--debug"] * debug, env={"RALR_TUNE_STORAGE": url}))
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("error: postgresql+psycopg://")
    assert ("Traceback" in ran.err) == debug


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "URL"],
        ["URL"],
        ["status", "sim", "URL"],
        ["status", "sim", "--storage-url", "URL"],
        ["status", "sim", "--storage=URL?x=y", "--debug"],
        ["status", "sim", "--storage", "oracle+URL"],
        ["check", "broken.toml"],
    ],
)
def test_usage_errors_do_not_reveal_it(arguments: list[str], postgresql: GuardedServer, cli: Cli, sim: Path) -> None:
    url = postgresql.url
    (sim / "broken.toml").write_text(simulated_text(storage={"urll": url, "lease_s": url}, training={"lr": url}))
    ran = without_leaks(cli(*[argument.replace("URL", url) for argument in arguments]))
    assert ran.code in (1, 2)
    assert "error: " in ran.err


def test_the_dashboard_of_a_stopped_database_reveals_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ralr_tune.commands.dashboard.REQUEST_S", 0.5)
    caplog.handler.setFormatter(HidingFormatter())
    with guarded_server("postgresql", PASSWORD) as server:
        storage = open_storage(server.url, create=True)
        app = make_app(storage, tmp_path, write=False, token=None)
        assert ask(app, "/api/studies")[0] == 200
        server.server.stop()
        for path in ("/api/studies", "/api/studies/1", "/csv/1", "/artifacts/1/a"):
            status, _, body = ask(app, path)
            assert status == 500
            assert leaks(body.decode()) == []
        assert leaks(caplog.text) == []
        assert re.search("postgresql.*tuning:\\*\\*\\*@", caplog.text)
        server.server.start()
        assert ask(app, "/api/studies")[0] == 200
        storage.dispose()
