"""`dashboard`: optuna-dashboard on the study's storage, behind a gate."""

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

from ralr_tune.commands.gate import LOGIN_BYTES, Environ, Gate, is_loopback
from ralr_tune.commands.headers import StartResponse
from ralr_tune.commands.locate import StudyLocation, opened
from ralr_tune.errors import UsageError
from ralr_tune.invocation import python
from ralr_tune.launch.signals import handling
from ralr_tune.secrecy import given, remember
from ralr_tune.store import studies
from ralr_tune.store.failures import patience

if TYPE_CHECKING:
    from ralr_tune.store.database import Storage

TOKEN_VARIABLE = "RALR_TUNE_DASHBOARD_TOKEN"
"""The token, where no --token is given; with _FILE behind it, the file that holds it."""
MIN_TOKEN = 16
"""Characters of a token that is asked of other machines."""
REQUEST_S = 5.0
"""How long a request waits for a database that does not answer."""
_UPLOAD_BYTES = 32 * 2**20
_SERVER: dict[str, Any] = {
    "ident": "",
    "threads": 8,  # drawing is slow, and a browser asks for six things at once
    "max_request_header_size": 32 * 2**10,
    "channel_timeout": 60,
    # Whether the browser came by TLS is all that is believed of a proxy; who lies about it harms but his own cookie.
    "trusted_proxy": "*",
    "trusted_proxy_headers": "x-forwarded-proto",
    "clear_untrusted_proxy_headers": True,
}


@dataclass(frozen=True)
class Token:
    """What the dashboard asks for."""

    value: str
    typed: bool = False
    """Whether it stood in the command, so that the terminal has shown it already."""


def serve(where: StudyLocation, *, host: str, port: int, write: bool, token: str | None) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises UsageError when a host that others reach is given without a token."""
    import waitress

    # A request that waits its turn is no warning: a page asks for more at once than there are threads.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    asked = chosen_token(token, host)
    limit = _UPLOAD_BYTES if write else LOGIN_BYTES
    with opened(where) as storage:
        stored = studies.stored(storage, where.name)
        gate = make_app(storage, where.out, write=write, token=asked.value if asked else None)
        try:
            server = waitress.create_server(gate, host=host, port=port, max_request_body_size=limit, **_SERVER)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"--host {host} --port {port}: cannot listen there: {reason}") from None
        mode = "with writing allowed" if write else "read-only"
        print(f"Open {_address(server, asked)}  (study {stored.name}, {mode}; Ctrl-C ends it)", flush=True)
        try:
            with handling(_interrupt, signal.SIGTERM):
                server.run()
        finally:
            server.close()


def chosen_token(token: str | None, host: str) -> Token | None:
    """The token of --token, TOKEN_VARIABLE or its file; UsageError where it does not do for `host`."""
    value = given(TOKEN_VARIABLE) if token is None else token
    if value is None:
        if is_loopback(host):
            return None
        ways = f"--token, {TOKEN_VARIABLE} or {TOKEN_VARIABLE}_FILE"
        raise UsageError(f"--host {host}: others may reach it; give {ways}, or listen on 127.0.0.1")
    if not value.strip() or not value.isprintable():
        raise UsageError("the dashboard's token is blank, or holds a control character")
    if len(value) < MIN_TOKEN and not is_loopback(host):
        how = f"for one: {python('-c', 'import secrets; print(secrets.token_urlsafe())')}"
        raise UsageError(
            f"--host {host}: others may guess a token of {len(value)} characters; at least {MIN_TOKEN}; {how}"
        )
    remember(value)
    return Token(value, typed=token is not None)


def make_app(storage: Storage, out: Path, *, write: bool, token: str | None) -> Gate:
    """The dashboard's WSGI application behind its gate; artifacts lie in OUT/artifacts."""
    from optuna_dashboard import wsgi

    inside = wsgi(storage.optuna, Artifacts(out / "artifacts"))
    inside.catchall = False  # the gate tells of what goes wrong, where passwords are hidden

    def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")  # its static files fail without
        with patience(REQUEST_S):
            found: Iterable[bytes] = inside(environ, start_response)
            return found

    return Gate(answer, write=write, token=token)


class Artifacts(FileSystemArtifactStore):
    """Files in a folder that is made when the first one comes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        super().write(artifact_id, content_body)

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """As the store's own, but what is not in this folder (uploaded elsewhere) is a 404 and no defect."""
        from bottle import HTTPError

        try:
            return super().open_reader(artifact_id)
        except (ArtifactNotFound, OSError, ValueError):
            raise HTTPError(404, "No such artifact in this folder") from None


def _address(server: Any, token: Token | None) -> str:
    """What to open. The token is in it only for the terminal in which it was typed."""
    host, port = getattr(server, "effective_listen", [(None, None)])[0]
    host, port = host or server.effective_host, port or server.effective_port
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    if token is None:
        return url
    if token.typed and sys.stdout.isatty():
        return f"{url}?token={quote(token.value, safe='')}"
    return f"{url} and give the token of {'--token' if token.typed else f'{TOKEN_VARIABLE} or its file'}"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
