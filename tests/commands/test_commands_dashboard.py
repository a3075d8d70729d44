"""The gate in front of the real dashboard; its own rules are in test_commands_gate.py."""

from __future__ import annotations

import json
from typing import Any
from wsgiref.util import setup_testing_defaults

from ralr_tune.commands.dashboard import make_app
from ralr_tune.commands.gate import Gate
from tests.search.conftest import MakeSession, make_session
from tests.studies import simulated

__all__ = ["make_session"]


def ask(app: Gate, path: str, method: str = "GET") -> tuple[int, bytes]:
    environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": method}
    setup_testing_defaults(environ)
    status: list[str] = []
    body = b"".join(app(environ, lambda line, headers, *rest: status.append(line)))
    return int(status[0].split()[0]), body


def test_the_dashboard_shows_the_arms_and_lets_nobody_delete_them(make_session: MakeSession) -> None:
    session = make_session(simulated())
    app = make_app(session.storage, write=False, token=None)
    status, body = ask(app, "/api/studies")
    assert status == 200
    names = [study["study_name"] for study in json.loads(body)["study_summaries"]]
    assert names == ["sim/monotone", "sim/ralr"]
    assert ask(app, "/dashboard")[0] == 200
    assert ask(app, "/api/studies/1", "DELETE")[0] == 403
    assert ask(app, "/api/studies")[1] == body
    with_writing = make_app(session.storage, write=True, token=None)
    assert ask(with_writing, "/api/studies/1", "DELETE")[0] == 204
