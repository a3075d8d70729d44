"""How the commands print: text in the width of the terminal, JSON, and the results of a study."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ralr_tune.commands.report import Report


def say(text: str) -> None:
    """Print text, escaped for a terminal, whose lines break between words; "" prints nothing."""
    from ralr_tune.commands.terminal import readable, wrapped

    if text:
        width = shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None
        typer.echo(wrapped(readable(text), width))


def print_report(report: Report, *, as_json: bool, quiet: bool = False) -> None:
    if as_json:
        print_json(report.as_json())
        return
    say(report.answer if quiet else "\n".join([report.as_text(), "", *report.next_steps()]))


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))
