from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ralr_tune.commands.dashboard import is_loopback
from ralr_tune.commands.gate import COOKIE, Gate, StartResponse


def inside(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"inside"]


def ask(gate: Gate, method: str = "GET", query: str = "", cookie: str = "") -> tuple[str, dict[str, str], bytes]:
    answered: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]], *rest: Any) -> None:
        answered.update(status=status, headers=dict(headers))

    environ = {"REQUEST_METHOD": method, "QUERY_STRING": query, "HTTP_COOKIE": cookie}
    body = b"".join(gate(environ, start_response))
    return answered["status"], answered["headers"], body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "post", "ANYTHING"])
def test_read_only_lets_nothing_but_reads_through(method: str) -> None:
    status, _, body = ask(Gate(inside, write=False, token=None), method)
    assert status.startswith("403")
    assert body != b"inside"
    assert b"--write" in body


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_reads_pass(method: str) -> None:
    assert ask(Gate(inside, write=False, token=None), method)[2] == b"inside"


def test_write_lets_writes_through() -> None:
    assert ask(Gate(inside, write=True, token=None), "DELETE")[2] == b"inside"


def test_a_token_is_asked_for_taken_once_and_kept_in_a_cookie() -> None:
    gate = Gate(inside, write=True, token="s3cret")
    assert ask(gate)[0].startswith("401")
    assert ask(gate, "DELETE")[0].startswith("401")
    assert ask(gate, query="token=wrong")[0].startswith("401")
    assert ask(gate, cookie=f"{COOKIE}=wrong")[0].startswith("401")
    status, headers, _ = ask(gate, query="token=s3cret")
    assert status.startswith("303")
    assert headers["Location"] == "/"  # the token leaves the address bar
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert ask(gate, cookie=cookie.split(";")[0])[2] == b"inside"


def test_a_broken_cookie_is_no_token() -> None:
    assert ask(Gate(inside, write=False, token="x"), cookie='a"=;;=,')[0].startswith("401")


def test_a_token_of_any_characters_works() -> None:
    gate = Gate(inside, write=False, token='a b;"ü=')
    _, headers, _ = ask(gate, query="token=a%20b%3B%22%C3%BC%3D")
    assert ask(gate, cookie=headers["Set-Cookie"].split("; ")[0])[2] == b"inside"


def test_security_headers_stand_on_every_answer() -> None:
    for gate in (Gate(inside, write=False, token=None), Gate(inside, write=False, token="x")):
        headers = ask(gate)[1]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("db", False)],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
