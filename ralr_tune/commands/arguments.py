"""Secrets among the arguments of a command: out of the process list, and a word on how to give them instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from ralr_tune.secrecy import MASK, masked_url, remember

_SAFER = {
    "--storage": "RALR_TUNE_STORAGE_PASSWORD, RALR_TUNE_STORAGE_PASSWORD_FILE or ~/.pgpass",
    "--token": "RALR_TUNE_DASHBOARD_TOKEN or RALR_TUNE_DASHBOARD_TOKEN_FILE",
}


def conceal(arguments: Sequence[str]) -> Iterator[str]:
    """Mask secrets in the line that the process list shows of this process; a warning for each option with one.

    `arguments`: the whole command line, as `sys.orig_argv`.
    """
    shown = [_shown(option, argument) for option, argument in pairwise(["", *arguments])]
    if shown == list(arguments):
        return
    import setproctitle

    setproctitle.setproctitle(" ".join(shown))
    for option, safer in _SAFER.items():
        if any(MASK in mask and option in (before, mask.partition("=")[0]) for before, mask in pairwise(["", *shown])):
            yield f"warning: {option} with a secret: others may have read it, and the shell keeps it; safer: {safer}"


def _shown(option: str, argument: str) -> str:
    """An argument, given after `option`, as anybody may see it."""
    if option == "--token":
        remember(argument)
        return MASK
    if argument.startswith("--token="):
        return f"--token={_shown('--token', argument.removeprefix('--token='))}"
    return masked_url(argument)
