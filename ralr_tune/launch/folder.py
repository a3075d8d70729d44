"""Checks that a worker on another machine sees the out folder of the `run` that started it, not another of that name.

Checkpoints are in that folder: a worker with a different folder would restart trials that other workers have begun, and
no other worker would find its checkpoints and logs. The token is random and identifies the folder; it grants no access,
so it is not a secret.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ralr_tune.errors import UsageError
from ralr_tune.machine import files

TOKEN_FILE = "folder-token"
TOKEN_VARIABLE = "RALR_TUNE_FOLDER_TOKEN"
"""Environment variable with the token that a worker must find in its out folder."""

_BYTES = 16


def folder_token(out: Path) -> str:
    """The token of an out folder, created if missing. Call it while holding the study's lock: two runs must agree.

    Raises DiskError.
    """
    if token := _read(out):
        return token
    token = secrets.token_hex(_BYTES)
    files.write(out / TOKEN_FILE, f"{token}\n".encode())
    return token


def expected_token() -> str | None:
    """The token from the worker's launcher; None for a worker that the user started."""
    return os.environ.get(TOKEN_VARIABLE) or None


def check_shared(out: Path, token: str) -> None:
    """Raises UsageError unless `out` holds this token."""
    found = _read(out)
    if found == token:
        return
    seen = "holds the token of another run" if found else f"holds no file {TOKEN_FILE}"
    raise UsageError(
        f"--out {out}: on this machine it {seen}: the folder is not shared with the machine of `run`; "
        "start run with an --out that all machines share under the same path"
    )


def _read(out: Path) -> str:
    try:
        with files.opened(out / TOKEN_FILE, limit=100) as file:
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""
