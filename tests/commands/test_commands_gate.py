"""The gate's rules, in front of an application that accepts everything; the real one: test_commands_dashboard.py."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from ralr_tune.commands.gate import COOKIE, LOGIN_BYTES, Gate, is_loopback
from ralr_tune.commands.headers import StartResponse

TOKEN = "a right token"


def inside(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    start_response(
        "200 OK",
        [
            ("Content-Type", "text/html"),
            ("Content-Length", "6"),
            ("Access-Control-Allow-Origin", "*"),
            ("content-security-policy", "script-src *"),
            ("X-Own", "kept"),
        ],
    )
    return [b"inside"]


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def inside(self) -> bool:
        return self.body == b"inside"

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def __getitem__(self, name: str) -> str:
        (value,) = self.all(name)
        return value


def ask(gate: Gate, method: str = "GET", path: str = "/", body: bytes = b"", **headers: str) -> Answer:
    """`headers`: the environ's names without HTTP_, in lower case."""
    answered: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]], *rest: Any) -> None:
        answered.update(status=int(status.split(maxsplit=1)[0]), headers=headers)

    path, _, query = path.partition("?")
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "wsgi.url_scheme": "http"}
    environ |= {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    content = b"".join(gate(environ, start_response))
    return Answer(answered["status"], answered["headers"], content)


def gate(*, write: bool = False, token: str | None = None) -> Gate:
    return Gate(inside, write=write, token=token)


def cookie_of(answer: Answer) -> str:
    return answer["Set-Cookie"].split(";")[0]


# ---------------------------------------------------------------- methods


@pytest.mark.parametrize(
    "method",
    ["POST", "PUT", "DELETE", "PATCH", "post", "get", "OPTIONS", "TRACE", "PROPFIND", "CONNECT", "ANYTHING", ""],
)
def test_read_only_lets_only_reads_pass(method: str) -> None:
    answer = ask(gate(), method, x_http_method_override="GET")
    assert answer.status == 403
    assert b"--write" in answer.body


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reads_pass(method: str) -> None:
    assert ask(gate(), method).inside


def test_an_overridden_method_stays_a_read() -> None:
    seen = []

    def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ["REQUEST_METHOD"])
        return inside(environ, start_response)

    ask(Gate(application, write=False, token=None), "GET", x_http_method_override="DELETE")
    assert seen == ["GET"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "GET", "HEAD"])
def test_write_lets_writes_pass(method: str) -> None:
    assert ask(gate(write=True), method).inside


@pytest.mark.parametrize("method", ["post", "OPTIONS", "TRACE", "PROPFIND", "PATCH", ""])
def test_unknown_methods_never_pass(method: str) -> None:
    assert ask(gate(write=True), method).status == 405


def test_the_gates_responses_to_head_have_no_body() -> None:
    answer = ask(gate(token=TOKEN), "HEAD")
    assert (answer.status, answer.body) == (401, b"")


# ---------------------------------------------------------------- the token


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"path": "/?token=wrong"},
        {"path": "/?token="},
        {"path": "/?token=a+right"},
        {"cookie": f"{COOKIE}=wrong"},
        {"cookie": f"{COOKIE}="},
        {"cookie": f"{COOKIE}={TOKEN}"},
        {"cookie": 'a"=;;=,'},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer \xff\xfe"},
    ],
)
def test_no_request_passes_without_the_token(method: str, given: dict[str, str]) -> None:
    for write in (False, True):
        answer = ask(gate(write=write, token=TOKEN), method, **given)
        assert answer.status in (401, 405)
        assert answer.all("Set-Cookie") == []


def test_a_token_in_the_url_is_replaced_by_a_cookie() -> None:
    asked = gate(write=True, token=TOKEN)
    answer = ask(asked, path="/?token=a%20right+token")
    assert (answer.status, answer["Location"]) == (303, "/")  # the token leaves the address bar
    for attribute in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert attribute in answer["Set-Cookie"].split("; ")
    assert "Secure" not in answer["Set-Cookie"]
    assert TOKEN not in answer["Set-Cookie"]
    assert ask(asked, cookie=cookie_of(answer)).inside
    assert ask(asked, "DELETE", cookie=cookie_of(answer)).inside
    assert ask(gate(token="another token"), cookie=cookie_of(answer)).status == 401


def test_the_rest_of_a_url_with_a_token_stays() -> None:
    answer = ask(gate(token=TOKEN), path="/dashboard/studies/1?a=1&token=a+right+token&b=%26")
    assert answer["Location"] == "/dashboard/studies/1?a=1&b=%26"


def test_a_bearer_passes() -> None:
    assert ask(gate(token="tökén"), authorization="bearer tökén".encode().decode("latin-1")).inside


def test_the_form_accepts_the_token() -> None:
    asked = gate(token=TOKEN)
    form = ask(asked, accept="text/html,*/*")
    assert form.status == 401
    assert b'<form method="post" action="/login">' in form.body
    assert ask(asked, path="/login", accept="text/html").status == 200
    wrong = ask(asked, "POST", "/login", b"token=wrong", accept="text/html")
    assert wrong.status == 401
    assert b"Wrong token" in wrong.body
    right = ask(asked, "POST", "/login", b"token=a+right+token")
    assert (right.status, right["Location"]) == (303, "/")
    assert ask(asked, cookie=cookie_of(right)).inside


@pytest.mark.parametrize("body", [b"", b"token", b"\xff=\xfe", b"token=a+right+token&x=" + b"x" * LOGIN_BYTES])
def test_an_invalid_form_opens_nothing(body: bytes) -> None:
    assert ask(gate(token=TOKEN), "POST", "/login", body).status == 401


def test_behind_tls_the_cookie_is_secure() -> None:
    answered: list[list[tuple[str, str]]] = []
    environ = {"REQUEST_METHOD": "GET", "QUERY_STRING": "token=a+right+token", "wsgi.url_scheme": "https"}
    list(gate(token=TOKEN)(environ, lambda status, headers, *rest: answered.append(headers)))
    assert "Secure" in dict(answered[0])["Set-Cookie"]


@pytest.mark.parametrize("token", ['a b;"ü=', "{0}%s", "a+b&c=d", "\\"])
def test_a_token_of_any_characters_works(token: str) -> None:
    from urllib.parse import quote_plus, urlencode

    asked = gate(token=token)
    assert ask(asked, cookie=cookie_of(ask(asked, path=f"/?token={quote_plus(token)}"))).inside
    assert ask(asked, "POST", "/login", urlencode({"token": token}).encode()).status == 303


def test_without_a_token_the_query_parameter_has_no_effect() -> None:
    assert ask(gate(), path="/?token=x").inside
    assert ask(gate(), path="/login").inside


# ---------------------------------------------------------------- other sites


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "[::1]"])
def test_loopback_names_pass_without_a_token(host: str) -> None:
    assert ask(gate(), host=host).inside


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1:8080", "", "[::1"],
)
def test_another_name_that_points_here_does_not_pass(host: str) -> None:
    assert ask(gate(), host=host).status == 403
    assert ask(gate(write=True), "DELETE", host=host).status == 403
    assert ask(gate(token=TOKEN), host=host, authorization=f"Bearer {TOKEN}").inside


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},  # another port of this machine
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"},
        {"origin": "https://evil.example", "host": "127.0.0.1:8080"},
        {"origin": "http://127.0.0.1:3000", "host": "127.0.0.1:8080"},
        {"origin": "null", "host": "127.0.0.1:8080"},
    ],
)
def test_another_sites_page_gets_nothing(method: str, headers: dict[str, str]) -> None:
    assert ask(gate(write=True), method, **headers).status == 403
    assert ask(gate(write=True, token=TOKEN), method, authorization=f"Bearer {TOKEN}", **headers).status == 403


def test_another_site_may_link_here_but_not_send_a_form() -> None:
    follow = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert ask(gate(write=True), **follow).inside
    assert ask(gate(write=True), "POST", **follow).status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
        {"origin": "http://127.0.0.1:8080", "host": "127.0.0.1:8080"},
    ],
)
def test_its_own_pages_pass(headers: dict[str, str]) -> None:
    assert ask(gate(write=True), "POST", **headers).inside


# ---------------------------------------------------------------- paths and headers


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "/a//b",
        "/art\xffifacts/1/a",
        "/artifacts/1/..",
        "/../x",
        "/a\\b",
        "/a b",
        "/a\nb",
        "/%61",
        "x",
        "*",
    ],
)
def test_paths_that_the_dashboard_does_not_have(path: str) -> None:
    assert ask(gate(), path=path).status == 404
    assert ask(gate(token=TOKEN), path=f"{path}?token=a+right+token").status == 404


@pytest.mark.parametrize("asked", [gate(), gate(token=TOKEN)], ids=["inside", "own answer"])
@pytest.mark.parametrize("path", ["/", "/artifacts/1/a", "/static/bundle.js", "/nowhere/\xff"])
def test_every_response_has_every_security_header_once(asked: Gate, path: str) -> None:
    answer = ask(asked, path=path)
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Referrer-Policy"] == "same-origin"
    assert answer["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "camera=()" in answer["Permissions-Policy"]
    policy = answer["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "*" not in policy
    assert answer.all("Access-Control-Allow-Origin") == []
    assert answer["Cache-Control"] == ("no-cache" if answer.inside and path.startswith("/static") else "no-store")


def test_other_headers_of_the_application_stay() -> None:
    answer = ask(gate())
    assert (answer["X-Own"], answer["Content-Type"]) == ("kept", "text/html")


def test_an_artifact_is_a_download_whatever_type_it_declares() -> None:
    for path in ("/artifacts/1/a", "/artifacts/1/2/a", "/artifacts/1/a/"):
        answer = ask(gate(), path=path)
        assert answer["Content-Type"] == "application/octet-stream"
        assert answer["Content-Disposition"] == "attachment"
        assert answer["Content-Length"] == "6"
        assert answer["Content-Security-Policy"].startswith("sandbox;")
        assert answer.all("X-Own") == []


def test_a_redirect_stays_on_this_host() -> None:
    def redirecting(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("302 Found", [("Location", "http://evil.example/dashboard?a=1")])
        return [b""]

    assert ask(Gate(redirecting, write=False, token=None))["Location"] == "/dashboard?a=1"


def test_an_error_of_the_application_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    def failing(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        raise ZeroDivisionError("my own bug")

    with caplog.at_level(logging.ERROR):
        answer = ask(Gate(failing, write=False, token=None), path="/api/studies")
    assert answer.status == 500
    assert b"bug" not in answer.body
    assert "my own bug" in caplog.text
    assert answer["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("db", False)],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
