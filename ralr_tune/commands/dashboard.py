"""`dashboard`: optuna-dashboard on the study's storage, behind a gate."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from ralr_tune.commands.gate import Gate
from ralr_tune.commands.locate import Whereabouts, opened
from ralr_tune.errors import UsageError
from ralr_tune.store import studies

if TYPE_CHECKING:
    from ralr_tune.store.database import Storage


def serve(where: Whereabouts, *, host: str, port: int, write: bool, token: str | None) -> None:
    """Serve until Ctrl-C. Raises UsageError when a host that others reach is given without a token."""
    import waitress

    if not token and not is_loopback(host):
        raise UsageError(f"--host {host}: others may reach it; give --token, or listen on 127.0.0.1")
    with opened(where) as storage:
        stored = studies.stored(storage, where.name)
        gate = make_app(storage, write=write, token=token)
        try:
            server = waitress.create_server(gate, host=host, port=port, ident="")
        except OSError as error:
            raise UsageError(f"--host {host} --port {port}: cannot listen there: {error.strerror}") from None
        query = f"?token={token}" if token else ""
        mode = "with writing allowed" if write else "read-only"
        print(
            f"Open http://{host}:{server.effective_port}/{query}  (study {stored.name}, {mode}; Ctrl-C ends it)",
            flush=True,
        )
        try:
            server.run()
        finally:
            server.close()


def make_app(storage: Storage, *, write: bool, token: str | None) -> Gate:
    """The dashboard's WSGI application behind its gate."""
    from optuna_dashboard import wsgi

    return Gate(wsgi(storage.optuna), write=write, token=token)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
