"""Paths that begin with ~, which no shell has replaced: in URLs, after `--out=`, in a notebook."""

from __future__ import annotations

from pathlib import Path


def at_home(path: str | Path) -> Path:
    """The path, its ~ or ~USER as that home folder. Raises ValueError if there is no such folder.

    A path that exists as it is written stays so: release 0.1 made folders that are named ~.
    """
    found = Path(path)
    if not str(path).startswith("~") or found.exists():
        return found
    try:
        return found.expanduser()
    except RuntimeError:
        raise ValueError(f"{found.parts[0]!r} has no home folder; write the whole path") from None
