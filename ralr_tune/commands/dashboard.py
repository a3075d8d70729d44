"""`dashboard`: serve optuna-dashboard on the study's storage, behind an access gate."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from ralr_tune.commands.annotations import annotated
from ralr_tune.commands.gate import LOGIN_BYTES, Environ, Gate, is_loopback
from ralr_tune.commands.headers import StartResponse
from ralr_tune.commands.locate import StudyLocation, opened
from ralr_tune.errors import UsageError
from ralr_tune.invocation import python
from ralr_tune.launch.signals import handling
from ralr_tune.secrecy import remember, secret_from_environment
from ralr_tune.store import studies
from ralr_tune.store.failures import retry_for

if TYPE_CHECKING:
    from ralr_tune.store.database import Storage

TOKEN_VARIABLE = "RALR_TUNE_DASHBOARD_TOKEN"
"""Holds the token if --token is not given; the variable with the suffix _FILE names a file that holds it."""
MIN_TOKEN = 16
"""Minimum characters of a token if other machines can reach the dashboard."""
REQUEST_S = 5.0
"""Maximum wait of a request for a database that does not answer, in seconds."""
_UPLOAD_BYTES = 32 * 2**20
_SERVER: dict[str, Any] = {
    "ident": "",
    "threads": 8,  # plots are slow, and a browser sends six requests at once
    "max_request_header_size": 32 * 2**10,
    "channel_timeout": 60,
    # Of a proxy's headers, only the scheme is trusted: a client that forges it affects only its own cookie.
    "trusted_proxy": "*",
    "trusted_proxy_headers": "x-forwarded-proto",
    "clear_untrusted_proxy_headers": True,
}


@dataclass(frozen=True)
class Token:
    """The token that the dashboard requires."""

    value: str
    typed: bool = False
    """Whether the user passed it as --token, so that the terminal has already shown it."""


def serve(where: StudyLocation, *, host: str, port: int, write: bool, token: str | None) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises UsageError if other machines can reach `host` and there is no token."""
    import waitress

    # Do not warn about queued requests: a page sends more at once than there are threads.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    required = chosen_token(token, host)
    limit = _UPLOAD_BYTES if write else LOGIN_BYTES
    with opened(where) as storage:
        stored = studies.stored(storage, where.name)
        gate = make_app(storage, where.out, write=write, token=required.value if required else None)
        try:
            server = waitress.create_server(gate, host=host, port=port, max_request_body_size=limit, **_SERVER)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"--host {host} --port {port}: cannot listen: {reason}; change --host or --port") from None
        mode = "with writing allowed" if write else "read-only"
        print(f"Open {_address(server, required)}  (study {stored.name}, {mode}; Ctrl-C ends it)", flush=True)
        try:
            with handling(_interrupt, signal.SIGTERM):
                server.run()
        finally:
            server.close()


def chosen_token(token: str | None, host: str) -> Token | None:
    """The token from --token, TOKEN_VARIABLE or its file. Raises UsageError if `host` needs a better one."""
    value = secret_from_environment(TOKEN_VARIABLE) if token is None else token
    if value is None:
        if is_loopback(host):
            return None
        options = f"--token, {TOKEN_VARIABLE} or {TOKEN_VARIABLE}_FILE"
        raise UsageError(f"--host {host}: other machines can reach it; give {options}, or listen on 127.0.0.1")
    if not value.strip() or not value.isprintable():
        raise UsageError("the dashboard's token is blank or contains a control character; give printable characters")
    if len(value) < MIN_TOKEN and not is_loopback(host):
        example = python("-c", "import secrets; print(secrets.token_urlsafe())")
        raise UsageError(
            f"--host {host}: a token of {len(value)} characters is too short; allowed: at least {MIN_TOKEN}; "
            f"create one with: {example}"
        )
    remember(value)
    return Token(value, typed=token is not None)


def make_app(storage: Storage, out: Path, *, write: bool, token: str | None) -> Gate:
    """The dashboard's WSGI application behind its gate; artifacts are in OUT/artifacts."""
    from optuna_dashboard import wsgi

    dashboard = wsgi(storage.optuna, Artifacts(out / "artifacts"))
    dashboard.catchall = False  # the gate logs errors, with passwords masked

    def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")  # its static files fail without this key
        with retry_for(REQUEST_S):
            body: Iterable[bytes] = dashboard(environ, start_response)
            return body

    return Gate(annotated(answer, write=write), write=write, token=token)


class Artifacts(FileSystemArtifactStore):
    """Artifact files in a folder that is created with the first one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        super().write(artifact_id, content_body)

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """As in the base class, but an artifact that is not in this folder (uploaded elsewhere) gives a 404."""
        from bottle import HTTPError

        try:
            return super().open_reader(artifact_id)
        except (ArtifactNotFound, OSError, ValueError):
            raise HTTPError(404, "No such artifact in this folder") from None


def _address(server: Any, token: Token | None) -> str:
    """The URL to open. It contains the token only on a terminal in which the user typed it."""
    host, port = getattr(server, "effective_listen", [(None, None)])[0]
    host, port = host or server.effective_host, port or server.effective_port
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    if token is None:
        return url
    if token.typed and sys.stdout.isatty():
        return f"{url}?token={quote(token.value, safe='')}"
    return f"{url} and enter the token from {'--token' if token.typed else f'{TOKEN_VARIABLE} or its file'}"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
