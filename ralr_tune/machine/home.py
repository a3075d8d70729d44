"""Expands paths that begin with ~ when no shell has done so: in URLs, after `--out=`, in a notebook."""

from __future__ import annotations

from pathlib import Path


def expand_home(path: str | Path) -> Path:
    """The path with ~ or ~USER expanded. Raises ValueError if that user has no home folder.

    A path that exists literally is returned unchanged: release 0.1 created folders named ~.
    """
    found = Path(path)
    if not str(path).startswith("~") or found.exists():
        return found
    try:
        return found.expanduser()
    except RuntimeError:
        raise ValueError(f"{found.parts[0]!r} has no home folder; write the full path") from None
