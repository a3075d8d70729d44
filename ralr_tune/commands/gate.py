"""A door in front of optuna-dashboard, which itself asks nobody who they are and lets anybody delete a study.

Reads alone pass unless writing is allowed; with a token, nobody passes without it. The token comes once in the address
(`/?token=...`) and is then kept in a cookie.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

COOKIE = "ralr_tune_token"
_READS = ("GET", "HEAD", "OPTIONS")
_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),  # the token stands in the first address
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


class Gate:
    """WSGI application around another one."""

    def __init__(self, inside: Application, *, write: bool, token: str | None) -> None:
        self._inside, self._write, self._token = inside, write, token

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if self._token is not None:
            given = parse_qs(environ.get("QUERY_STRING", "")).get("token", [""])[0]
            if given and self._matches(given):
                return _answer(start_response, HTTPStatus.SEE_OTHER, "", [("Location", "/"), _cookie(given)])
            if not self._matches(_token_cookie(environ)):
                text = "This dashboard asks for a token: open /?token=TOKEN"
                return _answer(start_response, HTTPStatus.UNAUTHORIZED, text, [])
        if not self._write and environ["REQUEST_METHOD"] not in _READS:
            text = "This dashboard is read-only: start it with --write to change studies"
            return _answer(start_response, HTTPStatus.FORBIDDEN, text, [])
        return self._inside(
            environ, lambda status, headers, *rest: start_response(status, [*headers, *_HEADERS], *rest)
        )

    def _matches(self, given: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(given.encode(), self._token.encode())


def _token_cookie(environ: dict[str, Any]) -> str:
    try:
        cookie = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie else ""


def _cookie(token: str) -> tuple[str, str]:
    cookie: SimpleCookie = SimpleCookie({COOKIE: token})
    for name, value in (("path", "/"), ("httponly", True), ("samesite", "Strict")):
        cookie[COOKIE][name] = value
    return "Set-Cookie", cookie[COOKIE].OutputString()


def _answer(
    start_response: StartResponse, status: HTTPStatus, text: str, headers: list[tuple[str, str]]
) -> Iterable[bytes]:
    plain = ("Content-Type", "text/plain; charset=utf-8")
    start_response(f"{status.value} {status.phrase}", [plain, *headers, *_HEADERS])
    return [text.encode()]
