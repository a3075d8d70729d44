"""The gate in front of the real dashboard, for all of its routes; for the gate's rules see test_commands_gate.py."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna.artifacts import upload_artifact
from optuna_dashboard import wsgi
from sqlalchemy import MetaData, select

from ralr_tune.commands.annotations import BEST, READ_ONLY, SCRIPT_PATH
from ralr_tune.commands.dashboard import _SERVER, MIN_TOKEN, TOKEN_VARIABLE, Artifacts, chosen_token, make_app
from ralr_tune.commands.gate import Gate
from ralr_tune.errors import UsageError
from ralr_tune.store.database import Storage
from tests.commands.conftest import Cli
from tests.search.conftest import MakeSession, make_session, sessions
from tests.studies import simulated
from tests.waiting import LONG_S

__all__ = ["make_session"]

TOKEN = "the right token of this test"
ROUTES = [(route.method, route.rule) for route in wsgi(optuna.storages.InMemoryStorage()).routes]
READS = [rule for method, rule in ROUTES if method == "GET"]
CHANGES = [(method, rule) for method, rule in ROUTES if method != "GET"]


@dataclass
class Seen:
    """A study in a database with a running trial and an artifact."""

    storage: Storage
    out: Path
    artifact: str

    def app(self, *, write: bool = False, token: str | None = None) -> Gate:
        return make_app(self.storage, self.out, write=write, token=token)

    def path(self, rule: str) -> str:
        """The path of a route for study 2 and the running trial 2 (number 1) of this database."""
        values = {"study_id": "2", "trial_id": "2", "plot_type": "slice", "filename": "bundle.js", "history_id": "x"}
        values["artifact_id"] = self.artifact
        return re.sub(r"<(\w*)[^>]*>", lambda part: values.get(part[1], ""), rule)

    def state(self) -> Any:
        """Everything that a request could change."""
        tables = MetaData()
        tables.reflect(self.storage.engine)
        rows = {name: [tuple(row) for row in self.storage.rows(select(table))] for name, table in tables.tables.items()}
        return rows, sorted(path.name for path in self.out.rglob("*"))


@pytest.fixture
def seen(make_session: MakeSession, tmp_path: Path) -> Seen:
    return _seen(make_session, tmp_path)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Shared by all tests that assert that nothing has changed."""
    folder = tmp_path_factory.mktemp("unchanged")
    with sessions(folder) as make:
        yield _seen(make, folder)


def _seen(make_session: MakeSession, folder: Path) -> Seen:
    session = make_session(simulated())
    study = optuna.load_study(study_name="sim/ralr", storage=session.storage.optuna)
    study.add_trial(optuna.create_trial(params={}, value=0.5))
    study.ask()
    (folder / "page.html").write_text("<script>document.title = 'ran'</script>")
    artifact = upload_artifact(
        artifact_store=Artifacts(folder / "out/artifacts"),
        file_path=str(folder / "page.html"),
        study_or_trial=study,
    )
    return Seen(session.storage, folder / "out", artifact)


def ask(
    app: Gate, path: str, method: str = "GET", body: Any = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    path, _, query = path.partition("?")
    content = b"" if body is None else json.dumps(body).encode()
    environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": method, "QUERY_STRING": query}
    environ |= {
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(content)),
        "wsgi.input": io.BytesIO(content),
    }
    setup_testing_defaults(environ)
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    answered: list[Any] = []
    body = b"".join(app(environ, lambda status, headers, *rest: answered.extend([status, dict(headers)])))
    return int(answered[0].split()[0]), answered[1], body


def test_the_dashboard_shows_the_arms(seen: Seen) -> None:
    status, _, body = ask(seen.app(), "/api/studies")
    assert status == 200
    assert [study["study_name"] for study in json.loads(body)["study_summaries"]] == ["sim/monotone", "sim/ralr"]


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("path", ["/dashboard", "/dashboard/studies/2/note"])
def test_a_page_says_what_read_only_means_and_what_best_is(unchanged: Seen, path: str, write: bool) -> None:
    status, headers, body = ask(unchanged.app(write=write), path, if_modified_since="Fri, 01 Jan 2100 00:00:00 GMT")
    assert (status, headers["Content-Length"]) == (200, str(len(body)))
    assert body.rstrip().endswith(b"</p></body>\n</html>")
    assert BEST.encode() in body
    assert (READ_ONLY.encode() in body) == (b'[aria-label="delete study"]' in body) == (not write)
    assert f'<script defer src="{SCRIPT_PATH}">'.encode() in body
    status, headers, script = ask(unchanged.app(write=write), SCRIPT_PATH)
    assert (status, headers["Content-Type"]) == (200, "text/javascript; charset=utf-8")
    assert b"Best Trial" in script


@pytest.mark.parametrize(("method", "rule"), CHANGES)
def test_no_route_changes_anything_without_permission(unchanged: Seen, method: str, rule: str) -> None:
    before, path = unchanged.state(), unchanged.path(rule)
    body = BODIES.get((method, rule), (0, {}))[1]
    assert ask(unchanged.app(write=True, token=TOKEN), path, method, body)[0] == 401
    assert ask(unchanged.app(write=True, token=TOKEN), f"{path}?token=wrong", method, body)[0] == 401
    assert ask(unchanged.app(token=TOKEN), path, method, body, authorization=f"Bearer {TOKEN}")[0] == 403
    assert ask(unchanged.app(), path, method, body)[0] == 403
    assert ask(unchanged.app(write=True), path, method, body, sec_fetch_site="cross-site")[0] == 403
    assert ask(unchanged.app(write=True), path, method, body, host="evil.example")[0] == 403
    assert unchanged.state() == before


@pytest.mark.parametrize("rule", READS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_read_works_with_the_token_and_changes_nothing(unchanged: Seen, rule: str, method: str) -> None:
    before = unchanged.state()
    app, path = unchanged.app(token=TOKEN), unchanged.path(rule)
    if "<trial_id" in rule:
        path = path.replace(unchanged.artifact, "0")
    assert ask(app, path, method)[0] == 401
    status, headers, body = ask(app, path, method, authorization=f"Bearer {TOKEN}")
    expected = {"/": 302, "/incompatible-rdb-schema": 302}.get(rule, 404 if "<trial_id" in rule else 200)
    assert status == expected, body
    assert headers.get("Location", "/dashboard") == "/dashboard"
    assert (body == b"") == (method == "HEAD" or status == 302)
    assert "Access-Control-Allow-Origin" not in headers
    assert unchanged.state() == before


# (status, body) of an allowed change; the dashboard itself answers routes that only exist for preferential studies,
# language models and old schemas
BODIES: dict[tuple[str, str], tuple[int, Any]] = {
    ("POST", "/api/studies"): (201, {"study_name": "new", "directions": ["minimize"]}),
    ("POST", "/api/studies/<study_id:int>/rename"): (201, {"study_name": "renamed"}),
    ("DELETE", "/api/studies/<study_id:int>"): (204, {}),
    ("PUT", "/api/studies/<study_id:int>/note"): (204, {"version": 1, "body": "text"}),
    ("POST", "/api/studies/<study_id:int>/preference"): (
        204,
        {"mode": "ChooseWorst", "candidates": [0, 1], "clicked": 0},
    ),
    ("PUT", "/api/studies/<study_id:int>/preference_feedback_component"): (204, {"output_type": "note"}),
    ("POST", "/api/trials/<trial_id:int>/tell"): (204, {"state": "COMPLETE", "values": [0.1]}),
    ("POST", "/api/trials/<trial_id:int>/user-attrs"): (204, {"user_attrs": {"a": 1}}),
    ("PUT", "/api/studies/<study_id:int>/<trial_id:int>/note"): (204, {"version": 1, "body": "text"}),
    ("POST", "/api/artifacts/<study_id:int>/<trial_id:int>"): (
        201,
        {"file": "data:x;base64,eA==", "filename": "x.txt"},
    ),
    ("POST", "/api/artifacts/<study_id:int>"): (201, {"file": "data:x;base64,eA==", "filename": "x.txt"}),
    ("DELETE", "/api/artifacts/<study_id:int>/<artifact_id:re:[0-9a-fA-F-]+>"): (204, None),
}


@pytest.mark.parametrize(("method", "rule"), CHANGES)
def test_with_write_the_token_allows_changes(seen: Seen, method: str, rule: str) -> None:
    before = seen.state()
    status, body = BODIES.get((method, rule), (None, {}))
    app = seen.app(write=True, token=TOKEN)
    answer = ask(app, seen.path(rule), method, body, authorization=f"Bearer {TOKEN}")
    if status is None:
        assert b"reason" in answer[2] or answer[0] in (204, 302)
    else:
        assert answer[0] == status, answer
        assert seen.state() != before


def test_the_route_table_was_read() -> None:
    assert len(READS) >= 10
    assert {key for key in BODIES if key not in CHANGES} == set()


def test_an_artifact_is_sent_as_a_download(seen: Seen) -> None:
    status, headers, body = ask(seen.app(), f"/artifacts/2/{seen.artifact}")
    assert (status, body) == (200, b"<script>document.title = 'ran'</script>")
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"] == "attachment"
    assert headers["Content-Security-Policy"].startswith("sandbox")


@pytest.mark.parametrize(
    "name", ["..", "../study.db", "..%2fstudy.db", "%2e%2e/study.db", "/etc/passwd", "....//x", "..\\study.db", "."]
)
def test_no_path_leads_out_of_the_artifacts(seen: Seen, name: str) -> None:
    for method in ("GET", "DELETE"):
        for prefix in ("/artifacts/2/", "/artifacts/2/2/", "/api/artifacts/2/", "/static/"):
            status, _, body = ask(seen.app(write=True), f"{prefix}{name}", method, {})
            assert status in (403, 404, 405)
            assert b"SQLite format" not in body


def test_an_artifact_in_another_folder_is_not_found(seen: Seen) -> None:
    (seen.out / "artifacts" / seen.artifact).unlink()
    assert ask(seen.app(), f"/artifacts/2/{seen.artifact}")[0] == 404
    assert ask(seen.app(write=True), f"/api/artifacts/2/{seen.artifact}", "DELETE")[0] == 404


def test_the_folder_of_artifacts_is_created_with_the_first_one(seen: Seen, tmp_path: Path) -> None:
    app = make_app(seen.storage, tmp_path / "new", write=True, token=None)
    ask(app, "/api/studies")
    assert not (tmp_path / "new").exists()
    assert ask(app, "/api/artifacts/2", "POST", {"file": "data:x;base64,eA==", "filename": "../x"})[0] == 201
    assert len(list((tmp_path / "new/artifacts").iterdir())) == 1


# ---------------------------------------------------------------- the token of a host


def test_the_token_comes_from_an_option_a_variable_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert chosen_token(None, "127.0.0.1") is None
    monkeypatch.setenv(TOKEN_VARIABLE, "from the variable")
    assert chosen_token(None, "0.0.0.0") is not None
    typed = chosen_token("from the command", "0.0.0.0")
    assert typed is not None
    assert (typed.value, typed.typed) == ("from the command", True)
    monkeypatch.delenv(TOKEN_VARIABLE)
    (tmp_path / "token").write_text("from the token's file\n")
    monkeypatch.setenv(f"{TOKEN_VARIABLE}_FILE", str(tmp_path / "token"))
    read = chosen_token(None, "0.0.0.0")
    assert read is not None
    assert (read.value, read.typed) == ("from the token's file", False)


@pytest.mark.parametrize(
    ("token", "host", "reason"),
    [
        (None, "0.0.0.0", f"give --token, {TOKEN_VARIABLE} or {TOKEN_VARIABLE}_FILE, or listen on 127.0.0.1"),
        ("", "127.0.0.1", "blank"),
        (" \t", "127.0.0.1", "blank"),
        ("a\nb" * 10, "127.0.0.1", "control character"),
        ("x" * (MIN_TOKEN - 1), "0.0.0.0", f"at least {MIN_TOKEN}"),
    ],
)
def test_unsuitable_tokens_are_refused(
    token: str | None, host: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(UsageError) as raised:
        chosen_token(token, host)
    assert reason in str(raised.value)
    assert "x" * (MIN_TOKEN - 1) not in str(raised.value)


# ---------------------------------------------------------------- served


@dataclass
class Served:
    process: subprocess.Popen[str]
    line: str

    @property
    def port(self) -> int:
        found = re.search(r"http://\S+", self.line)
        assert found is not None, self.line
        return urlsplit(found[0]).port or 0

    def get(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> HTTPResponse:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=LONG_S)
        connection.request(method, path, body, headers)
        return connection.getresponse()

    def raw(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=LONG_S) as connection:
            connection.sendall(request)
            return connection.recv(65536)

    def end(self) -> tuple[str, str]:
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=LONG_S)


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path, make_session: MakeSession, warm_interpreter: str) -> Iterator[Serve]:
    """`python -m ralr_tune dashboard sim` in a process, on a free port."""
    make_session(simulated())
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, interpreter: str = warm_interpreter, **environment: str) -> Served:
        import os

        command = [interpreter, "-m", "ralr_tune", "dashboard", "sim", "--port", "0", *arguments]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RALR_TUNE_DASHBOARD")}
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=clean | {"RALR_TUNE_STORAGE": f"sqlite:///{tmp_path}/study.db"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        return Served(process, process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_served_without_a_token(serve: Serve, host: str) -> None:
    served = serve("--host", host)
    assert served.get("/api/studies").status == 200
    assert served.get("/api/studies/1", "DELETE").status == 403
    assert served.get("/api/studies", Host="evil.example").status == 403
    assert "(study sim, read-only; Ctrl-C ends it)" in served.line
    assert served.end() == ("", "")
    assert served.process.returncode == 0


def test_queued_requests_give_no_warning(serve: Serve) -> None:
    served = serve()
    at_once = 8 * _SERVER["threads"]
    with ThreadPoolExecutor(at_once) as pool:
        statuses = list(pool.map(lambda _: served.get("/api/studies").status, range(at_once)))
    assert statuses == [200] * at_once
    assert served.end() == ("", "")


def test_a_token_is_shown_nowhere(serve: Serve, tmp_path: Path) -> None:
    token = "Xq7-{0}%40/:@#?&'\"é-9wKz"
    (tmp_path / "token").write_text(f"{token}\n")
    served = serve("--host", "0.0.0.0", RALR_TUNE_DASHBOARD_TOKEN_FILE=str(tmp_path / "token"))
    assert "and enter the token from RALR_TUNE_DASHBOARD_TOKEN or its file" in served.line
    assert served.get("/api/studies").status == 401
    assert served.get("/api/studies?token=Xq7-9wKz").status == 401
    assert (
        served.get("/api/studies/99/nothing", Authorization=f"Bearer {token}".encode().decode("latin-1")).status == 404
    )
    assert served.get("/csv/99?token=Xq7-9wKz", "BREW").status == 401
    assert served.raw(b"GET /?token=Xq7-9wKz HTTP/9.9\r\nHost: x\r\nBad Header\r\n\r\n").startswith(b"HTTP/1.")
    said = served.line + "".join(served.end())
    assert "Xq7" not in said
    assert "9wKz" not in said


def test_a_token_option_is_masked_in_the_process_list(serve: Serve) -> None:
    served = serve("--token", "Xq7-9wKz-Xq7-9wKz", interpreter=sys.executable)
    assert "Xq7" not in Path(f"/proc/{served.process.pid}/cmdline").read_text()
    assert "Xq7" not in served.line  # a pipe is not the terminal in which the user typed it
    assert served.get("/?token=Xq7-9wKz-Xq7-9wKz").status == 303
    _, errors = served.end()
    assert re.fullmatch(r"warning: --token shows the secret .* RALR_TUNE_DASHBOARD_TOKEN_FILE instead\n", errors)


def test_requests_that_are_too_large_are_refused(serve: Serve) -> None:
    """Sends no more than the server reads: sending after a refusal may reset the connection."""
    served = serve()
    body = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
    head = b"GET /api/studies HTTP/1.1\r\nCookie: ".ljust(_SERVER["max_request_header_size"], b"x")
    assert served.raw(body).startswith(b"HTTP/1.1 413 ")
    assert served.raw(head).split()[1] == b"431"


def test_the_cookie_is_secure_if_the_proxy_uses_tls(serve: Serve) -> None:
    served = serve("--token", TOKEN)
    path = "/?token=" + TOKEN.replace(" ", "+")
    assert "Secure" not in str(served.get(path).headers["Set-Cookie"])
    assert "Secure" in str(served.get(path, **{"X-Forwarded-Proto": "https"}).headers["Set-Cookie"])
    followed = served.get("/", Authorization=f"Bearer {TOKEN}", **{"X-Forwarded-Host": "evil.example"})
    assert followed.headers["Location"] == "/dashboard"


def test_an_error_at_start_is_one_line(cli: Cli, make_session: MakeSession, tmp_path: Path) -> None:
    make_session(simulated())
    storage = {"RALR_TUNE_STORAGE": f"sqlite:///{tmp_path}/study.db"}
    for arguments, reason in (
        (["--host", "0.0.0.0"], "other machines can reach it"),
        (["--host", "no such host", "--token", TOKEN], "cannot listen: "),
        (["--token", " "], "blank"),
    ):
        ran = cli("dashboard", "sim", *arguments, env=storage)
        assert ran.code == 2
        assert reason in ran.err
        assert "Traceback" not in ran.err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = cli("dashboard", "sim", "--port", taken.getsockname()[1], env=storage)
    assert (ran.code, "cannot listen: " in ran.err) == (2, True)
