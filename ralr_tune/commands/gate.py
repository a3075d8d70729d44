"""Access control in front of optuna-dashboard, which has no authentication and lets any client delete a study.

The gate lets only reads pass, unless writing is allowed; requires the token, if there is one; and refuses requests from
pages of other sites, even in the browser of a user with access. The token comes from a form, from the URL
(`/?token=...`, as the terminal prints it) or from `Authorization: Bearer`; after that, a cookie replaces it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from ralr_tune.commands.headers import NOTHING, Headers, StartResponse, security_headers, with_security_headers

Environ = dict[str, Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

log = logging.getLogger(__name__)

COOKIE = "ralr_tune_token"
LOGIN = "/login"
LOGIN_BYTES = 8192
"""Maximum size of a submitted form."""
_READS = ("GET", "HEAD")
_WRITES = ("POST", "PUT", "DELETE")
_PLAIN = re.compile(r"(/[A-Za-z0-9._~-]+)*/?")
"""Allowed paths. Bottle drops bytes that are not UTF-8, so another path could be routed differently than it reads."""

_FORM = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>ralr_tune dashboard</title></head>
<body><form method="post" action="/login">
<p>%s</p>
<p><label>Token <input type="password" name="token" required autofocus></label> <button>Open</button></p>
</form></body></html>
"""


class Gate:
    """WSGI middleware that checks every request to `application`."""

    def __init__(self, application: Application, *, write: bool, token: str | None) -> None:
        self._application, self._write = application, write
        self._key = None if token is None else _digest(token)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        refused = self._refusal(environ)
        if refused is not None:
            return _answer(environ, start_response, *refused)
        if self._key is not None:
            path = environ.get("PATH_INFO") or "/"
            if path == LOGIN:
                return self._login(environ, start_response)
            rest = self._query_without_token(environ)
            if rest is not None:
                return self._grant_access(environ, start_response, f"{path}?{rest}" if rest else path)
            if not self._is_authenticated(environ):
                return _request_token(environ, start_response, HTTPStatus.UNAUTHORIZED, "This dashboard needs a token.")
        if not self._write and environ["REQUEST_METHOD"] not in _READS:
            text = "This dashboard is read-only: start it with --write to change studies"
            return _answer(environ, start_response, HTTPStatus.FORBIDDEN, text)
        return self._forward(environ, start_response)

    def _forward(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return self._application(environ, with_security_headers(start_response, environ.get("PATH_INFO") or "/"))
        except Exception:
            log.exception("the dashboard failed at %s %s", environ["REQUEST_METHOD"], environ.get("PATH_INFO"))
            return _answer(environ, start_response, HTTPStatus.INTERNAL_SERVER_ERROR, "Failed; see the dashboard's log")

    def _refusal(self, environ: Environ) -> tuple[HTTPStatus, str] | None:
        """Status and reason to refuse a request, whatever its token; None if it may pass."""
        if not _PLAIN.fullmatch(environ.get("PATH_INFO") or "/") or "/.." in environ.get("PATH_INFO", ""):
            return HTTPStatus.NOT_FOUND, "No such page"
        if self._key is None and not _is_loopback_name(environ.get("HTTP_HOST")):
            return HTTPStatus.FORBIDDEN, "Without a token, this dashboard only answers to localhost and 127.0.0.1"
        if _is_foreign(environ):
            return HTTPStatus.FORBIDDEN, "Refused: a page of another site sent this request (a proxy must forward Host)"
        if self._write and environ["REQUEST_METHOD"] not in (*_READS, *_WRITES):
            return HTTPStatus.METHOD_NOT_ALLOWED, "Method not allowed"
        return None

    def _login(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "POST":
            return _request_token(environ, start_response, HTTPStatus.OK, "This dashboard needs a token.")
        given = parse_qs(_body(environ)).get("token", [""])[0]
        if not self._matches(given):
            return _request_token(environ, start_response, HTTPStatus.UNAUTHORIZED, "Wrong token.")
        return self._grant_access(environ, start_response, "/")

    def _grant_access(self, environ: Environ, start_response: StartResponse, path: str) -> Iterable[bytes]:
        cookie = _cookie(self._session(), secure=environ.get("wsgi.url_scheme") == "https")
        return _answer(environ, start_response, HTTPStatus.SEE_OTHER, "", [("Location", path), cookie])

    def _query_without_token(self, environ: Environ) -> str | None:
        """The query without its token; None if it holds no valid token."""
        query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        valid = any(name == "token" and self._matches(value) for name, value in query)
        return urlencode([pair for pair in query if pair[0] != "token"]) if valid else None

    def _is_authenticated(self, environ: Environ) -> bool:
        scheme, _, bearer = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        by_cookie = hmac.compare_digest(_read_cookie(environ).encode(), self._session().encode())
        return by_cookie or (scheme.lower() == "bearer" and self._matches(_utf8(bearer.strip())))

    def _matches(self, given: str) -> bool:
        return self._key is not None and hmac.compare_digest(_digest(given), self._key)

    def _session(self) -> str:
        """The cookie's value: an HMAC, so that reading the cookie does not reveal the token."""
        assert self._key is not None
        return hmac.new(self._key, b"ralr_tune dashboard", "sha256").hexdigest()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`, an address or a name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_loopback_name(host: str | None) -> bool:
    """Whether `Host` is a loopback name; the owner of any other name can point it here (DNS rebinding)."""
    if host is None:
        return True  # not a browser
    name = re.fullmatch(r"\[([0-9A-Fa-f:]+)\](:\d+)?|([^:]+)(:\d+)?", host)
    return name is not None and is_loopback(name[1] or name[3])


def _is_foreign(environ: Environ) -> bool:
    """Whether a page of another site sent the request; following a link from there is allowed."""
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is None:  # an old browser, plain HTTP to another machine, or not a browser
        origin = environ.get("HTTP_ORIGIN")
        return origin is not None and urlsplit(origin).netloc != environ.get("HTTP_HOST")
    follows_link = environ.get("HTTP_SEC_FETCH_MODE") == "navigate" and environ.get("HTTP_SEC_FETCH_DEST") == "document"
    return site not in ("same-origin", "none") and not (follows_link and environ["REQUEST_METHOD"] in _READS)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _utf8(header: str) -> str:
    """A header's text: WSGI decodes its bytes as Latin-1."""
    return header.encode("latin-1", errors="replace").decode(errors="replace")


def _body(environ: Environ) -> str:
    length = environ.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal() or int(length) > LOGIN_BYTES:
        return ""
    body: bytes = environ["wsgi.input"].read(int(length))
    return body.decode(errors="replace")


def _read_cookie(environ: Environ) -> str:
    try:
        cookie = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie else ""


def _cookie(value: str, *, secure: bool) -> tuple[str, str]:
    attributes = ["Path=/", "HttpOnly", "SameSite=Strict", *(["Secure"] if secure else [])]
    return "Set-Cookie", "; ".join([f"{COOKIE}={value}", *attributes])


def _request_token(environ: Environ, start_response: StartResponse, status: HTTPStatus, text: str) -> Iterable[bytes]:
    if "text/html" in environ.get("HTTP_ACCEPT", ""):
        return _answer(environ, start_response, status, _FORM % text, kind="text/html")
    return _answer(
        environ, start_response, status, f"{text} Open / in a browser, or send `Authorization: Bearer TOKEN`."
    )


def _answer(
    environ: Environ,
    start_response: StartResponse,
    status: HTTPStatus,
    text: str,
    headers: Headers | None = None,
    kind: str = "text/plain",
) -> Iterable[bytes]:
    content = ("Content-Type", f"{kind}; charset=utf-8")
    start_response(f"{status.value} {status.phrase}", [content, *(headers or []), *security_headers("/", NOTHING)])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [text.encode()]
