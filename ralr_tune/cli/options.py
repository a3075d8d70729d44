"""What several commands share: arguments, options, the refusal of options that exclude each other, help examples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ralr_tune.invocation import program


def _not_empty(url: str | None) -> str | None:
    """Refuse an empty URL: an unset shell variable would otherwise select the default database."""
    if url is not None and not url.strip():
        raise typer.BadParameter("is empty; give a database URL, or leave the option out")
    return url


def home_expanded(path: Path | None) -> Path | None:
    """A shell replaces the ~ of `--out ~/x`, and not that of `--out=~/x`."""
    from ralr_tune.machine.home import expand_home

    try:
        return None if path is None else expand_home(path)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Study = Annotated[str, typer.Argument(metavar="STUDY", help="A name in studies/, or the path of a study file.")]
Storage = Annotated[
    str | None,
    typer.Option(
        help="Database URL (sqlite, postgresql, mysql). Overrides RALR_TUNE_STORAGE and the study file.",
        callback=_not_empty,
    ),
]
NOTIFY = "A URL (webhook) or command that is told once that the study has ended or failed.  [default: RALR_TUNE_NOTIFY]"
Notify = Annotated[list[str] | None, typer.Option(metavar="URL|COMMAND", help=NOTIFY)]
OUT = "Folder for report, logs and checkpoints.  [default: runs/STUDY]"
Out = Annotated[Path | None, typer.Option(callback=home_expanded, help=OUT)]
NoImports = Annotated[bool, typer.Option("--no-imports", help="Refuse a file that imports custom code.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON instead of text.")]


def example(arguments: str) -> str:
    return f"Example: {program()} {arguments}"


def refuse_together(option: str, others: Mapping[str, object]) -> None:
    """Raise UsageError for the first of `others` that is given: it has no effect together with `option`."""
    from ralr_tune.errors import UsageError

    for name, given in others.items():
        if given is not None and given is not False:
            raise UsageError(f"{name} and {option}: give one of the two")
