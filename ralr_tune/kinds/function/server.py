"""How the process in which a function trains is started."""

from __future__ import annotations

import sys

from ralr_tune.studyfile.imports import Import

_MODULE = "ralr_tune.own.serve"


def target_import(target: str) -> Import:
    """The key that names the function."""
    return Import("task.target", target)


def server_command(target: str, *, check: bool = False) -> list[str]:
    """The command that serves a function; `check`: that only imports it, and prints what is wrong with it.

    The process gets the folder in which this one finds the module: its own search path may differ.
    """
    folder = target_import(target).folder()
    words = [sys.executable, "-m", _MODULE, target, *(["--check"] if check else [])]
    return words if folder is None else [*words, "--folder", str(folder)]
