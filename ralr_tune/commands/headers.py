"""Security headers of every response of the dashboard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

StartResponse = Callable[..., Any]
Headers = list[tuple[str, str]]

ARTIFACTS = "/artifacts/"
"""Path of uploaded files, which are not trusted."""

# For optuna-dashboard's pages: emotion and plotly insert inline styles, and the parallel-coordinate plot compiles its
# shaders with `new Function` (tested in Chromium: without 'unsafe-eval' only that plot stays empty). Only the
# dashboard's own script file can run.
_PAGES = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:;"
    " media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_COMMON = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # not no-referrer: forms would then send `Origin: null`
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def with_security_headers(start_response: StartResponse, path: str) -> StartResponse:
    """A `start_response` for `path` that replaces the application's headers with security_headers."""

    def start(status: str, headers: Headers, *rest: Any) -> Any:
        is_artifact = path.startswith(ARTIFACTS) and status.startswith("200")
        own = _artifact_headers(headers) if is_artifact else _page_headers(headers)
        return start_response(status, [*own, *security_headers(path)], *rest)

    return start


def security_headers(path: str, policy: str = _PAGES) -> Headers:
    """The headers of every response."""
    caching = "no-cache" if path.startswith(("/static/", "/favicon.ico")) else "no-store"
    sandbox = "sandbox; default-src 'none'; frame-ancestors 'none'"
    policy = sandbox if path.startswith(ARTIFACTS) else policy
    return [*_COMMON.items(), ("Content-Security-Policy", policy), ("Cache-Control", caching)]


def _page_headers(headers: Headers) -> Headers:
    replaced = {name.lower() for name, _ in security_headers("/")}
    kept = [(name, value) for name, value in headers if name.lower() not in replaced and not _is_cors(name)]
    return [(name, _on_this_host(value) if name.lower() == "location" else value) for name, value in kept]


def _artifact_headers(headers: Headers) -> Headers:
    """Headers of a download, whatever content type the upload declared."""
    length = [(name, value) for name, value in headers if name.lower() == "content-length"]
    return [("Content-Type", "application/octet-stream"), ("Content-Disposition", "attachment"), *length]


def _is_cors(name: str) -> bool:
    return name.lower().startswith("access-control-")


def _on_this_host(location: str) -> str:
    """Make a redirect relative: Bottle builds absolute URLs from the request's untrusted host and scheme."""
    parts = urlsplit(location)
    return parts._replace(scheme="", netloc="").geturl()
