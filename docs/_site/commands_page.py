"""The sections of reference/commands.md, from the program's own parser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from ralr_tune.cli import app
from ralr_tune.invocation import SCRIPT, program


def text() -> str:
    group: Any = typer.main.get_command(app)
    above = group.context_class(group, info_name=SCRIPT)
    return "".join(section(name, command, above) for name, command in group.commands.items())


def section(name: str, command: Any, above: Any) -> str:
    context = command.context_class(command, info_name=name, parent=above)
    usage = " ".join([SCRIPT, name, *command.collect_usage_pieces(context)]).replace("{", "").replace("}", "")
    table = "| argument or option | meaning |\n|---|---|\n" + "".join(options(command, context))
    return f"\n## {name}\n\n{command.help}\n\n```text\n{usage}\n```\n\n{table}\n{example(command)}"


def example(command: Any) -> str:
    """The example of its help, with the name of the installed program."""
    return (command.epilog or "").replace(program(), "`" + SCRIPT) + "`\n" if command.epilog else ""


def options(command: Any, context: Any) -> Iterator[str]:
    for parameter in command.params:
        name, meaning = parameter.get_help_record(context)
        yield f"| `{name}` | {escaped(meaning)} |\n"


def escaped(cell: str) -> str:
    """As a cell of a table; Markdown would take brackets for a link."""
    return " ".join(cell.split()).replace("|", "\\|").replace("[", "\\[")
