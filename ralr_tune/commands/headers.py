"""What every answer of the dashboard tells the browser to do, and not to do, with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

StartResponse = Callable[..., Any]
Headers = list[tuple[str, str]]

ARTIFACTS = "/artifacts/"
"""Where files are served that anybody may have uploaded."""

# optuna-dashboard's own pages: emotion and plotly write styles into the page, and the parallel-coordinate plot compiles
# its shaders with `new Function` (tried in Chromium: without 'unsafe-eval' that one plot stays empty). No script runs
# but the dashboard's own file.
_PAGES = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:;"
    " media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_COMMON = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # not no-referrer: a form would then send `Origin: null`
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def sealed(start_response: StartResponse, path: str) -> StartResponse:
    """`start_response` for what stands at `path`: our headers in the place of the application's own."""

    def start(status: str, headers: Headers, *rest: Any) -> Any:
        own = _of_artifact(headers) if path.startswith(ARTIFACTS) and status.startswith("200") else _of_page(headers)
        return start_response(status, [*own, *secured(path)], *rest)

    return start


def secured(path: str, policy: str = _PAGES) -> Headers:
    """The headers that stand on every answer."""
    fresh = "no-cache" if path.startswith(("/static/", "/favicon.ico")) else "no-store"
    sandbox = "sandbox; default-src 'none'; frame-ancestors 'none'"
    policy = sandbox if path.startswith(ARTIFACTS) else policy
    return [*_COMMON.items(), ("Content-Security-Policy", policy), ("Cache-Control", fresh)]


def _of_page(headers: Headers) -> Headers:
    ours = {name.lower() for name, _ in secured("/")}
    kept = [(name, value) for name, value in headers if name.lower() not in ours and not _is_cors(name)]
    return [(name, _on_this_host(value) if name.lower() == "location" else value) for name, value in kept]


def _of_artifact(headers: Headers) -> Headers:
    """Whatever it is said to be, it is bytes to be kept in a file."""
    length = [(name, value) for name, value in headers if name.lower() == "content-length"]
    return [("Content-Type", "application/octet-stream"), ("Content-Disposition", "attachment"), *length]


def _is_cors(name: str) -> bool:
    return name.lower().startswith("access-control-")


def _on_this_host(location: str) -> str:
    """Bottle makes absolute addresses of what the request says of host and scheme."""
    parts = urlsplit(location)
    return parts._replace(scheme="", netloc="").geturl()
