"""Command-line arguments: those given as words of a command; secrets in them masked, with a safer way to pass them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from ralr_tune.secrecy import MASK, masked_url, masked_webhook, remember

_SAFER = {
    "--storage": "RALR_TUNE_STORAGE_PASSWORD, RALR_TUNE_STORAGE_PASSWORD_FILE or ~/.pgpass",
    "--notify": "RALR_TUNE_NOTIFY or RALR_TUNE_NOTIFY_FILE",
    "--to": "RALR_TUNE_MIRROR, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "--mirror": "RALR_TUNE_MIRROR, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "--token": "RALR_TUNE_DASHBOARD_TOKEN or RALR_TUNE_DASHBOARD_TOKEN_FILE",
}


def given_words(options: Mapping[str, object]) -> Iterator[str]:
    """The words of the options that were given, by name; True is a switch, a list a repeated option."""
    for name, value in options.items():
        if value is True:
            yield name
        elif value not in (None, False):
            for each in value if isinstance(value, list) else [value]:
                yield from (name, str(each))


def conceal(arguments: Sequence[str]) -> Iterator[str]:
    """Mask secrets in this process's entry in the process list, and yield a warning for each option with a secret.

    `arguments`: the whole command line, as in `sys.orig_argv`.
    """
    shown = [_masked(option, argument) for option, argument in pairwise(["", *arguments])]
    if shown == list(arguments):
        return
    import setproctitle

    setproctitle.setproctitle(" ".join(shown))
    for option, safer in _SAFER.items():
        if any(MASK in mask and option in (before, mask.partition("=")[0]) for before, mask in pairwise(["", *shown])):
            yield f"warning: {option} shows the secret to other users and in the shell history; use {safer} instead"


def _masked(option: str, argument: str) -> str:
    """An argument that follows `option`, with its secret masked."""
    if option == "--token":
        remember(argument)
        return MASK
    if argument.startswith("--token="):
        return f"--token={_masked('--token', argument.removeprefix('--token='))}"
    if option == "--notify" and "://" in argument:
        return masked_webhook(argument)
    if argument.startswith("--notify="):
        return f"--notify={_masked('--notify', argument.removeprefix('--notify='))}"
    return masked_url(argument)
